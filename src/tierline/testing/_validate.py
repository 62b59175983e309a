"""Refuses what the Messages API refuses: the shape of a request, and what its model does not accept."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final

from tierline.testing._problem import Problem, invalid
from tierline.testing._prompt import blocks_of
from tierline.testing._rules import DATED, EFFORTS, MODELS, RETIRED

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tierline.testing._rules import ModelRules

# fmt: off
COUNT_FIELDS: Final = frozenset({
    "model", "messages", "system", "tools", "tool_choice", "thinking", "output_config", "output_format",
    "cache_control", "context_management", "mcp_servers", "speed",
})
FIELDS: Final = COUNT_FIELDS | {
    "max_tokens", "temperature", "top_p", "top_k", "stop_sequences", "stream", "metadata", "service_tier",
    "inference_geo", "container", "diagnostics", "billing_policy", "compaction", "fallbacks", "fallback_credit_token",
    "user_profile_id",
}
# fmt: on
_BLOCKS: Final = {
    "user": frozenset(["text", "image", "document", "search_result", "tool_result", "container_upload"]),
    "system": frozenset({"text"}),
}
_UNANSWERED: Final = "`tool_use` ids were found without `tool_result` blocks immediately after"
_MIN_BUDGET: Final = 1024
_MAX_BREAKPOINTS: Final = 4
_TOOL_NAME: Final = re.compile(r"[a-zA-Z0-9_-]{1,128}")


def rules_of(model: Any, aliases: Mapping[str, str]) -> ModelRules:
    """The rules of a model id. Raises a 404 for an unknown or retired one, a 400 for what is no id."""
    if not isinstance(model, str) or not model:
        raise invalid("model: Field required" if model is None else "model: Input should be a valid string")
    name = aliases.get(model, DATED.get(model, model))
    if name in MODELS:
        return MODELS[name]
    retired = " (this model is retired)" if name.startswith(RETIRED) else ""
    raise Problem(404, f"model: {model}{retired}")


def check_create(body: Mapping[str, Any], rules: ModelRules) -> None:
    """Raise the problem that the API has with a request to `/v1/messages`; the length of the prompt is apart."""
    most = body.get("max_tokens")
    if most is None:
        raise invalid("max_tokens: Field required")
    if not isinstance(most, int) or isinstance(most, bool):
        raise invalid("max_tokens: Input should be a valid integer")
    if most < 1:
        raise invalid("max_tokens: Input should be greater than or equal to 1")
    if most > rules.max_output:
        raise invalid(
            f"max_tokens: {most} > {rules.max_output}, which is the maximum allowed number of output tokens for "
            f"{rules.id}"
        )
    if not isinstance(body.get("stream") or False, bool):
        raise invalid("stream: Input should be a valid boolean")
    check_prompt(body, rules, FIELDS)
    _check_sampling(body, rules)
    for stop in _list(body, "stop_sequences"):
        if not isinstance(stop, str) or not stop.strip():
            raise invalid("stop_sequences: each stop sequence must contain non-whitespace")
    if body.get("inference_geo") is not None:
        if not rules.geo:
            raise invalid(f"inference_geo: not supported for {rules.id}")
        if body["inference_geo"] not in ("us", "global"):
            raise invalid("inference_geo: Input should be 'us' or 'global'")
    if body.get("speed") not in (None, "standard", "fast"):
        raise invalid("speed: Input should be 'standard' or 'fast'")
    if body.get("speed") == "fast" and not rules.fast:
        raise invalid(f"speed: 'fast' is not supported for {rules.id}")


def check_prompt(body: Mapping[str, Any], rules: ModelRules, fields: frozenset[str] = COUNT_FIELDS) -> None:
    """Raise the problem with what is counted: messages, system, tools and how the model is to think."""
    unknown = sorted(set(body) - fields)
    if unknown:
        raise invalid(f"{unknown[0]}: Extra inputs are not permitted")
    _check_messages(body.get("messages"), rules)
    _check_system(body.get("system"))
    names = _check_tools(_list(body, "tools"), rules)
    _check_breakpoints(body)
    effort = _check_output(body, rules)
    thinking = _check_thinking(body, rules, effort)
    _check_choice(body.get("tool_choice"), names, rules, thinking)
    if thinking in ("enabled", "adaptive") and body["messages"][-1]["role"] == "assistant":
        raise invalid("messages: the final message may not be from the assistant when thinking is enabled")


def _check_messages(messages: Any, rules: ModelRules) -> None:
    if messages is None:
        raise invalid("messages: Field required")
    if not isinstance(messages, list):
        raise invalid("messages: Input should be a valid list")
    if not messages:
        raise invalid("messages: at least one message is required")
    calls: set[str] = set()
    for index, message in enumerate(messages):
        where = f"messages.{index}"
        if not isinstance(message, dict):
            raise invalid(f"{where}: Input should be an object")
        role = message.get("role")
        if role not in ("user", "assistant", "system"):
            raise invalid(f"{where}.role: Input should be 'user', 'assistant' or 'system'")
        if index == 0 and role != "user":
            raise invalid('messages: first message must use the "user" role')
        last = index == len(messages) - 1
        _check_content(message.get("content"), where, role, may_be_empty=last and role == "assistant")
        calls = _check_results(message, where, calls)
    if calls:
        raise invalid(f"messages: {_UNANSWERED}: {_any(calls)}")
    final = messages[-1]
    if final["role"] == "assistant":
        if not rules.prefill:
            raise invalid(
                "This model does not support assistant message prefill. The conversation must end with a user message."
            )
        blocks = blocks_of(final["content"])
        if blocks and str(blocks[-1].get("text", "")).endswith((" ", "\n", "\t")):
            raise invalid("messages: final assistant content cannot end with trailing whitespace")


def _check_content(content: Any, where: str, role: str, *, may_be_empty: bool) -> None:
    if not isinstance(content, str | list):
        raise invalid(f"{where}.content: " + ("Field required" if content is None else "Input should be a valid list"))
    if not content and not may_be_empty:
        raise invalid(
            f"{where}: all messages must have non-empty content except for the optional final assistant message"
        )
    if isinstance(content, str):
        return
    allowed = _BLOCKS.get(role)
    for number, block in enumerate(content):
        at = f"{where}.content.{number}"
        if not isinstance(block, dict) or not isinstance(block.get("type"), str):
            raise invalid(f"{at}.type: Field required")
        if allowed is not None and block["type"] not in allowed:
            raise invalid(f"{at}: `{block['type']}` blocks are not permitted in {role} messages")
        if block["type"] == "text":
            if not isinstance(block.get("text"), str):
                raise invalid(f"{at}.text: Input should be a valid string")
            if not block["text"]:
                raise invalid(f"{at}: text content blocks must be non-empty")
        if block["type"] in ("thinking", "redacted_thinking") and block.get("cache_control"):
            raise invalid(f"{at}: cache_control cannot be set for thinking blocks")


def _check_results(message: Mapping[str, Any], where: str, calls: set[str]) -> set[str]:
    """Match the results in a message with the calls of the one before; return the calls that it makes itself."""
    blocks = blocks_of(message["content"])
    if message["role"] == "system":
        return calls
    results = {str(block.get("tool_use_id")) for block in blocks if block["type"] == "tool_result"}
    if results - calls:
        raise invalid(
            f"{where}: unexpected `tool_use_id` found in `tool_result` blocks: {_any(results - calls)}. Each "
            "`tool_result` block must have a corresponding `tool_use` block in the previous message."
        )
    if calls - results:
        raise invalid(f"{where}: {_UNANSWERED}: {_any(calls - results)}")
    return {str(block.get("id")) for block in blocks if block["type"] == "tool_use"}


def _check_system(system: Any) -> None:
    if system is None or isinstance(system, str):
        return
    if not isinstance(system, list) or any(not isinstance(b, dict) or b.get("type") != "text" for b in system):
        raise invalid("system: Input should be a string or a list of text blocks")
    if any(not isinstance(block.get("text"), str) or not block["text"] for block in system):
        raise invalid("system: text content blocks must be non-empty")


def _check_tools(tools: list[Any], rules: ModelRules) -> set[str]:
    names: list[str] = []
    for index, tool in enumerate(tools):
        if not isinstance(tool, dict):
            raise invalid(f"tools.{index}: Input should be an object")
        kind = tool.get("type") or "custom"
        if str(kind).startswith("computer_") and kind not in rules.computer_tools:
            raise invalid(f"tools.{index}: '{rules.id}' does not support tool types: {kind}")
        if kind == "custom":
            if not isinstance(tool.get("name"), str) or not _TOOL_NAME.fullmatch(tool["name"]):
                raise invalid(f"tools.{index}.custom.name: String should match pattern '^[a-zA-Z0-9_-]{{1,128}}$'")
            if not isinstance(tool.get("input_schema"), dict) or tool["input_schema"].get("type") != "object":
                raise invalid(f"tools.{index}.custom.input_schema.type: Input should be 'object'")
        if isinstance(tool.get("name"), str):
            names.append(tool["name"])
    if len(names) != len(set(names)):
        raise invalid("tools: Tool names must be unique.")
    return set(names)


def _check_choice(choice: Any, names: set[str], rules: ModelRules, thinking: str | None) -> None:
    if choice is None:
        return
    kind = choice.get("type") if isinstance(choice, dict) else None
    if kind not in ("auto", "any", "tool", "none"):
        raise invalid("tool_choice.type: Input should be 'auto', 'any', 'tool' or 'none'")
    if kind in ("auto", "none"):
        return
    if not rules.forced_tools:
        raise invalid(f"tool_choice: '{kind}' is not supported for {rules.id}; use 'auto' or 'none'")
    if thinking == "enabled":
        raise invalid("Thinking may not be enabled when tool_choice forces tool use.")
    if not names:
        raise invalid("tool_choice: may only be specified while providing tools")
    if kind == "tool" and choice.get("name") not in names:
        raise invalid(f"tool_choice: Tool '{choice.get('name')}' not found in provided tools")


def _check_breakpoints(body: Mapping[str, Any]) -> None:
    automatic = body.get("cache_control")
    marks = [_mark(automatic)] if automatic is not None else []
    messages = [block for message in body["messages"] for block in blocks_of(message["content"])]
    blocks = [*(body.get("tools") or ()), *blocks_of(body.get("system")), *messages]
    found = [_mark(block["cache_control"]) for block in blocks if block.get("cache_control") is not None]
    if len(marks) + len(found) > _MAX_BREAKPOINTS:
        raise invalid(
            f"A maximum of {_MAX_BREAKPOINTS} blocks with cache_control may be provided. "
            f"Found {len(marks) + len(found)}."
        )
    order = found + marks
    if "5m" in order and "1h" in order[order.index("5m") :]:
        raise invalid("a ttl='1h' cache_control block must not come after a ttl='5m' cache_control block")


def _mark(control: Any) -> str:
    if not isinstance(control, dict) or control.get("type") != "ephemeral":
        raise invalid("cache_control.type: Input should be 'ephemeral'")
    ttl = control.get("ttl") or "5m"
    if ttl not in ("5m", "1h"):
        raise invalid("cache_control.ttl: Input should be '5m' or '1h'")
    return str(ttl)


def _check_output(body: Mapping[str, Any], rules: ModelRules) -> str:
    config = body.get("output_config")
    if config is not None and not isinstance(config, dict):
        raise invalid("output_config: Input should be an object")
    effort = (config or {}).get("effort")
    if effort is not None:
        if effort not in EFFORTS:
            raise invalid("output_config.effort: Input should be 'low', 'medium', 'high', 'xhigh' or 'max'")
        if not rules.efforts:
            raise invalid(f"output_config.effort: This model does not support the effort parameter: {rules.id}")
        if effort not in rules.efforts:
            raise invalid(f"output_config.effort: '{effort}' is not supported for {rules.id}")
    for name, wanted in (
        ("output_config.format", (config or {}).get("format")),
        ("output_format", body.get("output_format")),
    ):
        if wanted is None:
            continue
        if not isinstance(wanted, dict) or wanted.get("type") != "json_schema":
            raise invalid(f"{name}.type: Input should be 'json_schema'")
        if not isinstance(wanted.get("schema"), dict):
            raise invalid(f"{name}.schema: Field required")
    return str(effort or rules.default_effort)


def _check_thinking(body: Mapping[str, Any], rules: ModelRules, effort: str) -> str | None:
    thinking = body.get("thinking")
    if thinking is None:
        return None
    kind = thinking.get("type") if isinstance(thinking, dict) else None
    if kind not in ("enabled", "disabled", "adaptive", "between_tools"):
        raise invalid("thinking.type: Input should be 'enabled', 'disabled', 'adaptive' or 'between_tools'")
    if kind not in rules.thinking:
        options = ", ".join(f"'{option}'" for option in sorted(rules.thinking))
        raise invalid(f"thinking.type: '{kind}' is not supported for {rules.id}; use one of {options}")
    if kind in ("disabled", "between_tools") and effort not in rules.disabled_efforts:
        raise invalid(f"thinking.type: '{kind}' is not supported with effort '{effort}' for {rules.id}")
    if kind == "enabled":
        budget = thinking.get("budget_tokens")
        if not isinstance(budget, int) or isinstance(budget, bool):
            raise invalid("thinking.enabled.budget_tokens: Input should be a valid integer")
        if budget < _MIN_BUDGET:
            raise invalid(f"thinking.enabled.budget_tokens: Input should be greater than or equal to {_MIN_BUDGET}")
        if "max_tokens" in body and budget >= body["max_tokens"]:
            raise invalid("`max_tokens` must be greater than `thinking.budget_tokens`.")
    return str(kind)


def _check_sampling(body: Mapping[str, Any], rules: ModelRules) -> None:
    given = {name: body[name] for name in ("temperature", "top_p", "top_k") if body.get(name) is not None}
    if given and not rules.sampling:
        raise invalid(f"{next(iter(given))}: not supported for {rules.id}")
    for name, value in given.items():
        if not isinstance(value, int | float) or isinstance(value, bool):
            raise invalid(f"{name}: Input should be a valid number")
        if name != "top_k" and not 0 <= value <= 1:
            raise invalid(f"{name}: range: 0..1")
    if "temperature" in given and "top_p" in given:
        raise invalid(f"`temperature` and `top_p` cannot both be specified for {rules.id}. Please use only one.")
    if (body.get("thinking") or {}).get("type") in ("enabled", "adaptive"):
        if given.get("temperature", 1) != 1:
            raise invalid("`temperature` may only be set to 1 when thinking is enabled.")
        if "top_k" in given:
            raise invalid("`top_k` must be unset when thinking is enabled.")


def _list(body: Mapping[str, Any], name: str) -> list[Any]:
    value = body.get(name)
    if value is not None and not isinstance(value, list):
        raise invalid(f"{name}: Input should be a valid list")
    return value or []


def _any(ids: set[str]) -> str:
    return ", ".join(sorted(ids))

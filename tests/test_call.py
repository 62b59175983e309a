from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tierline.call import CONTEXT_CHARS, VIEW_CHARS, read_call, text_bytes, view_of, whole
from tierline.policies import Effective

ANY = Effective(floor=0, ceiling=2)

# All that `json.loads` can make, lone surrogates, NaN and huge numbers included.
texts = st.text(st.characters(), max_size=20)
words = st.sampled_from([
    "model", "messages", "role", "content", "type", "text", "user", "assistant", "tool_result", "tool_use", "image",
    "document", "source", "tools", "system", "max_tokens", "cache_control", "ttl", "1h", "max_uses", "web_search_1",
    "thinking", "enabled", "output_config", "effort", "tool_choice", "stream", "speed", "fast", "citations",
])  # fmt: skip
scalars = st.one_of(
    st.none(), st.booleans(), st.integers(), st.just(10**4000), st.floats(), words, texts, st.just("\ud800")
)
values = st.recursive(
    scalars,
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(st.one_of(words, texts), inner, max_size=5)),
    max_leaves=25,
)
KEYS = (
    "model", "messages", "system", "tools", "max_tokens", "stream", "thinking", "output_config", "tool_choice",
    "cache_control", "mcp_servers", "inference_geo", "speed", "temperature", "top_p", "stop_sequences",
)  # fmt: skip
wild = st.fixed_dictionaries({}, optional=dict.fromkeys(KEYS, values))
bodies = st.one_of(
    wild,
    st.builds(
        lambda body, messages: {**body, "model": "auto", "messages": messages},
        wild,
        st.lists(
            st.one_of(
                values,
                st.fixed_dictionaries(
                    {"role": st.sampled_from(["user", "assistant"]), "content": st.one_of(texts, st.lists(values))}
                ),
            ),
            min_size=1,
            max_size=5,
        ),
    ),
)


def body(content: Any = "hi", **more: Any) -> dict[str, Any]:
    return {"model": "auto", "max_tokens": 100, "messages": [{"role": "user", "content": content}]} | more


def read(given_body: Any) -> Any:
    call = read_call("create", given_body)
    assert call is not None
    return call


def all_text(value: Any) -> int:
    """UTF-8 bytes of every string in a value, keys included."""
    if isinstance(value, str):
        return len(value.encode("utf-8", "surrogatepass"))
    if isinstance(value, list):
        return sum(map(all_text, value))
    if isinstance(value, dict):
        return sum(all_text(k) + all_text(v) for k, v in value.items())
    return 0


def nested(depth: int, kind: str) -> Any:
    value: Any = "x"
    for _ in range(depth):
        value = [value] if kind == "list" else {"type": kind, "content": [value]}
    return value


@settings(max_examples=250)
@given(st.one_of(values, bodies))
def test_nothing_raises(given_body: Any) -> None:
    """Whatever a body holds, it is read or is no request, and so is its view."""
    call = read_call("create", given_body)
    if call is None:
        assert not (
            isinstance(given_body, dict)
            and isinstance(given_body.get("model"), str)
            and isinstance(given_body.get("messages"), list)
            and given_body["messages"]
        )
        return
    assert call.body is given_body
    assert call.max_tokens is None or call.max_tokens >= 1
    assert call.unbounded or call.max_tokens is not None
    assert call.input_bound is None or call.input_bound > 0
    assert call.rounds >= 1
    view = view_of(call, ANY)
    assert len(view.text) <= VIEW_CHARS
    assert len(view.context) <= CONTEXT_CHARS
    assert view.turns >= 1


@pytest.mark.parametrize("kind", ["list", "tool_result", "tool_use", "odd"])
@pytest.mark.parametrize("depth", [100, 900, 990, 5_000, 50_000])
def test_deep_nesting(kind: str, depth: int) -> None:
    """Nesting past what Python can follow is read as open-ended, around the limit as well as far past it."""
    call = read(body([nested(depth, kind)], tools=[nested(depth, "list")]))
    assert call.input_bound is None or call.input_bound >= 1
    if depth >= 50_000:  # newer Pythons follow further
        assert call.input_bound is None
    assert view_of(call, ANY).text == ""


blocks = st.one_of(
    st.builds(lambda t: {"type": "text", "text": t}, texts),
    st.builds(lambda t, c: {"type": "text", "text": t, "citations": [{"cited_text": c}]}, texts, texts),
    st.builds(lambda i, t: {"type": "tool_result", "tool_use_id": i, "content": t}, texts, texts),
    st.builds(lambda t: {"type": "tool_result", "content": [{"type": "text", "text": t}]}, texts),
    st.builds(lambda t, v: {"type": "tool_use", "id": "t", "name": t, "input": {"a": v}}, texts, texts),
    st.builds(lambda t: {"type": "thinking", "thinking": t, "signature": t}, texts),
    st.builds(lambda t: {"type": "search_result", "source": t, "title": t, "content": [{"text": t}]}, texts),
    st.builds(lambda t: {"type": "document", "source": {"type": "text", "data": t}, "title": t}, texts),
    st.builds(lambda t: {"type": "odd", "odd": [t, {t: t}]}, texts),
)
messages = st.lists(
    st.one_of(
        st.builds(lambda c: {"role": "user", "content": c}, st.one_of(texts, st.lists(blocks, max_size=4))), texts
    ),
    min_size=1,
    max_size=4,
)
tools = st.lists(st.builds(lambda n, d: {"name": n, "input_schema": {"description": d}}, texts, texts), max_size=3)


@settings(max_examples=150)
@given(messages, st.one_of(texts, st.lists(blocks, max_size=3)), tools)
def test_the_input_is_bounded(said: list[Any], system: Any, offered: list[Any]) -> None:
    """No tokenizer that works on bytes makes more tokens of a prompt than its bound."""
    call = read({"model": "auto", "max_tokens": 1, "messages": said, "system": system, "tools": offered})
    shown = all_text([block for block in said if isinstance(block, str)])
    shown += all_text([m["content"] for m in said if isinstance(m, dict)]) + all_text(system) + all_text(offered)
    # The words "type", "text" and so on of the blocks themselves are not sent to a model.
    structure = sum(
        all_text([k for k in b if k != "odd"]) + all_text(b["type"]) + 40
        for c in [*(m["content"] for m in said if isinstance(m, dict)), system]
        if isinstance(c, list)
        for b in c
    )
    assert call.input_bound >= shown - structure


@pytest.mark.parametrize(
    "inside",
    [
        {"type": "tool_result", "content": [{"type": "image", "source": {"type": "url", "url": "u"}}]},
        {"type": "document", "source": {"type": "content", "content": [{"type": "image", "source": {"url": "u"}}]}},
        {"type": "mcp_tool_result", "content": [{"type": "image", "source": {"url": "u"}}]},
    ],
)
def test_a_picture_is_bounded_wherever_it_stands(inside: dict[str, Any]) -> None:
    """A picture costs what pictures cost, and not the length of its link, however deep it is."""
    assert read(body([inside])).input_bound - read(body([])).input_bound >= 5_000


@pytest.mark.parametrize(
    "block",
    [
        {"type": "document", "source": {"type": "base64", "data": "JVBERi0="}},
        {"type": "document", "source": {"type": "url", "url": "u"}},
        {"type": "document", "source": {"type": "file", "file_id": "f"}},
        {"type": "document"},
        {"type": "container_upload", "file_id": "f"},
        {"type": "tool_result", "content": [{"type": "document", "source": {"type": "base64", "data": "JV"}}]},
        {
            "type": "web_fetch_tool_result",
            "content": {"type": "web_fetch_result", "content": {"type": "document", "source": {"type": "base64"}}},
        },
    ],
)
def test_pages_have_no_bound_but_the_window(block: dict[str, Any]) -> None:
    """What shows nothing of its length leaves the prompt open-ended, and the call bounded all the same."""
    call = read(body([block]))
    assert call.input_bound is None
    assert call.unbounded == ""


@pytest.mark.parametrize("value", [None, 0, -1, True, 1.0, "100", [], float("nan"), float("inf"), 10**400])
def test_max_tokens_that_counts_nothing(value: Any) -> None:
    """`max_tokens` that is missing or no usable number leaves a call without a bound, said so."""
    call = read(body(max_tokens=value))
    assert call.max_tokens is None
    assert "max_tokens" in call.unbounded
    assert read_call("count", body(max_tokens=value)).unbounded == ""  # type: ignore[union-attr]


def test_server_tools() -> None:
    """Uses of server tools bill the prompt again each time, and searches by the piece."""
    call = read(body(tools=[
        {"type": "web_search_20250305", "name": "web_search", "max_uses": 3},
        {"type": "web_fetch_20250910", "name": "web_fetch", "max_uses": 2},
        {"type": "custom", "name": "mine"},
    ]))  # fmt: skip
    assert (call.rounds, call.web_searches, call.unbounded, call.input_bound) == (6, 3, "", None)


@pytest.mark.parametrize("uses", [None, -1, True, "3", 10**30])
def test_server_tools_without_a_bound(uses: Any) -> None:
    """A server tool whose uses nobody bounded makes the call unbounded, and names the tool."""
    call = read(body(tools=[{"type": "web_search_20250305", "max_uses": uses}]))
    assert "web_search_20250305" in call.unbounded
    assert read(body(mcp_servers=[{"url": "u"}])).unbounded


HOUR = {"type": "text", "text": "x", "cache_control": {"type": "ephemeral", "ttl": "1h"}}


@pytest.mark.parametrize(
    ("more", "ttl"),
    [
        ({}, None),
        ({"cache_control": {"type": "ephemeral"}}, "5m"),
        ({"cache_control": {"type": "ephemeral", "ttl": "1h"}}, "1h"),
        ({"system": [{"type": "text", "text": "s", "cache_control": {"type": "ephemeral"}}]}, "5m"),
        ({"tools": [{"name": "t", "cache_control": {"type": "ephemeral", "ttl": "1h"}}]}, "1h"),
        *(
            ({"messages": [{"role": "user", "content": [{**block, "content": [HOUR]}]}]}, "1h")
            for block in ({"type": "search_result"}, {"type": "tool_result"})
        ),
    ],
)
def test_cache_ttl(more: dict[str, Any], ttl: str | None) -> None:
    """The dearest cache that a request asks for is seen wherever it is asked for."""
    assert read(body(**more)).cache_ttl == ttl


def test_a_conversation_that_the_server_holds_is_open_ended() -> None:
    """Of a later turn only its end is sent, and all of it is billed; a first turn shows everything."""
    first, later = read(body(thread={})), read(body(thread={"previous_message_id": "msg_1"}))
    assert (first.threaded, first.continues, first.input_bound is None) == (True, "", False)
    assert (later.threaded, later.continues, later.input_bound) == (True, "msg_1", None)
    odd = read(body(thread={"previous_message_id": 5}))
    assert (odd.continues, odd.input_bound) == ("", None)


def test_terms() -> None:
    """Fast mode and a place are read as asked; what is no place counts as none."""
    for asked, geo in [("us", "us"), (5, None), (None, None)]:
        call = read_call("create", body(inference_geo=asked, speed="fast"))
        assert call is not None
        assert (call.terms.geo, call.terms.fast) == (geo, True)


@given(st.one_of(values, st.integers()))
def test_whole(value: Any) -> None:
    """Only whole numbers that can count tokens are whole: no booleans, no floats, nothing beyond 64 bits."""
    found = whole(value)
    assert found is None or (type(found) is int and 0 <= found == value < 2**63)
    if type(value) is int and 0 <= value <= 10**9:
        assert found == value


@given(st.text(st.characters()))
def test_text_bytes(text: str) -> None:
    """The length of a text is that of its UTF-8, lone surrogates included."""
    assert text_bytes(text) == len(text.encode("utf-8", "surrogatepass"))


turns = st.text(st.characters(), max_size=9_000)


@settings(max_examples=50)
@given(turns, turns, st.lists(turns, max_size=4))
def test_a_tool_loop_has_one_view(before: str, question: str, results: list[str]) -> None:
    """Each step of a tool loop shows the classifier the same, whatever the tools answered."""
    said: list[dict[str, Any]] = [
        {"role": "user", "content": "first"},
        {"role": "assistant", "content": before},
        {"role": "user", "content": [{"type": "text", "text": question}]},
    ]
    steps = [read(body() | {"messages": list(said), "tools": [{"name": "t"}]})]
    assert not steps[0].in_tool_loop
    for result in results:
        said.append({"role": "assistant", "content": [{"type": "tool_use", "id": "i", "name": "t", "input": {}}]})
        said.append({"role": "user", "content": [{"type": "tool_result", "tool_use_id": "i", "content": result}]})
        steps.append(read(body() | {"messages": list(said), "tools": [{"name": "t"}]}))
        assert steps[-1].in_tool_loop
    views = {view_of(step, ANY) for step in steps}
    assert len(views) == 1
    (view,) = views
    assert view.turns == 2
    assert view.context == (before[-CONTEXT_CHARS:] if before else "")
    assert len(view.text) == min(len(question), VIEW_CHARS)
    assert view.text[:2_600] == question[:2_600]
    assert view.text[-1_300:] == question[-1_300:]


def test_the_view_of_attachments() -> None:
    """Pictures, papers and tools are counted, and what the policy says is passed on."""
    content = [{"type": "image"}, {"type": "image"}, {"type": "document"}, {"type": "text", "text": "what is it?"}]
    call = read(body(content, tools=[{"name": "t"}], tool_choice={"type": "any"}))
    view = view_of(call, Effective(floor=0, ceiling=0, task="ocr", expected_output=7))
    assert (view.images, view.documents, view.tools, view.forced_tool) == (2, 1, 1, True)
    assert (view.text, view.task, view.expected_output, view.max_tokens) == ("what is it?", "ocr", 7, 100)


def test_a_huge_turn_of_many_parts_stays_bounded() -> None:
    """Ten thousand long parts make a view of the usual size."""
    many = [{"type": "text", "text": "x" * 5_000}] * 10_000
    said = [{"role": "user", "content": "a"}, {"role": "assistant", "content": many}, {"role": "user", "content": many}]
    view = view_of(read(body() | {"messages": said}), ANY)
    assert len(view.text) == VIEW_CHARS
    assert len(view.context) == CONTEXT_CHARS


def test_a_prefill_is_no_turn() -> None:
    """The turn that is classified is the person's, also where the answer has been begun for the model."""
    said = [{"role": "user", "content": "why?"}, {"role": "assistant", "content": "Because"}]
    call = read(body() | {"messages": said})
    assert view_of(call, ANY).text == "why?"
    assert "prefill" in call.features


@pytest.mark.parametrize(
    ("extra", "why"),
    [
        ({"fallbacks": "default"}, "fallbacks"),
        ({"tools": [{"type": "advisor_20260301", "name": "advisor", "model": "x", "max_uses": 1}]}, "advisor"),
        ({"context_management": {"edits": [{"type": "compact_20260112"}]}}, "compaction"),
        ({"mcp_servers": [{"url": "x"}]}, "mcp_servers"),
    ],
)
def test_what_other_models_or_servers_do_has_no_bound(extra: dict[str, Any], why: str) -> None:
    """Work that is billed beside the answer cannot be bounded by what the request says."""
    call = read_call("create", body(**extra))
    assert call is not None
    assert why in call.unbounded

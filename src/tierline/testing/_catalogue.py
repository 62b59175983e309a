"""`GET /v1/models`: what the API says of its models."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from tierline.testing._problem import Problem, invalid
from tierline.testing._rules import DATED, EFFORTS, MODELS

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tierline.testing._rules import ModelRules

_PAGE: Final = 20
_MOST: Final = 1000


def model_info(name: str) -> dict[str, Any]:
    """One model. Raises a 404 for an unknown id."""
    rules = MODELS.get(DATED.get(name, name))
    if rules is None:
        raise Problem(404, f"model: {name}")
    return _info(rules)


def model_page(query: Mapping[str, str]) -> dict[str, Any]:
    """A page of the list, with `limit`, `after_id` and `before_id` as the API has them."""
    try:
        limit = int(query.get("limit", _PAGE))
    except ValueError:
        raise invalid("limit: Input should be a valid integer") from None
    if not 1 <= limit <= _MOST:
        raise invalid(f"limit: Input should be between 1 and {_MOST}")
    ids = sorted(MODELS)
    if "after_id" in query:
        ids = [name for name in ids if name > query["after_id"]]
    if "before_id" in query:
        ids = [name for name in ids if name < query["before_id"]][-limit:]
    page = ids[:limit]
    return {
        "data": [_info(MODELS[name]) for name in page],
        "has_more": len(ids) > len(page),
        "first_id": page[0] if page else None,
        "last_id": page[-1] if page else None,
    }


def _info(rules: ModelRules) -> dict[str, Any]:
    def can(supported: bool) -> dict[str, bool]:
        return {"supported": supported}

    return {
        "type": "model",
        "id": rules.id,
        "display_name": rules.display_name,
        "created_at": "1970-01-01T00:00:00Z",  # what the API says where the date is not known
        "line": rules.line,
        "lifecycle": "active",
        "deprecated_at": None,
        "retires_at": None,
        "max_input_tokens": rules.window,
        "max_tokens": rules.max_output,
        "capabilities": {
            "batch": can(True),
            "citations": can(True),
            "code_execution": can(True),
            "context_management": can(False),
            "effort": {**can(bool(rules.efforts)), **{level: can(level in rules.efforts) for level in EFFORTS}},
            "image_input": can(True),
            "pdf_input": can(True),
            "server_tools": {**can(True), "code_execution": can(True), "web_search": can(True)},
            "structured_outputs": can(True),
            "thinking": {
                **can(True),
                "types": {
                    kind: can(kind in rules.thinking) for kind in ("adaptive", "between_tools", "disabled", "enabled")
                },
            },
        },
    }

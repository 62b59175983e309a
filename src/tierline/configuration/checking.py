"""Whether a table has the form of a configuration. Says all that is wrong, and each with its key."""

from __future__ import annotations

import json
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from tierline.configuration.keys import BUDGET, ESCALATE, LEGALITY, MIDDLEWARE, POLICY, ROUTER, TABLES, TIER
from tierline.values import LABELS

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from tierline.configuration.keys import Key
    from tierline.configuration.lines import Path

_KINDS: Final = {
    "text": "a text", "number": "a number", "whole": "a whole number", "switch": "true or false",
    "choice": "one of", "texts": "a list of texts", "numbers": "a list of numbers", "pairs": "a table of texts",
    "fields": "a table",
}  # fmt: skip


_MOST: Final = 2**63 - 1
"""The largest whole number of TOML, which Python's parser does not bound."""


class Problem(NamedTuple):
    """What is wrong, and at which key."""

    key: Path
    said: str


def problems_of(table: Mapping[str, Any]) -> Iterator[Problem]:
    """What of a configuration has not the form of one."""
    by_name = {key.name: key for key in ROUTER}
    for name, value in table.items():
        if name in by_name:
            yield from _of_value((name,), by_name[name], value)
        elif name not in TABLES:
            yield _unknown((name,), [*by_name, *TABLES])
        elif name == "budgets":
            yield from _of_budgets((name,), value)
        elif not isinstance(value, dict):
            yield Problem((name,), f"is {_shown(value)}: write a table, [{name}]")
        elif name == "ladder":
            yield from _of_ladder(value)
        elif name == "labels":
            yield from _of_labels(value)
        elif name == "policy":
            yield from _of_policy((name,), value)
        elif name == "routes":
            for pattern, rule in value.items():
                yield from _of_policy((name, pattern), rule)
        else:
            yield from _of_keys((name,), LEGALITY if name == "legality" else MIDDLEWARE, value)


def _of_ladder(ladder: Mapping[str, Any]) -> Iterator[Problem]:
    for name, tier in ladder.items():
        if isinstance(tier, dict):
            yield from _of_keys(("ladder", name), TIER, tier)
            if "model" not in tier:
                yield Problem(("ladder", name), 'has no model: write model = "claude-…"')
        elif not isinstance(tier, str):
            yield Problem(("ladder", name), f'is {_shown(tier)}: write {name} = "claude-…"')


def _of_labels(labels: Mapping[str, Any]) -> Iterator[Problem]:
    for name, tier in labels.items():
        if name not in LABELS:
            yield _unknown(("labels", name), LABELS)
        elif not isinstance(tier, str):
            yield Problem(("labels", name), f"is {_shown(tier)}: write the name of a tier")


def _of_policy(path: Path, policy: object) -> Iterator[Problem]:
    if not isinstance(policy, dict):
        yield Problem(path, f"is {_shown(policy)}: write a table, such as floor = …")
        return
    yield from _of_keys(path, POLICY, {name: value for name, value in policy.items() if name != "budgets"})
    if isinstance(policy.get("escalate"), dict):
        yield from _of_keys((*path, "escalate"), ESCALATE, policy["escalate"])
    if "budgets" in policy:
        yield from _of_budgets((*path, "budgets"), policy["budgets"])


def _of_budgets(path: Path, budgets: object) -> Iterator[Problem]:
    if not isinstance(budgets, list) or not all(isinstance(each, dict) for each in budgets):
        yield Problem(path, f"is {_shown(budgets)}: write [[{'.'.join(map(str, path))}]] above each")
        return
    for place, budget in enumerate(budgets):
        yield from _of_keys((*path, place), BUDGET, budget)
        if "amount" not in budget:
            yield Problem((*path, place), 'has no amount: write amount = "$5/day"')


def _of_keys(path: Path, keys: Sequence[Key], table: Mapping[str, Any]) -> Iterator[Problem]:
    by_name = {key.name: key for key in keys}
    for name, value in table.items():
        if name in by_name:
            yield from _of_value((*path, name), by_name[name], value)
        else:
            yield _unknown((*path, name), list(by_name))


def _of_value(path: Path, key: Key, value: object) -> Iterator[Problem]:
    if isinstance(value, bool) and (key.kind == "switch" or key.or_ is True or (key.or_ is False and not value)):
        return
    if not _is(key, value):
        yield Problem(path, f"is {'something else' if key.secret and value else _shown(value)}: write {words(key)}")


def _is(key: Key, value: object) -> bool:
    match key.kind:
        case "text":
            return isinstance(value, str) and bool(value)
        case "choice":
            return value in key.choices
        case "number" | "whole":
            return _is_number(key, value)
        case "texts":
            return isinstance(value, list) and all(isinstance(each, str) for each in value)
        case "numbers":
            return isinstance(value, list) and all(_is_number(key, each) for each in value)
        case "pairs":
            return isinstance(value, dict) and all(isinstance(each, str) for each in value.values())
        case "fields":
            return isinstance(value, dict)
        case _:
            return False


def _is_number(key: Key, value: object) -> bool:
    kinds = int if key.kind == "whole" else (int, float)
    if not isinstance(value, kinds) or isinstance(value, bool) or (isinstance(value, int) and abs(value) > _MOST):
        return False
    # What is no number is none of these either.
    return (key.least is None or value >= key.least) and (key.most is None or value <= key.most) and value == value  # noqa: PLR0124


def _shown(value: object) -> str:
    """A value as TOML writes it, or nearly."""
    return json.dumps(value, default=str, ensure_ascii=False)[:60]


def words(key: Key) -> str:
    """What a key may be, as a person says it."""
    told = f"{_KINDS[key.kind]} {', '.join(key.choices)}" if key.kind == "choice" else _KINDS[key.kind]
    if key.least is not None and key.most is not None:
        told += f" from {key.least:g} to {key.most:g}"
    elif key.least is not None:
        told += f" of at least {key.least:g}"
    return told + {None: "", True: ", or true or false", False: ", or false"}[key.or_]


def _unknown(path: Path, known: Sequence[str]) -> Problem:
    near = get_close_matches(str(path[-1]), known, 1)
    hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(known)}"
    return Problem(path, f"is no key here: {hint}")

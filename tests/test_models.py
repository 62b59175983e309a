"""The table of models, against the published one."""

from __future__ import annotations

from dataclasses import replace
from datetime import date, datetime, timedelta
from typing import TYPE_CHECKING, Any, get_args

import pytest
from anthropic.resources.messages.messages import DEPRECATED_MODELS
from anthropic.types.model import Model as ListedModel

from tierline.call import read_call
from tierline.ladder import base_id
from tierline.models import COMPUTER_TOOLS, EFFORTS, MODELS, THINKING, UNKNOWN, model_of, notice_of
from tierline.testing._rules import MODELS as RULES

if TYPE_CHECKING:
    from tierline.testing._rules import ModelRules

LISTED = {name for part in get_args(ListedModel) for name in get_args(part)}
TURN = [{"role": "user", "content": "hi"}]
COLUMNS = (
    "claude-haiku-4-5", "claude-sonnet-4-5", "claude-opus-4-5",
    "claude-sonnet-4-6", "claude-opus-4-6",
    "claude-opus-4-7", "claude-opus-4-8",
    "claude-sonnet-5", "claude-opus-5", "claude-fable-5", "claude-mythos-5", "claude-fable-5-1", "claude-mythos-5-1",
    "claude-haiku-5-5", "claude-sonnet-5-5", "claude-opus-5-5", "claude-fable-5-2", "claude-mythos-5-2",
)  # fmt: skip
# The published table, row by row: one letter for each of COLUMNS, y where the API takes it and n where it is a 400.
TABLE: list[tuple[dict[str, Any], str]] = [
    ({}, "yyy yy yy yyyyyy yyyyy"),
    ({"temperature": 0.5}, "yyy yy nn nnnnnn nnnnn"),
    ({"top_p": 0.5}, "yyy yy nn nnnnnn nnnnn"),
    ({"top_k": 5}, "yyy yy nn nnnnnn nnnnn"),
    ({"temperature": 0.5, "top_p": 0.5}, "nnn nn nn nnnnnn nnnnn"),
    ({"temperature": None}, "yyy yy yy yyyyyy yyyyy"),
    ({"thinking": {"type": "enabled", "budget_tokens": 1024}}, "yyy yy nn nnnnnn nnnnn"),
    ({"thinking": {"type": "adaptive"}}, "nnn yy yy yyyyyy yyyyy"),
    ({"thinking": {"type": "disabled"}}, "yyy yy yy yynnnn ynnnn"),
    ({"thinking": {"type": "disabled"}, "output_config": {"effort": "high"}}, "nny yy yy yynnnn ynnnn"),
    ({"thinking": {"type": "disabled"}, "output_config": {"effort": "max"}}, "nnn yy yy ynnnnn nnnnn"),
    ({"thinking": {"type": "between_tools"}, "output_config": {"effort": "high"}}, "nnn nn nn nnnnnn nynnn"),
    ({"thinking": {"type": "between_tools"}, "output_config": {"effort": "max"}}, "nnn nn nn nnnnnn nnnnn"),
    ({"output_config": {"effort": "low"}}, "nny yy yy yyyyyy yyyyy"),
    ({"output_config": {"effort": "xhigh"}}, "nnn nn yy yyyyyy yyyyy"),
    ({"output_config": {"format": {}}}, "yyy yy yy yyyyyy yyyyy"),
    ({"tools": [{"name": "t"}], "tool_choice": {"type": "any"}}, "yyy yy yy yyyynn ynnnn"),
    ({"tools": [{"name": "t"}], "tool_choice": {"type": "tool", "name": "t"}}, "yyy yy yy yyyynn ynnnn"),
    ({"tools": [{"name": "t"}], "tool_choice": {"type": "auto"}}, "yyy yy yy yyyyyy yyyyy"),
    ({"messages": [*TURN, {"role": "assistant", "content": "So"}]}, "yyy nn nn nnnnnn nnnnn"),
    ({"messages": [*TURN, {"role": "assistant", "content": "So"}, *TURN]}, "yyy yy yy yyyyyy yyyyy"),
    ({"inference_geo": "us"}, "nnn yy yy yyyyyy yyyyy"),
    (
        {"tools": [{"name": "t"}], "tool_choice": {"type": "any"}, "thinking": {"type": "adaptive"}},
        "nnn yy yy yyyynn ynnnn",
    ),
    ({"speed": "fast"}, "nnn nn ny nynnnn nnyyy"),
    ({"speed": "standard"}, "yyy yy yy yyyyyy yyyyy"),
    ({"tools": [{"type": "computer_20250124", "name": "c"}]}, "yyn nn nn nnnnnn nnnnn"),
    ({"tools": [{"type": "computer_20251124", "name": "c"}]}, "nny yy yy yyyyyy nnnnn"),
    ({"tools": [{"type": "computer_toolset_20260801", "name": "c"}]}, "nnn nn nn yyyyyy yyyyy"),
]


@pytest.mark.parametrize(("extra", "row"), TABLE)
def test_the_table(extra: dict[str, Any], row: str) -> None:
    """Every cell of the published table is answered as the API does."""
    call = read_call("create", {"model": "auto", "max_tokens": 2048, "messages": TURN} | extra)
    assert call is not None
    assert "".join("n" if MODELS[model].rejects & call.features else "y" for model in COLUMNS) == row.replace(" ", "")


def test_the_columns_are_all_models() -> None:
    """No model is in the code and not in the table."""
    assert set(COLUMNS) == set(MODELS)


def test_entries_hold_together() -> None:
    """What an entry says of thinking and effort is known, and does not contradict itself."""
    for model in MODELS.values():
        assert set(model.thinking) <= set(THINKING)
        assert set(model.efforts) <= set(EFFORTS)
        assert model.quiet in ("", *model.thinking)
        assert (model.thinks == "always") == (not model.quiet and model.thinks != "asked")
        assert model.max_output <= model.window
        assert set(model.computer) <= set(COMPUTER_TOOLS)
        assert bool(model.instead) == (model.deprecated is not None)
        assert model.retires is None or (model.deprecated is not None and model.deprecated < model.retires)
        assert not model.instead or MODELS[model.instead].deprecated is None


@pytest.mark.parametrize("rules", RULES.values(), ids=list(RULES))
def test_sizes_and_habits_are_those_of_the_offline_api(rules: ModelRules) -> None:
    """What is not a matter of features agrees with the table of the offline API, which is written apart."""
    facts = MODELS[rules.id]
    assert (facts.window, facts.max_output, facts.min_cacheable) == (
        rules.window,
        rules.max_output,
        rules.min_cacheable,
    )
    assert facts.wordy == (rules.millitokens_per_byte > 250)
    assert facts.thinks == {"on_request": "asked", "by_default": "default"}.get(rules.thinks, rules.thinks)


def test_every_listed_model_is_known() -> None:
    """Each id of the SDK's list has an entry, or a reason why it has none: docs/new-model.md says how to add one."""
    assert len(LISTED) > 20
    assert sorted(name for name in LISTED if model_of(name) is None and base_id(name) not in UNKNOWN) == []
    assert not set(UNKNOWN) & set(MODELS)


def test_listed_dates_are_the_same_entry() -> None:
    """A dated id of the SDK's list is known by its alias, which is on the list too."""
    dated = {name for name in LISTED if base_id(name) != name}
    assert "claude-opus-4-5-20251101" in dated
    for name in dated:
        assert base_id(name) in LISTED
        assert model_of(name) is model_of(base_id(name)) is not None


def test_retirements_are_the_sdks() -> None:
    """What the SDK says of the retirement of a listed model stands in its entry, and no other model has one."""
    days = {base_id(name): _day(told) for name, told in DEPRECATED_MODELS.items() if name in LISTED}
    assert {name: facts.retires for name, facts in MODELS.items() if facts.retires} == {
        name: day for name, day in days.items() if name not in UNKNOWN
    }
    assert all(str(day) in UNKNOWN[name] for name, day in days.items() if name in UNKNOWN)


def _day(told: str) -> date:
    month, day, year = told.split()
    return datetime.strptime(f"{month} {day.rstrip('sthndr,')} {year} +0000", "%B %d %Y %z").date()


@pytest.mark.parametrize("model", ["claude-sonnet-4-5", "claude-sonnet-4-5-20250929"])
def test_a_notice_names_the_day_and_the_way_out(model: str) -> None:
    """A model that goes is announced until its last day, and missed from then on."""
    last = date(2026, 11, 30)
    way_out = f"on {last}: write claude-sonnet-5-5"
    assert notice_of(model, last - timedelta(1)) == f"{model} is deprecated and retires {way_out}"
    assert notice_of(model, last) == f"{model} was retired {way_out}"


def test_a_notice_of_what_is_not_in_the_table() -> None:
    """A listed model without an entry has its reason; active models and strangers have nothing to tell."""
    today = date(2026, 11, 21)
    assert notice_of("claude-mythos-preview", today).startswith("claude-mythos-preview was retired on 2026-06-30")
    assert notice_of("claude-opus-5-5", today) == notice_of("my-own", today) == ""


def test_a_notice_of_a_model_without_a_last_day(monkeypatch: pytest.MonkeyPatch) -> None:
    """A deprecation may come before its date is known."""
    going = replace(MODELS["claude-opus-4-5"], deprecated=date(2026, 11, 1), instead="claude-opus-5-5")
    monkeypatch.setitem(MODELS, "claude-opus-4-5", going)
    assert notice_of("claude-opus-4-5", date(2026, 11, 21)) == "claude-opus-4-5 is deprecated: write claude-opus-5-5"


def test_a_dated_id_is_the_same_model() -> None:
    """The snapshot of a model is the model; an id that nobody knows is none."""
    assert model_of("claude-opus-5-5-20261001") is model_of("claude-opus-5-5") is MODELS["claude-opus-5-5"]
    assert model_of("my-own") is None

"""What a check has found, and the checks that ask nobody but this machine: versions, tables, modes."""

from __future__ import annotations

import os
import re
import sys
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, distribution, requires, version
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal

from tierline.configuration.loading import unheard
from tierline.errors import ConfigurationError
from tierline.models import READ_ON, model_of, notice_of
from tierline.router import MODE_VARIABLE
from tierline.routes import policies_in

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import date

    from tierline.router import Router

Level = Literal["ok", "warn", "fail", "skip"]
OLD: Final = 90
"""Days after which a table of prices or of models is old: models come and go faster than that."""
_PACKAGES: Final = (
    "anthropic", "starlette", "fastapi", "redis", "genai-prices", "opentelemetry-api", "opentelemetry-sdk", "uvicorn",
)  # fmt: skip
_LEAST: Final = re.compile(r"(?P<name>[\w.-]+)(?:\[[^\]]*\])?\s*>=\s*(?P<least>[\d.]+)")


@dataclass(frozen=True)
class Finding:
    """One line of the doctor's. `advice` says what to do, where something is to be done; `about` names it."""

    level: Level
    about: str
    said: str
    advice: str = ""


def versions() -> Iterator[Finding]:
    """Those of Python and of the packages, against what Tierline needs."""
    python = ".".join(map(str, sys.version_info[:3]))
    told = [f"Python {python}", f"tierline {_version('tierline') or 'from its source'}"]
    least = _needed()
    wrong = []
    for name in _PACKAGES:
        found = _version(name)
        if found is None:
            continue
        told.append(f"{name} {found}")
        if name in least and _numbers(found) < _numbers(least[name]):
            wrong.append(f"{name} {found} is too old: pip install -U '{name}>={least[name]}'")
    yield Finding("fail" if wrong else "ok", "versions", ", ".join(told), "; ".join(wrong))


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _needed() -> dict[str, str]:
    """The lowest versions that Tierline says it needs."""
    try:
        lines = requires("tierline") or []
    except PackageNotFoundError:
        return {}
    found = (_LEAST.match(line) for line in lines)
    return {each["name"].lower(): each["least"] for each in found if each is not None}


def _numbers(text: str) -> tuple[int, ...]:
    return tuple(int(number) for number in re.findall(r"\d+", text)[:3])


def models(router: Router[Any], today: date) -> Iterator[Finding]:
    """Whether the models of the ladder are known, are not going, and have prices."""
    for tier in router.ladder:
        about = f"tier {tier.name}"
        if notice := notice_of(tier.model, today):
            gone = "retired on" in notice and "retires on" not in notice
            yield Finding("fail" if gone else "warn", about, notice, f"give the tier {tier.name} another model")
        elif model_of(tier.model) is None:
            yield Finding(
                "warn", about, f"{tier.model} is not in the table of models: it is taken to accept everything",
                "look for a typo, or upgrade tierline",
            )  # fmt: skip
        elif router.prices.rates(tier.model) is None:
            hard = " and hard budgets refuse it" if router.rules.hard else ""
            yield Finding(
                "fail" if hard else "warn", about, f"{tier.model} has no price: its calls have no bound{hard}",
                f"give it one, Router(prices=PriceBook({{{tier.model!r}: Rates(…)}})), or upgrade genai-prices",
            )  # fmt: skip
        else:
            yield Finding("ok", about, f"{tier.model} is known, is not deprecated, and has a price")


def tables(now: float, today: date) -> Iterator[Finding]:
    """How old what is known of models and prices is."""
    days = (today - READ_ON).days
    yield Finding(
        "warn" if days > OLD else "ok", "model matrix", f"read on {READ_ON}, {_days(days)}",
        "upgrade tierline" if days > OLD else "",
    )  # fmt: skip
    yield _prices(now)


def _prices(now: float) -> Finding:
    from genai_prices.data_snapshot import get_snapshot  # noqa: PLC0415  (190 ms, for who looks)

    snapshot = get_snapshot()
    if snapshot.from_auto_update:
        days = int((now - snapshot.timestamp.timestamp()) // 86_400)
        return Finding("warn" if days > OLD else "ok", "price list", f"updated by the app {_days(days)}")
    at = _installed("genai-prices")
    named = f"genai-prices {_version('genai-prices')}"
    if at is None:
        return Finding("ok", "price list", named)
    days = max(0, int((now - at) // 86_400))
    advice = "pip install -U genai-prices, or let the app update it: genai_prices.UpdatePrices" if days > OLD else ""
    return Finding("warn" if advice else "ok", "price list", f"{named}, installed {_days(days)}", advice)


def _installed(name: str) -> float | None:
    """When a package was installed, in seconds since the epoch: the list itself has no date."""
    try:
        files = distribution(name).files or []
        record = next((each for each in files if each.name == "RECORD"), None)
        return None if record is None else Path(str(record.locate())).stat().st_mtime
    except (PackageNotFoundError, OSError):
        return None


def _days(days: int) -> str:
    return "today" if days <= 0 else f"{days} day{'' if days == 1 else 's'} ago"


def environment() -> Iterator[Finding]:
    """Variables that look like Tierline's, and that nothing hears."""
    if said := unheard(os.environ):
        yield Finding("warn", "environment", "; ".join(said.values()), "mend the names, or unset what is not meant")


def set_up(router: Router[Any], app: object) -> Iterator[Finding]:
    """The mode, the budgets and the policies of an app, as its start-up would check them."""
    variable = os.environ.get(MODE_VARIABLE)
    by = f" ({MODE_VARIABLE} says so)" if variable else ""
    if router.mode == "enforce":
        yield Finding("ok", "mode", f"enforce{by}")
    else:
        advice = f"unset {MODE_VARIABLE}" if variable else 'Router(mode="enforce")'
        yield Finding("warn", "mode", f"{router.mode}{by}: no budget and no floor is enforced", advice)
    budgets = ", ".join(each.name for each in router.budgets)
    if budgets:
        yield Finding("ok", "budgets", f"{budgets}; hard: {', '.join(sorted(router.rules.hard)) or 'none'}")
    else:
        yield Finding("warn", "budgets", "the Router has none", 'Router(budgets=[Budget("$50/day")])')
    wrong = []
    try:
        for where, rule in policies_in(app):
            rule.check(router.ladder, where)
            router.rules.check(rule)
    except ConfigurationError as error:
        wrong.append(str(error))
    if wrong:
        yield Finding("fail", "policies", wrong[0], "the app does not start like this")
    else:
        yield Finding("ok", "policies", "those of the routes fit the ladder")

"""The Router that a job goes by: the app's own, with its budgets and policies, or one over the store alone."""

from __future__ import annotations

import logging
import shlex
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from tierline.cli.loading import router_of
from tierline.cli.options import ladder_of
from tierline.cli.stores import check_store, plain_text
from tierline.errors import ConfigurationError
from tierline.ledger.opening import connection_of
from tierline.router import Router

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from tierline.policies import Policy

OWN_BUDGET: Final = "batch "
"""How the name of a budget begins that `--budget` gives a job."""


class Where(NamedTuple):
    """Which Router is meant: the options of every command here."""

    store: str = ""
    app: str = ""
    factory: bool = False
    ladder: str = ""

    def again(self) -> str:
        """The same options, as a person writes them."""
        if self.app:
            return f"--app {shlex.quote(self.app)}{' --factory' if self.factory else ''}"
        return f"--store {shlex.quote(_without_password(self.store))}"


@asynccontextmanager
async def router_at(where: Where, *, create: bool = False, lasting: bool = True) -> AsyncIterator[Router[Any]]:
    """The Router, closed at the end. `create`: a SQLite file may be new; `lasting`: memory will not do.

    ConfigurationError where there is none, and where jobs of it would end with this process.
    """
    if where.app:
        if where.ladder:
            raise ConfigurationError("--ladder: with --app the ladder is the app's; leave one of them out")
        router = router_of("--app", where.app, factory=where.factory)
        if lasting and connection_of(router.ledger) is None:
            raise ConfigurationError(
                f"--app {where.app}: its Router keeps what it knows in memory, and a job would end with this command: "
                'give it Router(store="sqlite:///tierline.db") or a Redis'
            )
    else:
        if lasting or where.store:
            _check(where.store, create=create)
        ladder = ladder_of(where.ladder)
        router = Router(store=where.store or "memory://", ladder=ladder, share_verdicts=False)
    try:
        yield router
    finally:
        await router.aclose()


def _without_password(url: str) -> str:
    """A store as it may be shown."""
    scheme, slashes, rest = url.partition("://")
    who, at, place = rest.rpartition("@")
    return f"{scheme}{slashes}{who.partition(':')[0]}:…@{place}" if at and ":" in who else url


def _check(store: str, *, create: bool) -> None:
    # A file that is not there is made for the first job of it.
    if not create or not store.lower().startswith("sqlite:///"):
        check_store(store)


def check_tiers(router: Router[Any], policy: Policy) -> None:
    """ConfigurationError for a tier that is not on the ladder."""
    for name in ("floor", "ceiling", "tier"):
        if (wanted := getattr(policy, name)) is not None:
            router.ladder.index(wanted, f"--{name}")


def has_key(router: Router[Any]) -> bool:
    """Whether Claude can be asked."""
    from tierline.anthropic import has_credentials  # noqa: PLC0415  (the SDK takes a second to import)

    return has_credentials(router.claude)


def need_key(router: Router[Any], otherwise: str) -> None:
    """ConfigurationError where Claude cannot be asked; `otherwise` says what can be done without a key."""
    if not has_key(router):
        raise ConfigurationError(f"no key: set ANTHROPIC_API_KEY. {otherwise}")


async def check_budgets(router: Router[Any], where: Where, *, without: bool) -> None:
    """ConfigurationError where a store has hard budgets that only the app can keep, and it is not there to."""
    if where.app or without:
        return
    hard = {each.budget for each in await router.balances() if each.hard and not each.budget.startswith(OWN_BUDGET)}
    if hard:
        names = ", ".join(plain_text(each) for each in sorted(hard)[:5])
        raise ConfigurationError(
            f"the store has hard budgets of an app ({names}), and without the app nothing keeps them: give it, --app "
            "main:app, or write --without-budgets"
        )


def quiet() -> None:
    """Warnings of the library as lines of the command."""
    log = logging.getLogger("tierline")
    if not log.handlers:
        handler = logging.StreamHandler()
        handler.setFormatter(logging.Formatter("%(levelname)s: %(message)s"))
        log.addHandler(handler)

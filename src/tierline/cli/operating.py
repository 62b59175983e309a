"""What commands have in common that look into the store of an app, or change something there."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tierline.cli.loading import router_of
from tierline.cli.stores import check_store
from tierline.errors import ConfigurationError
from tierline.router import Router

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]
AsJson = Annotated[bool, typer.Option("--json", help="JSON; money in nano-USD, moments in seconds since the epoch.")]


@asynccontextmanager
async def reached(store: str, app: str, *, factory: bool) -> AsyncIterator[Router[Any]]:
    """The Router of an app, or one over its store, which knows none of its budgets.

    ConfigurationError where there is none, or what it has is in the memory of another process.
    """
    if app:
        router = router_of("--app", app, factory=factory)
        if router.ledger.instant:
            raise ConfigurationError(
                f"the store of {app} is its own memory, and no other process sees it: give it SQLite or Redis"
            )
    else:
        check_store(store)
        router = Router(store=store)
    try:
        yield router
    finally:
        await router.aclose(0)


def make_sure(question: str, *, yes: bool) -> None:
    """Ask whether something is to be done. ConfigurationError where it is not: nothing was changed then."""
    if yes:
        return
    try:
        if typer.confirm(question):
            return
    except typer.Abort:
        raise ConfigurationError("nothing was changed: nobody said yes; --yes says it") from None
    raise ConfigurationError("nothing was changed")

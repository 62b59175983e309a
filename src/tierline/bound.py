"""Work outside of requests: `router.bind(…)`, for `async with` and for `with`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from tierline.binding import Binding, Context, Owner, context, enter
from tierline.blocking import Bridge

if TYPE_CHECKING:
    from types import TracebackType

    from tierline.blocking import Portal


class Ends(Owner, Protocol):
    """What is needed of a Router."""

    portal: Portal

    async def end(self, binding: Binding, *, whole: bool) -> None:
        """Settle what is left open."""
        ...


class Bound:
    """Binds a job or a script while its block runs, and ends what it left open when the block is left."""

    def __init__(self, router: Ends, tenant: str | None, route: str | None, run: str | None) -> None:
        self._router = router
        self._tenant = tenant
        self._route = route
        self._run = run
        self._before = Context()

    def __enter__(self) -> Binding:
        self._before = before = context()
        self._binding = Binding(
            self._router, tenant=self._tenant, route=self._route, run=self._run, outer=before.binding
        )
        enter(Context(self._binding, before.blocks))
        return self._binding

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        enter(self._before)
        Bridge(self._router.portal).run(self._router.end(self._binding, whole=True))

    async def __aenter__(self) -> Binding:
        return self.__enter__()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None
    ) -> None:
        enter(self._before)
        await self._router.end(self._binding, whole=True)

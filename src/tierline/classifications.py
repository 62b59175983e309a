"""The app's own classifications: `router.classify` and what belongs to it."""

from __future__ import annotations

import asyncio
import logging
from contextlib import asynccontextmanager
from contextvars import copy_context
from functools import partial
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from anyio import to_thread

from tierline.asking import Desk
from tierline.binding import context
from tierline.blocking import Bridge
from tierline.classify.base import Question, check_labels, fingerprint_of
from tierline.classify.cache import About
from tierline.classify.labelfile import LabelFile
from tierline.classify.labelled import Labels, Progress
from tierline.consult import Consultation, Labeller, ask
from tierline.errors import ConfigurationError
from tierline.labelling import TIMEOUT, Run, Text, call, check_many, items_of
from tierline.values import Classification, View

if TYPE_CHECKING:
    import os
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence

    from tierline.router import Router

log: Final = logging.getLogger("tierline")

_AT_ONCE: Final = 200
"""Texts that are looked up in one step."""


class _Counter(NamedTuple):
    """Where an app asks, and whose call it is."""

    desk: Desk
    version: str


class Classifications:
    """Labels texts of the app's own. `secret` keys what a file of labels is made of, besides its own salt."""

    def __init__(self, router: Router[Any], secret: bytes) -> None:
        self._router = router
        self._secret = secret

    async def one(
        self, text: str, labels: Sequence[str], instruction: str, bridge: Bridge | None = None
    ) -> Classification | None:
        """See `Router.classify`. With a `bridge`, for the thread that called, by the synchronous client."""
        labeller = Labeller(_checked("classify", labels, instruction), instruction)
        router = self._router
        client: Any = router.claude if bridge is None else router.sync_claude
        method = partial(ask, client.messages.create) if bridge is None else _by_thread(client, bridge)
        async with self._counter(client, method) as (desk, version):
            silent = router.rejected.get(client, "")
            consultation = Consultation(desk, router.gathering, router.cache, version, silent=silent)
            return await consultation.consult(labeller, View(text=text))

    def blocking(self, text: str, labels: Sequence[str], instruction: str) -> Classification | None:
        """See `Router.sync_classify`."""
        bridge = Bridge(self._router.portal)
        return bridge.run(self.one(text, labels, instruction, bridge))

    async def many(
        self,
        items: Iterable[str],
        labels: Sequence[str],
        instruction: str,
        batch_size: int,
        concurrency: int,
        progress: Callable[[Progress], object] | None,
        resume: str | os.PathLike[str] | None,
    ) -> Labels:
        """See `Router.classify_many`."""
        if isinstance(items, str):
            raise ConfigurationError("classify_many: items are many texts, not one: for one there is classify")
        items, labels = list(items), _checked("classify_many", labels, instruction)
        check_many(items, batch_size, concurrency, progress)
        labeller = Labeller(labels, instruction)
        file = None
        if resume is not None:
            of = fingerprint_of(labels, instruction)
            file = await to_thread.run_sync(LabelFile, resume, labels, of, self._secret)
        client: Any = self._router.claude
        async with self._counter(client, partial(ask, client.messages.create)) as (desk, version):

            def about(text: Text) -> About:
                return About(View(text=text.question.text), desk.tenant, labeller.fingerprint, version)

            async def keep(answered: list[Text]) -> None:
                for each in answered:
                    assert each.found is not None  # noqa: S101  (answered)
                    self._router.cache.put(self._key(about(each)), each.found, about(each))
                if file is not None:
                    await _written(file, answered)

            async def told(run: Run) -> None:
                await call(progress, Progress(run.done, len(items), run.without, run.cost))

            run = Run(desk, self._router.timing, keep, told, batch_size, concurrency)
            texts = [
                Text(Question(text, labels, instruction, timeout=TIMEOUT), places)
                for text, places in _places(items).items()
            ]
            for begin in range(0, len(texts), _AT_ONCE):
                await asyncio.gather(
                    *(self._recall(each, file, about(each), desk) for each in texts[begin : begin + _AT_ONCE])
                )
            run.done = sum(len(each.places) for each in texts if each.found is not None)
            if file is not None and (known := [each for each in texts if each.source == "cache"]):
                await _written(file, known)
            if run.done:
                await told(run)
            await run.run([each for each in texts if each.found is None])
        return Labels(items_of(texts, len(items)), run.cost, run.requests, run.stopped)

    def _key(self, about: About) -> bytes:
        view, tenant, fingerprint, version = about
        return self._router.cache.key(view, tenant=tenant, fingerprint=fingerprint, version=version)

    async def _recall(self, text: Text, file: LabelFile | None, about: About, desk: Desk) -> None:
        """What is known of a text already."""
        if file is not None and (said := file.find(text.question.text)) is not None:
            text.found, text.source = Classification(said[0], said[1], "cache"), "file"
        elif (kept := await self._router.cache.recall(self._key(about), about)) is not None:
            text.found, text.source = kept, "cache"
            desk.looked_up(True)

    @asynccontextmanager
    async def _counter(
        self, client: Any, method: Callable[[dict[str, Any], float], Awaitable[Any]]
    ) -> AsyncIterator[_Counter]:
        router = self._router
        now = context()
        binding = now.binding_of(router) or router.gate.unbound(now)
        found = router.rules.admission(now, binding)
        try:
            yield _Counter(
                Desk(method, client, router.ladder[0], found.lines, found.route, found.tenant, router.meter),
                found.version,
            )
        finally:
            if now.binding is None:
                await router.end(binding, whole=True)


def _checked(where: str, labels: Sequence[str], instruction: object) -> tuple[str, ...]:
    if isinstance(labels, str):
        raise ConfigurationError(f"{where}: labels are several texts, such as ('bug', 'praise'), not {labels!r:.80}")
    if not isinstance(instruction, str):
        raise ConfigurationError(
            f"{where}: the instruction is a text that says what to tell apart, not {instruction!r:.80}"
        )
    labels = tuple(labels)
    if not labels or len(set(labels)) != len(labels):
        raise ConfigurationError(f"{where}: labels must be given, each once; got {list(labels)!r:.200}")
    check_labels(labels)
    return labels


def _by_thread(client: Any, bridge: Bridge) -> Callable[[dict[str, Any], float], Awaitable[Any]]:
    """Asks in the thread that called, with its own client."""

    async def put(body: dict[str, Any], timeout: float) -> Any:
        return await bridge.here(partial(copy_context().run, partial(client.messages.create, **body, timeout=timeout)))

    return put


def _places(items: Sequence[str]) -> dict[str, list[int]]:
    """Where each distinct text stands."""
    places: dict[str, list[int]] = {}
    for place, text in enumerate(items):
        places.setdefault(text, []).append(place)
    return places


async def _written(file: LabelFile, answered: Sequence[Text]) -> None:
    """Write labels down. Where that fails they are still in the result, and the log says so."""
    rows = [(each.question.text, each.found.label, each.found.confidence) for each in answered if each.found]
    try:
        await to_thread.run_sync(file.keep, rows)
    except OSError as error:
        log.warning("%d labels are not in the file that the run could be taken up from: %s", len(rows), error.strerror)

"""A file that is watched: what is taken over, when, and what is not."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
from typing import TYPE_CHECKING

import pytest

from tierline.configuration import load
from tierline.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path

    from tierline import Router

FILE = """
min_confidence = 0.5

[[budgets]]
name = "plan"
amount = "$1/day"
"""
OFTEN = 0.005


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "tierline.toml"
    path.write_text(FILE, "utf-8")
    return path


@pytest.fixture
async def router(file: Path) -> AsyncIterator[Router]:
    config = load(file, environ={})
    made = config.router()
    async with config.watching(OFTEN):
        yield made
    await made.aclose()


def write(file: Path, text: str) -> None:
    file.write_text(text, "utf-8")


async def until(condition: Callable[[], object]) -> None:
    """The limit of a test is that of the runner."""
    while not condition():  # noqa: ASYNC110  (the file system tells nobody)
        await asyncio.sleep(OFTEN)


def amount(router: Router) -> object:
    return router.budgets[0].amount


async def test_a_change_is_taken(router: Router, file: Path) -> None:
    """One that is written in its place, and one that takes its name, as editors and deployments do."""
    write(file, FILE.replace("$1/day", "$2/day"))
    await until(lambda: amount(router) == "$2/day")
    other = file.with_name("other.toml")
    write(other, FILE.replace("$1/day", "$3/day"))
    other.replace(file)
    await until(lambda: amount(router) == "$3/day")


async def test_what_is_wrong_is_said_once_and_changes_nothing(
    router: Router, file: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """An error of a person's is a line in the log; the next that is right is taken."""
    with caplog.at_level(logging.ERROR, "tierline"):
        write(file, FILE.replace("$1/day", "$1/dya"))
        await until(lambda: caplog.messages)
        assert amount(router) == "$1/day"
        for _ in range(5):
            await asyncio.sleep(OFTEN)
        (said,) = caplog.messages
        assert "tierline.toml, line 6" in said
        write(file, FILE.replace("0.5", "0.8"))
        await until(lambda: router.min_confidence == 0.8)
    assert len(caplog.messages) == 1


async def test_one_that_is_away_comes_back(router: Router, file: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A file that is not there for a while is no error, and no change."""
    file.unlink()  # noqa: ASYNC240  (of a local disk)
    for _ in range(5):
        await asyncio.sleep(OFTEN)
    assert (amount(router), caplog.messages) == ("$1/day", [])
    write(file, FILE.replace("$1/day", "$4/day"))
    await until(lambda: amount(router) == "$4/day")


async def test_half_a_file_is_not_taken(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What looks different at every look is being written: it is read when it has come to rest."""
    config = load(file, environ={})
    states = iter([(n, n, 1) for n in range(1, 8)])
    seen: list[int] = []
    taken: list[int] = []

    def state(_: Path) -> tuple[int, int, int]:
        found = next(states, (7, 7, 1))
        seen.append(found[0])
        return found

    monkeypatch.setattr("tierline.configuration.watching._state", state)
    monkeypatch.setattr(config, "reload", lambda: taken.append(len(set(seen))))
    async with config.watching(OFTEN):
        await until(lambda: taken)
        for _ in range(5):
            await asyncio.sleep(OFTEN)
    assert taken == [7]


async def test_a_signal_has_it_read_now(file: Path, caplog: pytest.LogCaptureFixture) -> None:
    """SIGHUP does not wait for a look; with an error the process lives on. Afterwards the signal is as it was."""
    config = load(file, environ={})
    router = config.router()
    before = signal.getsignal(signal.SIGHUP)
    async with config.watching(3_600, on=signal.SIGHUP):
        for text, wanted in ((FILE.replace("$1", "$5"), "$5/day"), ("[", "$5/day"), (FILE, "$1/day")):
            said = len(caplog.messages)
            write(file, text)
            os.kill(os.getpid(), signal.SIGHUP)
            await until(lambda said=said: len(caplog.messages) > said)
            assert amount(router) == wanted
    assert "is no TOML" in "".join(caplog.messages)
    assert signal.getsignal(signal.SIGHUP) == before
    await router.aclose()


async def test_who_is_cancelled_as_it_ends(file: Path) -> None:
    """Whoever leaves the block and is cancelled in that moment is cancelled."""
    config = load(file, environ={})
    router = config.router()

    async def work() -> None:
        task = asyncio.current_task()
        assert task is not None
        async with config.watching(3_600):
            await asyncio.sleep(0)
            asyncio.get_running_loop().call_soon(task.cancel)

    working = asyncio.create_task(work())
    await asyncio.wait((working,))
    assert working.cancelled()
    await router.aclose()


async def test_a_surprise_does_not_end_it(
    file: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """What nobody thought of is logged with its traceback, and the file is watched on."""
    config = load(file, environ={})
    calls: list[int] = []

    def reload() -> tuple[str, ...]:
        calls.append(1)
        if len(calls) == 1:
            raise RuntimeError("nobody thought of this")
        return ()

    monkeypatch.setattr(config, "reload", reload)
    async with config.watching(OFTEN):
        for number in (1, 2):
            write(file, FILE + "\n" * number)
            await until(lambda number=number: len(calls) == number)
    assert "nobody thought of this" in caplog.text


async def test_what_cannot_be_watched(file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No file, no time between two looks, and a signal in a thread: each says so."""
    monkeypatch.chdir(tmp_path / "..")
    with pytest.raises(ConfigurationError, match="no file to watch"):
        load(environ={}).watching()
    config = load(file, environ={})
    for seconds in (0, -1, float("nan")):
        with pytest.raises(ConfigurationError, match="above zero"):
            async with config.watching(seconds):
                pass

    async def elsewhere() -> None:
        with pytest.raises(ConfigurationError, match="cannot have that signal"):
            async with config.watching(on=signal.SIGHUP):
                pass

    await asyncio.to_thread(lambda: asyncio.run(elsewhere()))

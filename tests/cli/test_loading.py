"""What commands are pointed at as `module:attribute`."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import pytest

from tests.needs import need
from tierline import Router
from tierline.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

need("typer", "rich")

from tierline.cli.loading import loaded, router_of  # noqa: E402

APP = """
from starlette.applications import Starlette
from starlette.middleware.cors import CORSMiddleware
from tierline import Router
from tierline.asgi import TierlineMiddleware

print("this is no output of the command's")
router, other = Router(), Router()


class Of:
    plain = Starlette()


def build():
    app = Starlette()
    app.add_middleware(TierlineMiddleware, router=router)
    return app


async def later(): ...
def needs(what): ...
def broken(): raise KeyError("TOKEN")


async def asgi(scope, receive, send): ...


app = build()
wrapped = CORSMiddleware(TierlineMiddleware(asgi, router=router))
two = TierlineMiddleware(build(), router=other)
"""


@pytest.fixture(autouse=True)
def modules(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Modules in the directory that a command starts from."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    (tmp_path / "desk_app.py").write_text(APP, "utf-8")
    (tmp_path / "desk_missing.py").write_text("import desk_that_is_not_there\n", "utf-8")
    (tmp_path / "desk_broken.py").write_text("\n\n1 / 0\n", "utf-8")
    before = set(sys.modules)
    yield
    for name in set(sys.modules) - before:
        if name.startswith("desk_"):
            del sys.modules[name]


@pytest.mark.parametrize("name", ["router", "app", "wrapped"])
def test_the_router_of_an_app(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    """By the app, by what is wrapped around it, or by itself; what the app prints is kept out of the output."""
    found = router_of("--app", f"desk_app:{name}")
    assert isinstance(found, Router)
    assert found is sys.modules["desk_app"].router
    assert capsys.readouterr().out == ""


def test_a_factory() -> None:
    """The app is what the function returns."""
    assert router_of("--app", "desk_app:build", factory=True) is sys.modules["desk_app"].router
    assert loaded("--app", "desk_app:Of.plain") is sys.modules["desk_app"].Of.plain
    assert loaded("--app", "desk_app:asgi") is sys.modules["desk_app"].asgi


@pytest.mark.parametrize(
    ("name", "factory", "says"),
    [
        ("desk_app", False, "write a module and what is in it, such as main:app"),
        ("desk_app.py:app", False, "write desk_app:app"),
        ("desk_none:app", False, "there is no module 'desk_none' here"),
        ("desk_app.sub:app", False, "there is no module 'desk_app.sub' here"),
        ("desk_missing:app", False, "desk_missing imports 'desk_that_is_not_there', which is not installed"),
        ("desk_broken:app", False, r"ZeroDivisionError: division by zero \(desk_broken.py:3\)"),
        (".desk:app", False, "a module has its whole name here"),
        ("desk_app:nothing", False, "there is no 'nothing' in desk_app"),
        ("desk_app:Of.nothing", False, "there is no 'nothing' in desk_app.Of"),
        ("desk_app:build", False, "is a function: add --factory"),
        ("desk_app:app", True, "app.. failed: TypeError"),
        ("desk_app:Of.plain.routes", True, "is no function: leave --factory out"),
        ("desk_app:later", True, "is an async function"),
        ("desk_app:needs", True, "TypeError: needs.. missing 1 required positional argument"),
        ("desk_app:broken", True, r"KeyError: 'TOKEN' \(desk_app.py:23\)"),
        ("desk_app:Of.plain", False, "is Starlette, and has no TierlineMiddleware"),
        ("desk_app:two", False, "has 2 Routers around it"),
    ],
)
def test_what_cannot_be_had(name: str, factory: bool, says: str) -> None:
    """The error says what is wrong, where, and what to write."""
    with pytest.raises(ConfigurationError, match=says) as raised:
        router_of("--app", name, factory=factory)
    assert str(raised.value).startswith("--app")

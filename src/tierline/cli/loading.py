"""What a command is pointed at as `module:attribute`: an app, a Router, a classifier of somebody's own."""

from __future__ import annotations

import inspect
import sys
import traceback
from contextlib import redirect_stdout
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from tierline.asgi import TierlineMiddleware
from tierline.errors import ConfigurationError
from tierline.router import Router

if TYPE_CHECKING:
    from collections.abc import Iterator

_DEEPEST: Final = 20
"""Most apps in each other that are looked into."""

AppName = Annotated[str, typer.Option("--app", metavar="MODULE:APP", help="The app, or its Router: main:app.")]
Factory = Annotated[bool, typer.Option("--factory", help="What is named is a function that makes it: main:build.")]


def attribute_of(where: str, name: str) -> Any:
    """What `name` (`module:attribute`, with dots in both) stands for; modules are looked for from here on, too.

    `where` begins what is said where there is none, such as `--app`. ConfigurationError where it cannot be had.
    """
    module, colon, path = name.partition(":")
    if module.endswith(".py"):
        guess = ".".join(Path(module).with_suffix("").parts)
        raise ConfigurationError(f"{where} {name!r:.80} is a file: write {guess}:{path or 'app'}")
    if not (colon and module and path):
        raise ConfigurationError(f"{where} {name!r:.80}: write a module and what is in it, such as main:app")
    if "" not in sys.path:
        sys.path.insert(0, "")  # an app's own, from where it is
    found = _imported(where, module)
    for place, part in enumerate(path.split(".")):
        try:
            found = getattr(found, part)
        except AttributeError:
            inside = ".".join([module, *path.split(".")[:place]])
            raise ConfigurationError(f"{where} {name} cannot be imported: there is no {part!r} in {inside}") from None
    return found


def _imported(where: str, module: str) -> Any:
    try:
        with redirect_stdout(sys.stderr):  # what an app prints is no part of a command's output
            return import_module(module)
    except ModuleNotFoundError as error:
        if error.name is not None and f"{module}.".startswith(f"{error.name}."):
            raise ConfigurationError(
                f"{where}: there is no module {error.name!r} here, in {Path.cwd()}: go to where the app starts from, "
                "or set PYTHONPATH"
            ) from None
        raise ConfigurationError(f"{where}: {module} imports {error.name!r}, which is not installed here") from error
    except TypeError as error:
        # `import_module` takes no relative names.
        if not module.startswith("."):
            raise _failed(where, f"{module} cannot be imported", error) from error
        raise ConfigurationError(f"{where} {module!r:.80}: a module has its whole name here") from None
    except Exception as error:
        raise _failed(where, f"{module} cannot be imported", error) from error


def _failed(where: str, what: str, error: BaseException) -> ConfigurationError:
    """What code of the app's raised, and where: the last line of it that is no library's."""
    frames = [
        frame
        for frame in traceback.extract_tb(error.__traceback__)
        if not frame.filename.startswith("<") and frame.filename != __file__
    ]
    here = [frame for frame in frames if "site-packages" not in frame.filename]
    frame = next(reversed(here or frames), None)
    at = f" ({shown_path(frame.filename)}:{frame.lineno})" if frame is not None else ""
    said = str(error).partition("\n")[0]
    return ConfigurationError(f"{where}: {what}: {type(error).__name__}: {said}{at}")


def shown_path(path: str) -> str:
    """A path as it is written from here, where it is below."""
    try:
        return str(Path(path).resolve().relative_to(Path.cwd()))
    except (ValueError, OSError):
        return path


def loaded(where: str, name: str, *, factory: bool = False) -> Any:
    """An app, or a Router, by its name: with `factory`, what the function of that name returns.

    ConfigurationError where it cannot be had.
    """
    found = attribute_of(where, name)
    if not factory:
        if inspect.isroutine(found) and not _is_asgi(found):
            raise ConfigurationError(f"{where} {name} is a function: add --factory if it makes the app")
        return found
    if not callable(found):
        raise ConfigurationError(f"{where} {name} is no function: leave --factory out")
    try:
        with redirect_stdout(sys.stderr):
            made = found()
    except Exception as error:
        raise _failed(where, f"{name}() failed", error) from error
    if inspect.isawaitable(made):
        if inspect.iscoroutine(made):
            made.close()
        raise ConfigurationError(f"{where} {name} is an async function: --factory takes a plain one")
    return made


def _is_asgi(function: object) -> bool:
    """Whether a function takes what an ASGI app is given."""
    try:
        return len(inspect.signature(function).parameters) == 3  # type: ignore[arg-type]  # noqa: PLR2004
    except (TypeError, ValueError):
        return False


def middlewares_of(app: Any) -> Iterator[TierlineMiddleware]:
    """Those of Tierline that are around an app, outermost first; those of apps that are mounted in it are not."""
    for _ in range(_DEEPEST):
        if app is None:
            return
        if isinstance(app, TierlineMiddleware):
            yield app
        for entry in getattr(app, "user_middleware", None) or ():
            if isinstance(entry.cls, type) and issubclass(entry.cls, TierlineMiddleware):
                yield entry.cls(app, *entry.args, **entry.kwargs)
        app = getattr(app, "app", None)


def router_of(where: str, name: str, *, factory: bool = False) -> Router[Any]:
    """The Router of an app, by the name of the app, or the Router of that name itself.

    Nothing is started. ConfigurationError where it cannot be had, and where an app has several around it.
    """
    return router_in(where, name, loaded(where, name, factory=factory))


def router_in(where: str, name: str, found: object) -> Router[Any]:
    """The same, where what has that name is loaded already."""
    if isinstance(found, Router):
        return found
    routers = list(dict.fromkeys(each.router for each in middlewares_of(found)))
    if not routers:
        raise ConfigurationError(
            f"{where} {name} is {type(found).__name__}, and has no TierlineMiddleware: write "
            "app.add_middleware(TierlineMiddleware, router=…), or name the Router itself: main:router"
        )
    if len(routers) > 1:
        raise ConfigurationError(f"{where} {name} has {len(routers)} Routers around it: name one of them: main:router")
    return routers[0]

"""The file of a configuration: where it is, what is wrong in it, and what is taken over when it changes."""

from __future__ import annotations

import logging
import os
import re
import tomllib
from difflib import get_close_matches
from inspect import signature
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any, Final

from tierline.budgets import parse_limit
from tierline.configuration.building import built, culprit
from tierline.configuration.checking import Problem, problems_of, words
from tierline.configuration.keys import ROUTER, TABLES
from tierline.configuration.lines import lines_of
from tierline.configuration.watching import watched
from tierline.errors import ConfigurationError
from tierline.router import MODE_VARIABLE, Router

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from contextlib import AbstractAsyncContextManager
    from signal import Signals

    from tierline.budgets import Budget
    from tierline.configuration import lines
    from tierline.configuration.keys import Key
    from tierline.policies import Policy
    from tierline.values import Mode

log: Final = logging.getLogger("tierline")

FILE: Final = "tierline.toml"
FILE_VARIABLE: Final = "TIERLINE_CONFIG"
PREFIX: Final = "TIERLINE_"
PAGE_VARIABLE: Final = "TIERLINE_PAGE_TOKEN"
"""What apps call the token of the page, as its documentation does."""
_PYPROJECT: Final = "pyproject.toml"
_IN_PYPROJECT: Final = ("tool", "tierline")
_OURS: Final = re.compile(r"^[ \t]*\[+[ \t]*tool[ \t]*\.[ \t]*tierline\b", re.MULTILINE)
"""How a table of ours begins, in what is no TOML as a whole."""
_MOVES: Final = ("budgets", "policy", "min_confidence", "mode")
"""What may change while an app runs."""
_SWITCHES: Final = {
    "true": True,
    "1": True,
    "yes": True,
    "on": True,
    "false": False,
    "0": False,
    "no": False,
    "off": False,
}


class Configuration:
    """What a file and the environment say of a Router and of the middleware.

    - `path`: the file, None where there is none
    - `options`: arguments of a Router; `middleware`: arguments of `TierlineMiddleware`, the table of routes among them
    - `variables`: the variables of the environment that are heard, by the key that they stand over

    Made by `load`.
    """

    def __init__(self, path: Path | None, table: Mapping[str, Any], environ: Mapping[str, str]) -> None:
        self.path = path
        self._environ = environ
        self._lock = Lock()
        """Of two that read again at the same time, the later sees what the earlier has taken."""
        self._routers: list[tuple[Router[Any], frozenset[str]]] = []
        self._take(table)

    def _take(self, table: Mapping[str, Any]) -> None:
        self._table = table
        found = built(table)
        self.options, self.middleware = found.options, found.middleware
        said, self.variables = _said(self._environ)
        self.options |= said

    def router(self, client: Any = None, **options: Any) -> Router[Any]:
        """A Router as it is written, with what code says over it: all arguments of a Router.

        ConfigurationError as for a Router.
        """
        try:
            made: Router[Any] = Router(client, **{**self.options, **options})
        except ConfigurationError as error:
            key = culprit(self._table, (), str(error))
            if self.path is None or not key or key[0] in options:
                raise
            raise ConfigurationError(_told(self.path, [Problem(key, str(error))])[0]) from None
        self._routers.append((made, frozenset(options)))
        return made

    def reload(self) -> tuple[str, ...]:
        """Read the file again, and let what has changed hold from the next call on: all of it, or nothing.

        Returns the keys that have changed. Budgets (amounts, thresholds, further ones, fewer), the policy of every
        call, `min_confidence` and `mode` may change while the app runs, in this process. What code says over them
        stays.
        ConfigurationError, and nothing has changed, where the file cannot be taken, or something else has changed.
        """
        if self.path is None:
            raise ConfigurationError("there is no file to read again: the configuration is the environment's")
        with self._lock:
            return self._reloaded(self.path)

    def watching(self, seconds: float = 2.0, *, on: Signals | None = None) -> AbstractAsyncContextManager[None]:
        """Inside, `reload` is called when the file has changed, and when the signal `on` comes: for a lifespan.

            async with config.watching(on=signal.SIGHUP), router.lifespan(app):
                yield

        It is looked at every so many `seconds`, and read when two looks have found the same, so that no half of it is
        taken. What cannot be taken is logged as an error, once, and what held holds on. It is about this process: each
        worker watches for itself.
        ConfigurationError where there is no file, `seconds` is not above zero, or a signal cannot be had here: they
        belong to the main thread.
        """
        if self.path is None:
            raise ConfigurationError("there is no file to watch: the configuration is the environment's")
        return watched(self.path, self.reload, seconds, on)

    def _reloaded(self, path: Path) -> tuple[str, ...]:
        table = _read(path)
        new = Configuration(path, table, self._environ)
        before = self._table
        changed = tuple(
            name for name in dict.fromkeys((*before, *table)) if _differs(before.get(name), table.get(name))
        )
        if fixed := [name for name in changed if name not in _MOVES]:
            raise ConfigurationError(f"{path}: {', '.join(fixed)} cannot change while the app runs: restart it")
        _check_budgets(path, before.get("budgets", []), table.get("budgets", []), self.options, new.options)
        for router, _ in self._routers:
            _check_memory(router, new.options.get("budgets", ()))
        moved: list[tuple[Router[Any], Mode, tuple[Budget, ...], Policy | None]] = []
        try:
            for router, by_code in self._routers:
                moved.append((router, router.mode, router.rules.budgets, router.rules.policy))
                if "mode" in changed and "mode" not in by_code and not self._environ.get(MODE_VARIABLE):
                    router.mode = new.options.get("mode", _usual("mode"))
                budgets = router.budgets if "budgets" in by_code else tuple(new.options.get("budgets", ()))
                policy = router.policy if "policy" in by_code else new.options.get("policy")
                router.rules.replace(budgets, policy)
        except ConfigurationError:
            for router, mode, budgets, policy in moved:
                router.rules.replace(budgets, policy)
                if router.mode != mode:
                    router.mode = mode
            raise
        self._take(table)
        for router, by_code in self._routers:
            router.budgets, router.policy = router.rules.budgets, router.rules.policy
            if "min_confidence" in changed and "min_confidence" not in by_code | self.variables.keys():
                router.min_confidence = self.options.get("min_confidence", _usual("min_confidence"))
        log.warning("%s was read again: %s", path, ", ".join(changed) or "nothing has changed")
        return changed


def load(path: str | os.PathLike[str] | None = None, *, environ: Mapping[str, str] | None = None) -> Configuration:
    """The configuration of a file, with the environment over it: `TIERLINE_STORE`, `TIERLINE_MIN_CONFIDENCE`, ….

    Without a `path` it is `TIERLINE_CONFIG`, else `tierline.toml` of the directory that the app is started in, else
    `[tool.tierline]` of `pyproject.toml` there; else there is no file. ConfigurationError, with file, line and key, for
    all that is wrong in it. A variable `TIERLINE_…` that nothing hears is warned of: an app may have some of its own.
    """
    environ = os.environ if environ is None else environ
    for said in unheard(environ).values():
        log.warning("%s", said)
    return configured(path, environ)


def configured(path: str | os.PathLike[str] | None, environ: Mapping[str, str]) -> Configuration:
    """The same, for who says by other ways what is not heard."""
    found = _found(path, environ)
    return Configuration(found, _read(found) if found is not None else {}, environ)


def _found(path: str | os.PathLike[str] | None, environ: Mapping[str, str]) -> Path | None:
    if named := (path or environ.get(FILE_VARIABLE)):
        return Path(named)
    if Path(FILE).is_file():
        return Path(FILE)
    path = Path(_PYPROJECT)
    try:
        text = path.read_text("utf-8")
    except (OSError, UnicodeDecodeError):
        return None  # it is others' file
    try:
        return path if _in_it(tomllib.loads(text), _IN_PYPROJECT) is not None else None
    except tomllib.TOMLDecodeError:
        # It is others' file, too. But what it says of budgets must not be passed over, and `_read` says what is wrong.
        return path if _OURS.search(text) else None


def _read(path: Path) -> dict[str, Any]:
    """The table of a file. ConfigurationError that names all that is wrong, one on each line."""
    try:
        text = path.read_text("utf-8")
        whole = tomllib.loads(text)
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"{path} cannot be read: {error}") from None
    except tomllib.TOMLDecodeError as error:
        raise ConfigurationError(f"{path} is no TOML: {error}") from None
    table = _in_it(whole, _inside(path))
    if not isinstance(table, dict):
        raise ConfigurationError(f"{path} has no table [{'.'.join(_IN_PYPROJECT)}]: there is no configuration in it")
    problems = list(problems_of(table)) or list(built(table).problems)
    if problems:
        raise ConfigurationError("\n".join(_told(path, problems)))
    return dict(table)


def _in_it(table: Any, names: Iterable[str | int]) -> Any:
    """What stands under some names, one in the other; None where there is nothing."""
    for name in names:
        table = table.get(name) if isinstance(table, dict) else None
    return table


def _inside(path: Path) -> lines.Path:
    """Where the table of a configuration is in a file."""
    return _IN_PYPROJECT if path.name == _PYPROJECT else ()


def _told(path: Path, problems: Iterable[Problem]) -> list[str]:
    where, inside = lines_of(path.read_text("utf-8")), _inside(path)
    found = []
    for key, said in problems:
        full = (*inside, *key)
        # What stands in a table on one line has that line.
        line = next((where[full[:end]] for end in range(len(full), 0, -1) if full[:end] in where), 1)
        found.append((line, f"{path}, line {line}: {_name(key)}: {said}" if key else f"{path}, line {line}: {said}"))
    return [told for _, told in sorted(found)]


def _name(key: lines.Path) -> str:
    """A key as TOML writes it; of a list, its place counted from 1."""
    told = ""
    for part in key:
        if isinstance(part, int):
            told += f" number {part + 1}"
        else:
            plain = part.replace("_", "").replace("-", "").isalnum() and part.isascii()
            told += f"{'.' if told else ''}{part if plain else repr(part)}"
    return told


# The environment


def variable_of(key: Key) -> str:
    """The variable that stands over a key."""
    return f"{PREFIX}{key.name.upper()}"


def unheard(environ: Mapping[str, str]) -> dict[str, str]:
    """Variables that look like Tierline's and are not, each with what to say of it. No value is in it."""
    known = {variable_of(key) for key in ROUTER} | {FILE_VARIABLE, MODE_VARIABLE, PAGE_VARIABLE}
    found = {}
    for name in sorted(name for name in environ if name.startswith(PREFIX) and name not in known):
        stem = name.removeprefix(PREFIX)
        near = get_close_matches(stem, [each.removeprefix(PREFIX) for each in known], 1)
        if stem.lower() in TABLES:
            hint = f"[{stem.lower()}] stands in the file alone, not in the environment"
        else:
            hint = f"did you mean {PREFIX}{near[0]}?" if near else "is it the app's own?"
        shown = name if name.isprintable() else ascii(name)  # a log has lines of its own
        found[name] = f"{shown} is a variable that Tierline does not know: {hint}"
    return found


def _said(environ: Mapping[str, str]) -> tuple[dict[str, Any], dict[str, str]]:
    """What the environment says, and by which variables. ConfigurationError for what cannot be."""
    found: dict[str, Any] = {}
    names: dict[str, str] = {}
    for key in ROUTER:
        text = environ.get(variable_of(key), "")
        if not text or variable_of(key) == MODE_VARIABLE:  # that one a Router hears by itself, over code
            continue
        value = _value(key, text)
        if (problem := next(problems_of({key.name: value}), None)) is not None:
            raise ConfigurationError(f"{variable_of(key)} {problem.said}")
        found[key.name], names[key.name] = value, variable_of(key)
    return found, names


def _value(key: Key, text: str) -> Any:
    try:
        if key.kind == "switch":
            return _SWITCHES[text.strip().lower()]
        if key.kind == "whole":
            return int(text)
        return float(text) if key.kind == "number" else text
    except (KeyError, ValueError):
        raise ConfigurationError(f"{variable_of(key)} is {text!r:.60}: write {words(key)}") from None


# Reading again


def _differs(before: object, now: object) -> bool:
    """Whether a value has changed. The order of a ladder is part of it."""
    return before != now or (isinstance(before, dict) and isinstance(now, dict) and list(before) != list(now))


def _check_budgets(
    path: Path,
    before: list[dict[str, Any]],
    after: list[dict[str, Any]],
    options: Mapping[str, Any],
    new: Mapping[str, Any],
) -> None:
    """ConfigurationError where what was spent would be forgotten: balances belong to a name and a window."""
    then = {budget.name: budget for budget in options.get("budgets", ())}
    now = {budget.name: budget for budget in new.get("budgets", ())}
    for name in then.keys() & now.keys():
        old, other = then[name], now[name]
        windows = [parse_limit(each.amount, each.timezone).window.series for each in (old, other)]
        if old.per != other.per or windows[0] != windows[1]:
            raise ConfigurationError(
                f"{path}: budget {name!r}: only the amount may change while the app runs, and not the window or `per`: "
                "what was spent would be forgotten. Restart the app, or give it another name"
            )
    unnamed = [_default_names(each) for each in (before, after)]
    gone, come = unnamed[0] - unnamed[1], unnamed[1] - unnamed[0]
    if gone and come:
        raise ConfigurationError(
            f"{path}: a budget without a name goes by its amount, so that what was spent of it would be forgotten: "
            'give it a name, name = "…", and restart once'
        )


def _usual(name: str) -> Any:
    """What an argument of a Router is where nobody says it."""
    return signature(Router).parameters[name].default


def _default_names(budgets: Iterable[Mapping[str, Any]]) -> set[tuple[str, Any]]:
    return {(each["amount"], each.get("per")) for each in budgets if "name" not in each}


def _check_memory(router: Router[Any], budgets: Iterable[Budget]) -> None:
    """ConfigurationError for a first hard budget in memory: at start-up it is looked whether there is one worker."""
    if router.ledger.instant and not router.rules.hard and any(budget.hard for budget in budgets):
        raise ConfigurationError("a first hard budget of a store in memory needs a restart")

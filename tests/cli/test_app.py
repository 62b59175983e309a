"""What all commands have in common: help, JSON, and what their exit codes mean."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from typer.main import get_command
from typer.testing import CliRunner

from tests.needs import need

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

need("typer", "rich")

from tierline.cli.app import app  # noqa: E402

JSON_ANYHOW = {"config schema", "batch results"}
"""Those that print nothing else."""
REACH_AN_APP = {"routes", "explain", "doctor", "watch", "report"}
"""Those, and all of `budgets`, `cache` and `batch`, take the app by its name."""


def walk(command: Any, *names: str) -> Iterator[tuple[str, Any]]:
    """Every command that does something, by what is typed."""
    inside = getattr(command, "commands", None)
    if inside is None:
        yield " ".join(names), command
        return
    for name, each in inside.items():
        yield from walk(each, *names, name)


COMMANDS = dict(walk(get_command(app)))


def run(typed: str, *arguments: str) -> Any:
    return CliRunner().invoke(app, [*typed.split(), *arguments], env={"COLUMNS": "200", "TIERLINE_STORE": ""})


def test_the_tree_is_walked() -> None:
    """There are commands, in groups too; those that reach an app are among them."""
    assert len(COMMANDS) > 20
    assert {"budgets set", "batch submit"} | JSON_ANYHOW | REACH_AN_APP <= COMMANDS.keys()


@pytest.mark.parametrize("typed", COMMANDS)
def test_every_command_explains_itself(typed: str) -> None:
    """--help ends well, says what the command does, and what each option is for."""
    done = run(typed, "--help")
    assert done.exit_code == 0, done.output
    assert COMMANDS[typed].help.strip().splitlines()[0] in " ".join(done.output.split())
    assert not [each.name for each in COMMANDS[typed].params if not each.help], typed


@pytest.mark.parametrize("typed", COMMANDS)
def test_every_command_speaks_json(typed: str) -> None:
    """--json is everywhere where what is printed is not JSON anyhow."""
    options = {option for each in COMMANDS[typed].params for option in each.opts}
    assert ("--json" in options) is (typed not in JSON_ANYHOW)


@pytest.mark.parametrize("typed", COMMANDS)
def test_whoever_needs_a_store_may_name_the_app(typed: str) -> None:
    """--app and --store say the same everywhere; a factory needs an app."""
    options = {option for each in COMMANDS[typed].params for option in each.opts}
    reaches = typed in REACH_AN_APP or typed.partition(" ")[0] in ("budgets", "cache", "batch")
    names_it = "--app" in options or (typed == "routes" and "app" in {each.name for each in COMMANDS[typed].params})
    assert names_it is reaches
    assert ("--factory" in options) is reaches


@pytest.mark.parametrize("typed", COMMANDS)
def test_what_is_no_option_is_refused(typed: str) -> None:
    """2, what is wrong on stderr, and nothing on stdout."""
    done = run(typed, "--no-such-option")
    assert (done.exit_code, done.stdout) == (2, "")
    assert "no-such-option" in done.stderr.lower()


@pytest.mark.parametrize("typed", [typed for typed in COMMANDS if typed not in ("config schema", "config check")])
def test_what_cannot_be_done_exits_with_2(typed: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With an app, a store or a file that is not there: 2, one reason on stderr, no traceback, nothing written."""
    monkeypatch.chdir(tmp_path)
    needed = [str(tmp_path / "nothing") for each in COMMANDS[typed].params if each.param_type_name == "argument"]
    options = {option for each in COMMANDS[typed].params for option in each.opts}
    if typed == "sample":
        needed += ["--out", "grades.jsonl"]
    if typed == "simulate":
        needed += ["--policy", "always=haiku"]
    if "--out" in options and typed == "train":
        needed += ["--out", "weights"]
    if "--app" in options:
        needed += ["--app", "not_there:app"]
    done = run(typed, *needed)
    assert done.exit_code == 2, done.output
    assert done.stdout == ""
    assert done.stderr.startswith(("error: ", "Usage: ")), done.stderr
    assert isinstance(done.exception, SystemExit)
    assert list(tmp_path.iterdir()) == []


def test_nothing_at_all_shows_what_there_is() -> None:
    """`tierline` alone is a question; JSON of the schema can be read."""
    done = run("")
    assert all(name.split()[0] in done.output for name in COMMANDS)
    assert json.loads(run("config schema").stdout)["title"] == "tierline.toml"

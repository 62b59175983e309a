"""`tierline config`: what is wrong in a file, what it says, and the schema of it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from typer.testing import CliRunner

from tests.needs import need

if TYPE_CHECKING:
    from pathlib import Path

need("typer", "rich")

from tierline.cli.app import app  # noqa: E402
from tierline.configuration.schema import schema  # noqa: E402


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(*arguments: str, **env: str) -> Any:
    found = {"COLUMNS": "100", "TIERLINE_STORE": "", "TIERLINE_CONFIG": "", **env}
    return CliRunner().invoke(app, ["config", *arguments], env=found)


def test_a_file_that_is_well(here: Path) -> None:
    """What it says, and what the environment says over it; no value, for a store may have a password."""
    (here / "tierline.toml").write_text('store = "redis://:hunter2@db"\n[routes."/a"]\nfloor = "opus"\n')
    done = run("check", TIERLINE_TRAFFIC="1")
    assert done.exit_code == 0, done.output
    assert done.stdout.splitlines() == [
        "tierline.toml is well", "  store", "  traffic (TIERLINE_TRAFFIC)", "  middleware: routes",
    ]  # fmt: skip
    told = run("check", "--json").stdout
    assert json.loads(told) == {
        "file": "tierline.toml", "keys": ["middleware.routes", "store"], "variables": {}, "unknown_variables": [],
    }  # fmt: skip
    assert "hunter2" not in told
    assert sorted(each.name for each in here.iterdir()) == ["tierline.toml"], "nothing is opened"


def test_a_file_that_is_not(here: Path) -> None:
    """2, and each error with its line; what only a Router can say as well."""
    (here / "other.toml").write_text('traffic = 3\nstroe = "x"\n')
    done = run("check", "other.toml")
    assert done.exit_code == 2
    assert done.stderr.splitlines() == [
        "error: other.toml, line 1: traffic: is 3: write true or false",
        "other.toml, line 2: stroe: is no key here: did you mean store?",
    ]
    (here / "other.toml").write_text('\nstore = "mysql://root:hunter2@db"\n')
    router = run("check", "other.toml")
    assert (router.exit_code, "mysql:// is no store" in router.stderr) == (2, True)
    assert "hunter2" not in router.output
    assert run("check", "nothing.toml").exit_code == 2
    nothing = run("check")
    assert (nothing.exit_code, nothing.stdout) == (0, "no file here, so defaults hold\n")


def test_variables_that_nobody_hears() -> None:
    """Each is named, with the one that is nearest; what is in it is not shown."""
    names = {"TIERLINE_STROE": "redis://:hunter2@db", "TIERLINE_BUDGETS": "x", "TIERLINE_OWN_THING": "x"}
    done = run("check", **names)
    assert (done.exit_code, "hunter2" in done.output) == (0, False)
    begin = "warning: {} is a variable that Tierline does not know: "
    assert done.stdout.splitlines()[1:] == [
        begin.format("TIERLINE_BUDGETS") + "[budgets] stands in the file alone, not in the environment",
        begin.format("TIERLINE_OWN_THING") + "is it the app's own?",
        begin.format("TIERLINE_STROE") + "did you mean TIERLINE_STORE?",
    ]
    assert json.loads(run("check", "--json", **names).stdout)["unknown_variables"] == sorted(names)
    heard = {"TIERLINE_MODE": "observe", "TIERLINE_TRAFFIC": "1", "TIERLINE_PAGE_TOKEN": "x"}
    assert "warning" not in run("check", **heard).stdout


def test_the_schema() -> None:
    """As editors read it."""
    assert json.loads(run("schema").stdout) == schema()

"""Every block of code in the documentation is run, or at least read, by a test."""

from __future__ import annotations

import importlib.util
import json
import re
import shlex
import tomllib
from pathlib import Path

import pytest

from tests.needs import need
from tests.pages import DOCS, PAGES, ROOT, blocks, names_of

need("typer", "rich", "yaml")

import yaml  # noqa: E402
from typer.main import get_command  # noqa: E402

from tierline.cli.app import app  # noqa: E402

LANGUAGES = {"python", "sh", "console", "text", "toml", "yaml", "json", "jsonl", "csv"}
ELSEWHERE = {
    "README.md": "tests/test_readme.py",
    "docs/batches.md": "tests/batches/test_docs.py",
    "docs/cli.md": "tests/cli/test_page.py",
    "docs/configuration.md": "tests/configuration/test_docs.py",
    "docs/cookbook/django.md": "tests/frameworks/test_cookbook.py",
    "docs/cookbook/fastapi.md": "tests/frameworks/test_cookbook.py",
    "docs/cookbook/libraries.md": "tests/libraries/test_cookbook.py",
    "docs/cookbook/litestar.md": "tests/frameworks/test_cookbook.py",
    "docs/cookbook/platforms.md": "tests/libraries/test_cookbook.py",
    "docs/cookbook/quart.md": "tests/frameworks/test_cookbook.py",
    "docs/cookbook/starlette.md": "tests/frameworks/test_cookbook.py",
    "docs/dashboard.md": "tests/dashboard/test_docs.py",
    "docs/deferred.md": "tests/batches/test_docs_deferred.py",
    "docs/evaluation.md": "tests/cli/test_docs.py",
    "docs/monitoring.md": "tests/test_monitoring.py",
    "docs/new-model.md": "tests/docs/test_pages.py",
    "docs/quickstart.md": "tests/docs/test_quickstart.py",
    "docs/testing.md": "tests/testing/test_docs.py",
    "docs/tracing.md": "tests/traces/test_docs.py",
}
"""Pages whose code needs more around it, and the tests that have it."""


def name_of(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


def lines(page: Path) -> list[str]:
    """The commands that a page shows, without comments."""
    shown = [
        line
        for language, block in blocks(page)
        if language in ("sh", "console")
        for line in block.replace("\\\n", " ").splitlines()
    ]
    return [re.sub(r"(^|\s)#.*", "", line).strip().removeprefix("$ ") for line in shown if line.strip()]


PYTHON = [page for page in PAGES if any(language == "python" for language, _ in blocks(page))]
COMMANDS = sorted({(name_of(page), line) for page in PAGES for line in lines(page)})


@pytest.mark.parametrize("page", [page for page in PYTHON if name_of(page) not in ELSEWHERE], ids=name_of)
def test_the_code_runs(page: Path, here: Path) -> None:
    """Every block of a page can be pasted as it stands, one after the other."""
    names_of(page)


@pytest.mark.parametrize(("page", "test"), ELSEWHERE.items(), ids=list(ELSEWHERE))
def test_the_rest_runs_elsewhere(page: str, test: str) -> None:
    """Each page that is not run here has code, and its own test runs that."""
    assert ROOT / page in PYTHON
    source = (ROOT / test).read_text("utf-8")
    if Path(test).parent.name == "frameworks":
        source += (ROOT / "tests/frameworks/conftest.py").read_text("utf-8")
    assert Path(page).name in source


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_no_block_hides(page: Path) -> None:
    """Each block says what it is in; none is Python under another name; what is data can be read."""
    text = page.read_text("utf-8")
    found = blocks(page)
    assert 2 * len(found) == len(re.findall(r"^ *```", text, re.MULTILINE)), "a fence that is not closed"
    for language, block in found:
        assert language in LANGUAGES, block
        if language == "text":
            assert not re.search(r"^(import |from \w+ import |@\w|async def |def |class )", block, re.MULTILINE), block
        elif language == "toml":
            tomllib.loads(block)
        elif language == "yaml":
            yaml.safe_load(block)
        elif language in ("json", "jsonl"):
            for line in block.splitlines():
                json.loads(line)


@pytest.mark.parametrize(("page", "line"), COMMANDS, ids=[f"{page}: {line}" for page, line in COMMANDS])
def test_the_commands_are_there(page: str, line: str) -> None:
    """What a page tells to type exists: commands of Tierline with their options, tasks, extras, modules and files."""
    words = shlex.split(re.sub(r"\b[A-Z_]+=(\$\(.*?\)|\S*) ?", "", line))
    match words:
        case ["tierline", *rest]:
            command = get_command(app)
            while rest and rest[0] in getattr(command, "commands", {}):
                command = command.commands[rest.pop(0)]  # type: ignore[attr-defined]
            known = {option for parameter in command.params for option in (*parameter.opts, *parameter.secondary_opts)}
            assert not getattr(command, "commands", None), "a command is missing"
            assert {word.partition("=")[0] for word in rest if re.match(r"--?[a-z]", word)} <= known
        case ["make", *tasks]:
            made = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE)
            assert {task for task in tasks if "=" not in task} <= {*made}
        case ["pip", "install", *wanted]:
            extras = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["optional-dependencies"]
            for each in wanted:
                if found := re.fullmatch(r"tierline\[([a-z,]+)\]", each):
                    assert {*found[1].split(",")} <= {*extras}
        case ["python", "-m", module, *_]:
            assert importlib.util.find_spec(module) or module == "build"
        case ["pytest", *options]:
            assert options == ["--tierline-record"] or all(not option.startswith("--t") for option in options)
        case ["docker", "compose", "-f", path, *_]:
            assert (ROOT / path).is_file()
        case _:  # a program of others
            assert not any(word.startswith(("tierline", "scripts.", "benchmarks.")) for word in words[:1])


def test_the_entry_of_a_model() -> None:
    """The entry that the page on new models shows is one that is there."""
    ((_, entry),) = blocks(DOCS / "new-model.md")
    assert " ".join(entry.split()) in " ".join((ROOT / "src/tierline/models.py").read_text("utf-8").split())


def slugs(page: Path) -> set[str]:
    """What the forge makes of a page's headings."""
    text = re.sub(r"^ *```.*?^ *```", "", page.read_text("utf-8"), flags=re.MULTILINE | re.DOTALL)
    titles = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_links_lead_somewhere_on_the_forge(page: Path) -> None:
    """Each link to a file of the repository has its file, and each to a heading its heading."""
    text = re.sub(r"^ *```.*?^ *```", "", page.read_text("utf-8"), flags=re.MULTILINE | re.DOTALL)
    for path, heading in re.findall(r"\]\((?!https?:|mailto:)([^)#\s]*)(?:#([^)\s]+))?\)", text):
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), path
        if heading and not heading.startswith("tierline."):
            assert heading in slugs(target), f"{path}#{heading}"


def test_every_task_that_is_named_is_there() -> None:
    """`make x` and `python -m x` within the text exist, too."""
    made = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE))
    text = "\n".join(page.read_text("utf-8") for page in PAGES)
    named = set(re.findall(r"`make ([a-z-]+)", text))
    assert named
    assert named <= made
    modules = set(re.findall(r"`python -m ((?:scripts|benchmarks)[a-z_.]*)", text))
    assert modules
    assert not [module for module in modules if importlib.util.find_spec(module.rstrip(".")) is None]


def test_every_picture_has_its_script() -> None:
    """Each picture is on a page, and CONTRIBUTING says which script makes it."""
    pictures = [path for path in DOCS.rglob("*") if path.suffix in (".png", ".svg")]
    text = "\n".join(page.read_text("utf-8") for page in PAGES if page.name != "CONTRIBUTING.md")
    listed = (ROOT / "CONTRIBUTING.md").read_text("utf-8")
    assert pictures
    assert [path.name for path in pictures if path.name not in text] == []
    assert [path.name for path in pictures if f"`{path.relative_to(DOCS).as_posix()}`" not in listed] == []

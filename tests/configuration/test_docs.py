"""What docs/configuration.md shows works as it stands."""

from __future__ import annotations

import asyncio
import re
import signal
from pathlib import Path

import pytest

from tests.pages import parsed
from tierline import Budget
from tierline.configuration import load
from tierline.errors import ConfigurationError

PAGE = Path(__file__).parents[2] / "docs" / "configuration.md"
TEXT = PAGE.read_text(encoding="utf-8")
(FILE,) = re.findall(r"```toml\n(.*?)```", TEXT, re.DOTALL)


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the file of the page is."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "tierline.toml").write_text(FILE, "utf-8")
    return tmp_path


async def test_the_page(here: Path) -> None:
    """The apps of the page have what the file says, and take what changes when they are told to."""
    document = parsed(PAGE)
    for example in document.examples():
        example.evaluate()
    names = document.namespace
    router, config = names["router"], names["config"]
    assert [tier.max_tokens for tier in router.ladder] == [None, None, 8_000]
    assert router.budgets[1] == Budget("$2/hour", "tenant", "plan", downgrade_at=None)
    assert set(config.middleware) == {"routes", "headers"}
    (here / "tierline.toml").write_text(FILE.replace("$2/hour", "$3/hour"), "utf-8")
    assert config.reload() == ("budgets",)
    assert router.budgets[1].amount == "$3/hour"
    async with names["lifespan"](names["watched"]):
        (here / "tierline.toml").write_text(FILE, "utf-8")
        signal.raise_signal(signal.SIGHUP)
        while router.budgets[1].amount != "$2/hour":  # noqa: ASYNC110  (a signal tells nobody)
            await asyncio.sleep(0.005)


def test_the_errors(here: Path) -> None:
    """They are said as the page has them."""
    (shown,) = re.findall(r"```text\n(.*?)```", TEXT, re.DOTALL)
    wrong = FILE.replace("traffic = true", 'stroe = "x"').replace("quality = 0.9", "quality = 3")
    with pytest.raises(ConfigurationError) as raised:
        load((here / "tierline.toml").write_text(wrong, "utf-8") and "tierline.toml", environ={})
    first, second, third = shown.splitlines()
    lines = str(raised.value).splitlines()
    assert lines[0] == first
    assert re.sub(r"\d+", "N", lines[1]) == re.sub(r"\d+", "N", second)
    (here / "tierline.toml").write_text(FILE.replace("$2/hour", "$5/dya"), "utf-8")
    with pytest.raises(ConfigurationError) as raised:
        load(environ={})
    assert re.sub(r"line \d+", "line N", str(raised.value)).startswith(re.sub(r"line \d+", "line N", third))

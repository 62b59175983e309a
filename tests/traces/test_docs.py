"""What docs/tracing.md shows runs as it stands, and names all that there is; its picture can be drawn."""

from __future__ import annotations

import re
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

from scripts.draw_trace import draw, record
from tests.pages import DOCS, parsed
from tierline import chat, telemetry

PAGE = DOCS / "tracing.md"


@pytest.mark.usefixtures("fresh")
def test_examples(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each block of code works, in order."""
    monkeypatch.setenv("OTEL_TRACES_EXPORTER", "none")
    monkeypatch.setenv("ANTHROPIC_API_KEY", "none")
    examples = list(parsed(PAGE).examples())
    assert len(examples) == 2
    for example in examples:
        example.evaluate()


@pytest.mark.parametrize("module", [telemetry, chat])
def test_every_attribute_is_told(module: object) -> None:
    """Each attribute stands on the page."""
    source = Path(str(module.__file__)).read_text(encoding="utf-8")  # type: ignore[attr-defined]
    names = set(re.findall(r"\"((?:tierline|gen_ai|server)\.[a-z0-9_.]+[a-z0-9_])", source))
    page = PAGE.read_text(encoding="utf-8")
    assert len(names) > 10
    assert sorted(name for name in names if f"`{name}" not in page) == []


async def test_the_picture() -> None:
    """The script records a call and draws its spans; the picture of the page has the same."""
    drawn, shown = draw(await record()), (PAGE.parent / "trace.svg").read_text(encoding="utf-8")
    labels = [ET.fromstring(picture).get("aria-label") for picture in (drawn, shown)]  # noqa: S314  (our own)
    assert labels[0] == labels[1]
    assert "attempt opus, attempt sonnet" in str(labels[0])

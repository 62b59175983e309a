"""The flame graph has a box for what was met, as wide as it was often, above the one that called it."""

from __future__ import annotations

import sys
from collections import Counter
from xml.etree import ElementTree as ET

from benchmarks.count import ROWS
from benchmarks.flame import LEAST, boxes, drawn, own_share, sample, stack_of

SEEN = Counter(
    {
        ("anthropic._base_client post", "tierline.run run", "json dumps"): 600,
        ("anthropic._base_client post", "tierline.run run", "httpx2._client send"): 200,
        ("anthropic._base_client post",): 199,
        ("asyncio.events rare",): 1,
    }
)


def test_each_box_stands_on_its_caller() -> None:
    """A box begins and ends within the one below it, no two of a row overlap, and what is rare is left out."""
    found = list(boxes(SEEN))
    assert [(depth, round(share, 3), name) for depth, _, share, name in found] == [
        (0, 0.999, "anthropic._base_client post"),
        (1, 0.8, "tierline.run run"),
        (2, 0.2, "httpx2._client send"),
        (2, 0.6, "json dumps"),
    ]
    for depth, left, share, _ in found:
        if depth:
            below = [(start, start + width) for at, start, width, _ in found if at == depth - 1]
            assert any(start <= left + 1e-9 and left + share <= end + 1e-9 for start, end in below)
    assert all(share >= LEAST for _, _, share, _ in found)


def test_whose_time_it_is() -> None:
    """What of Python's own a package calls is that package's time; what another package does is not."""
    assert own_share(SEEN) == 0.6


def test_it_can_be_shown() -> None:
    """The graph is XML, with names that are escaped, and a title for each box."""
    root = ET.fromstring(drawn(Counter({("tierline.run <listcomp>",): 5}), "a & b"))  # noqa: S314
    titles = [each.text for each in root.iter("{http://www.w3.org/2000/svg}title")]
    assert titles == ["tierline.run <listcomp>: 100.0%"]
    assert "a & b" in [each.text for each in root.iter("{http://www.w3.org/2000/svg}text")]


async def test_calls_are_met() -> None:
    """What runs below the calls is met with its callers, outermost first; what runs elsewhere is not."""
    assert stack_of(sys._getframe()) == ()
    seen = await sample(ROWS[0], 0.5)
    met = next(stack for stack in seen if "tierline.gate run" in stack)
    assert met.index("tierline.anthropic handle_async") < met.index("tierline.gate run")
    assert not any(name.endswith(" make") for name in met)

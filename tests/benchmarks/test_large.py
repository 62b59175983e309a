"""The benchmark of large requests: what it measures, and what it says of it."""

from __future__ import annotations

import asyncio

from benchmarks.large import Figure, measured, shapes, table
from tierline.call import read_call


def test_all_shapes_are_requests() -> None:
    """Each is a request that can be bounded."""
    for shape in shapes().values():
        call = read_call("create", {"model": "auto", "max_tokens": 800, **shape})
        assert call is not None
        assert call.input_bound is not None


def test_one_row() -> None:
    """A row has the size of its body, and tells times."""
    figure = asyncio.run(measured("10 tools", shapes()["10 tools"], 1))
    assert figure.size > 10_000
    assert min(figure.plain, figure.reading, figure.deciding) > 0


def test_table() -> None:
    """A row of the table has the ratio that its figures have."""
    assert table([Figure("1 KB", 1_087, 800, 200, 6, 120)]).splitlines()[2] == (
        "| 1 KB | 1,087 | 800 | 200 | 1.25 | 6 | 120 |"
    )

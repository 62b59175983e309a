"""Files of rows: every kind, and errors that name the line and say what to do."""

from __future__ import annotations

import gzip
import json
import sqlite3
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.decisionlog.writer import decision
from tierline.decisionlog import DecisionLog
from tierline.errors import ConfigurationError
from tierline.evaluation.rows import UNNAMED, outcomes, read, row_of, size_of
from tierline.learn import Outcome
from tierline.values import Usage

if TYPE_CHECKING:
    from pathlib import Path


def write(path: Path, *rows: Any) -> Path:
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), "utf-8")
    return path


def test_labels_and_outcomes(tmp_path: Path) -> None:
    """A label, a grade, grades of several tiers, tokens; blank lines and a byte order mark are nothing."""
    path = write(
        tmp_path / "rows.jsonl",
        {"text": "hi 猫", "label": "simple", "id": "a", "tools": 2, "in_tokens": 5, "out_tokens": 7},
        {"text": "why?", "route": "/answer", "tier": "haiku", "good": True, "source": "user", "weight": 2},
        {"text": "why?", "route": "/answer", "good": {"sonnet": 0.5, "opus": 1}},
    )
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes() + b"\n  \n")
    first, second, third = read(path)
    assert (first.text, first.label, first.id, first.tools, first.route) == ("hi 猫", "simple", "a", 2, UNNAMED)
    assert first.usage == Usage(5, 7)
    assert second.grades == (("haiku", 1.0),)
    assert third.grades == (("sonnet", 0.5), ("opus", 1.0))
    assert second.id == third.id  # the same request
    assert list(outcomes(path)) == [
        Outcome("/answer", "why?", "haiku", 1.0, source="user", weight=2.0),
        Outcome("/answer", "why?", "sonnet", 0.5),
        Outcome("/answer", "why?", "opus", 1.0),
    ]


def test_tables(tmp_path: Path) -> None:
    """CSV as spreadsheets write it: cells over several lines, words for truth, empty cells."""
    path = tmp_path / "rows.csv"
    path.write_bytes(b'text,label,tier,good,tools\r\n"two\r\nlines, ""quoted""",complex,,,\r\nhi,,haiku,yes,3\r\n')
    first, second = read(path)
    assert (first.text, first.label, first.grades) == ('two\r\nlines, "quoted"', "complex", ())
    assert (second.text, second.grades, second.tools) == ("hi", (("haiku", 1.0),), 3)
    tabs = tmp_path / "rows.tsv"
    tabs.write_text("text\tlabel\nhi\tsimple\n")
    assert [row.label for row in read(tabs)] == ["simple"]


def test_packed_files(tmp_path: Path) -> None:
    """What ends in .gz is unpacked, and the bar comes to its end."""
    path = tmp_path / "rows.jsonl.gz"
    path.write_bytes(gzip.compress(b'{"text": "hi", "label": "simple"}\n' * 500))
    told: list[int] = []
    assert len(list(read(path, told.append))) == 500
    assert sum(told) == size_of(path)
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(ConfigurationError, match="cannot be read"):
        list(read(path))


@pytest.mark.parametrize("name", ["decisions.jsonl", "decisions.db"])
async def test_decision_logs(tmp_path: Path, name: str) -> None:
    """Either kind, with the files that were moved away, oldest first."""
    log = DecisionLog(tmp_path / name, text=True, max_bytes=40_000, keep=50)
    for number in range(100):
        log.write(decision(f"n{number}", route="/answer"), at=number, outcome="ok", text="hi", tools=1)
    await log.drain(10)
    found = list(read(tmp_path / name))
    ids = [row.id for row in found]
    assert ids == [f"n{number}" for number in range(100 - len(ids), 100)]
    assert name.endswith("db") or len(ids) == 100
    first = found[0]
    assert (first.route, first.text, first.tools, first.usage) == ("/answer", "hi", 1, Usage())
    assert first.label is None  # what was said is not what is right
    assert first.record is not None
    assert first.record["label"] == "simple"


async def test_a_log_that_is_being_written(tmp_path: Path) -> None:
    """A last line that is not whole yet is left out; one in the midst is an error."""
    path = tmp_path / "decisions.jsonl"
    log = DecisionLog(path)
    log.write(decision("a"), at=0, outcome="ok")
    await log.drain(10)
    with path.open("ab") as file:
        file.write(b'{"v":1,"id":"b","ti')
    assert [row.id for row in read(path)] == ["a"]
    with path.open("ab") as file:
        file.write(b"\n")
    with pytest.raises(ConfigurationError, match="line 2: it is not JSON"):
        list(read(path))


@pytest.mark.parametrize(
    ("line", "told"),
    [
        (b"nonsense", r"line 2: it is not JSON .* name the file \.csv"),
        (b'["text"]', "line 2: it is no object"),
        (b'{"text": "x"}', "line 2: it has neither a label nor a grade; write `label`"),
        (b'{"label": "simple"}', "line 2: it has a label and no text"),
        (b'{"text": "x", "label": "easy"}', "line 2: label is 'easy'; the labels are simple, moderate, complex"),
        (b'{"text": 3, "label": "simple"}', "line 2: text is 3; write a text"),
        (b'{"text": "x", "good": 1}', "line 2: it has a grade and no tier"),
        (b'{"text": "x", "tier": "haiku", "good": 7}', "line 2: good is 7"),
        (b'{"text": "x", "good": {"haiku": "fine"}}', "line 2: good of haiku is 'fine'"),
        (b'{"text": "x", "label": "simple", "tools": -1}', "line 2: tools is -1"),
        (b'{"text": "x", "label": "simple", "weight": 0}', "line 2: weight is 0"),
        (b'{"text": "x", "label": "simple", "in_tokens": "many"}', "line 2: in_tokens is 'many'"),
        (b'{"text": "\xff", "label": "simple"}', "line 2: it is not UTF-8"),
        (b'{"text": "x", "good": {}}', "line 2: good has no tiers"),
        (b"[" * 100_000, "line 2: it is not JSON"),
    ],
)
def test_errors_name_the_line(tmp_path: Path, line: bytes, told: str) -> None:
    """And say what to do."""
    path = tmp_path / "rows.jsonl"
    path.write_bytes(b'{"text": "fine", "label": "simple"}\n' + line + b"\n")
    with pytest.raises(ConfigurationError, match=told):
        list(read(path))


def test_errors_of_files(tmp_path: Path) -> None:
    """None, an empty one, a directory, a CSV with stray cells, a database of something else."""
    for path in (tmp_path / "none.jsonl", tmp_path):
        with pytest.raises(ConfigurationError, match="is no file"):
            list(read(path))
    (tmp_path / "empty.jsonl").touch()
    (tmp_path / "empty.csv").write_text("text,label\n")
    for name in ("empty.jsonl", "empty.csv"):
        with pytest.raises(ConfigurationError, match="has no rows"):
            list(read(tmp_path / name))
    (tmp_path / "stray.csv").write_text("text,label\nyes, or no,simple\n")
    with pytest.raises(ConfigurationError, match=r"stray\.csv, line 2: it has other columns"):
        list(read(tmp_path / "stray.csv"))
    (tmp_path / "open.csv").write_text('text,label\n"never closed,simple\n')
    with pytest.raises(ConfigurationError, match=r"open\.csv, line 2: .*quote cells"):
        list(read(tmp_path / "open.csv"))
    with sqlite3.connect(tmp_path / "other.db") as connection:
        connection.execute("CREATE TABLE mine (x)")
    connection.close()
    with pytest.raises(ConfigurationError, match="is no decision log"):
        list(read(tmp_path / "other.db"))


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=4,
)
NAMES = st.sampled_from(
    [
        "text",
        "label",
        "good",
        "tier",
        "id",
        "route",
        "tools",
        "weight",
        "in_tokens",
        "usage",
        "requested_tier",
        "attempts",
    ]
)


@settings(suppress_health_check=[HealthCheck.too_slow])
@given(st.dictionaries(NAMES, JSON, max_size=8))
def test_any_object_is_a_row_or_an_error(row: dict[str, Any]) -> None:
    """Never another exception, and what is a row has outcomes that can be."""
    with suppress(ConfigurationError):
        for outcome in row_of("x, line 1", row).outcomes:
            assert 0 <= outcome.good <= 1


@pytest.mark.parametrize("odd", ["ok", -1, 1.5, True, None, 10**400])
def test_usage_of_a_log_that_is_none(odd: Any) -> None:
    """Counts are whole numbers: a text in a log that was changed by hand is not multiplied until memory is full."""
    logged = {"v": 1, "id": "a", "requested_tier": "sonnet", "attempts": []}
    with pytest.raises(ConfigurationError, match=r"line 3: its usage has web_searches=.*whole number of tokens"):
        row_of("line 3", logged | {"usage": {"input_tokens": 1, "web_searches": odd}})
    with pytest.raises(ConfigurationError, match="line 3: its usage is of another version"):
        row_of("line 3", logged | {"usage": {"others": 1}})

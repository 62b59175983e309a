"""Files of rows to measure by: labels, outcomes, grades, decision logs. Read as a stream, and every error has its line.

| file | a row |
|---|---|
| `.jsonl` (also `.gz`) | `{"text": …, "label": "simple"}`; `{"text": …, "route": …, "tier": "haiku", "good": 1}`; |
| | `{"text": …, "route": …, "good": {"haiku": 0, "opus": 1}}`; a record of a decision log |
| `.csv`, `.tsv` | the same names as columns; one tier a row |
| `.db`, `.sqlite` | a decision log in SQLite |

Optional: `id`, `route`, `tools` (how many were offered), `in_tokens`, `out_tokens`, `source`, `weight`.
"""

from __future__ import annotations

import csv
import gzip
import json
import sqlite3
from contextlib import closing
from dataclasses import dataclass
from hashlib import blake2b
from math import isfinite
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Final
from urllib.parse import quote

from tierline.errors import ConfigurationError
from tierline.learn.outcomes import Outcome, check_grade
from tierline.numeric import is_whole
from tierline.values import LABELS, Usage
from tierline.veil import veiled

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

_LONGEST: Final = 16 * 1024 * 1024
"""Characters of a cell; the csv module's own bound is 128 Ki."""
_MOST_TOKENS: Final = 10**12
"""Of one answer: far above what any has, and what can be priced."""
_SQLITE: Final = (".db", ".sqlite", ".sqlite3")
_TABLES: Final = {".csv": ",", ".tsv": "\t"}
UNNAMED: Final = "(no route)"
"""The route of rows that name none."""


@veiled("text")
@dataclass(frozen=True, slots=True)
class Row:
    """One row, checked. `where` is its file and line, for errors; what the row does not say is None or empty.

    - `label`: what is right: simple, moderate or complex
    - `grades`: how good the answers of tiers were, from 0 to 1
    - `usage`: tokens of an answer
    - `record`: the whole record, of a decision log
    """

    where: str
    id: str
    text: str | None
    route: str = UNNAMED
    tools: int = 0
    label: str | None = None
    grades: tuple[tuple[str, float], ...] = ()
    usage: Usage | None = None
    source: str = "app"
    weight: float = 1.0
    record: Mapping[str, Any] | None = None

    @property
    def outcomes(self) -> Iterator[Outcome]:
        """Its grades, each as an Outcome."""
        for tier, good in self.grades:
            yield Outcome(self.route, self.text or "", tier, good, self.tools, self.source, self.weight)


def read(path: str | Path, advance: Callable[[int], object] = lambda _: None) -> Iterator[Row]:
    """The rows of a file, one after the other; of a log with the files that were moved away, oldest first.

    `advance` is told how many bytes were read: see `size_of`. ConfigurationError, with file and line and what to do,
    for a row that cannot be, and where there is none.
    """
    rows = 0
    for file in _files(Path(path)):
        for row in _rows(file, advance):
            rows += 1
            yield row
    if not rows:
        raise ConfigurationError(f"{path} has no rows: write one JSON object in each line, or a CSV with a header")


def size_of(path: str | Path) -> int:
    """Bytes that `read` goes through. ConfigurationError where there is no such file."""
    return sum(file.stat().st_size for file in _files(Path(path)))


def outcomes(path: str | Path) -> Iterator[Outcome]:
    """The graded answers of a file, for `OutcomeModel.fit(outcomes("grades.jsonl"))`."""
    for row in read(path):
        yield from row.outcomes


def _files(path: Path) -> list[Path]:
    if not path.is_file():
        raise ConfigurationError(f"{path} is no file: give the path of JSON lines, a CSV, or a decision log")
    older: list[Path] = []
    while (file := path.with_name(f"{path.name}.{len(older) + 1}")).is_file():
        older.append(file)
    return [*reversed(older), path]


def _rows(path: Path, advance: Callable[[int], object]) -> Iterator[Row]:
    if path.suffix in _SQLITE:
        yield from _of_sqlite(path, advance)
        return
    packed = path.suffix == ".gz"
    kind = path.with_suffix("").suffix if packed else path.suffix
    with path.open("rb") as raw:
        file: Any = gzip.open(raw) if packed else raw  # noqa: SIM115  (closed with `raw`)
        texts = _decoded(path, file, raw, advance)
        yield from _of_table(path, texts, _TABLES[kind]) if kind in _TABLES else _of_lines(path, texts)


def _decoded(path: Path, file: IO[bytes], raw: IO[bytes], advance: Callable[[int], object]) -> Iterator[str]:
    number, before = 0, 0
    try:
        for number, line in enumerate(file, 1):
            if (here := raw.tell()) != before:
                advance(here - before)
                before = here
            yield line.decode("utf-8-sig" if number == 1 else "utf-8")
    except UnicodeDecodeError:
        raise ConfigurationError(f"{path}, line {number}: it is not UTF-8; save the file as UTF-8") from None
    except (OSError, EOFError) as error:
        raise ConfigurationError(f"{path}, line {number + 1}: it cannot be read: {error}") from None


def _of_lines(path: Path, texts: Iterator[str]) -> Iterator[Row]:
    logged = False
    for number, text in enumerate(texts, 1):
        if not text.strip():
            continue
        where = f"{path}, line {number}"
        try:
            row = json.loads(text)
        except (ValueError, RecursionError) as error:
            if logged and not text.endswith("\n"):
                return  # a log that is being written
            raise ConfigurationError(
                f"{where}: it is not JSON ({getattr(error, 'msg', error)}); write one object in each line, or name the "
                "file .csv"
            ) from None
        found = row_of(where, row)
        logged = found.record is not None
        yield found


def _of_table(path: Path, texts: Iterator[str], delimiter: str) -> Iterator[Row]:
    csv.field_size_limit(_LONGEST)
    table = csv.DictReader(texts, delimiter=delimiter, strict=True)
    begins = 1
    while True:
        try:
            _ = table.fieldnames  # the header is read now
            begins = table.line_num + 1
            cells = next(table, None)
        except csv.Error as error:
            raise ConfigurationError(f"{path}, line {begins}: {error}; quote cells as a CSV does") from None
        if cells is None:
            return
        where = f"{path}, line {begins}"
        if None in cells or None in cells.values():
            raise ConfigurationError(f"{where}: it has other columns than the header; quote cells that have commas")
        yield row_of(where, {name: _number(cell) if name in _NUMBERS else cell for name, cell in cells.items() if cell})


def _of_sqlite(path: Path, advance: Callable[[int], object]) -> Iterator[Row]:
    try:
        with closing(sqlite3.connect(f"file:{quote(str(path))}?mode=ro", uri=True)) as connection:
            for number, text in connection.execute("SELECT number, record FROM decisions ORDER BY number"):
                yield row_of(f"{path}, row {number}", json.loads(text))
    except sqlite3.Error as error:
        raise ConfigurationError(f"{path} is no decision log: {error}") from None
    advance(path.stat().st_size)


_NUMBERS: Final = ("good", "tools", "weight", "in_tokens", "out_tokens")
_WORDS: Final = {"true": True, "yes": True, "false": False, "no": False}


def _number(cell: str) -> object:
    word = cell.strip().lower()
    if word in _WORDS:
        return _WORDS[word]
    try:
        return int(word)
    except ValueError:
        try:
            return float(word)
        except ValueError:
            return cell


def row_of(where: str, row: object) -> Row:
    """A row, checked. ConfigurationError, beginning with `where`, for what cannot be."""
    if not isinstance(row, dict):
        raise ConfigurationError(f'{where}: it is no object; write {{"text": …, "label": …}} or a graded outcome')
    logged = "requested_tier" in row and "attempts" in row
    text, label, route = row.get("text"), row.get("label"), row.get("route")
    for name in ("text", "route", "id", "tier", "source"):
        if not isinstance(row.get(name, ""), (str, type(None))):
            raise ConfigurationError(f"{where}: {name} is {row[name]!r:.60}; write a text")
    if label is not None and label not in LABELS:
        raise ConfigurationError(f"{where}: label is {label!r:.60}; the labels are {', '.join(LABELS)}")
    grades = () if row.get("good") is None else _grades(where, row)
    if not logged and label is None and not grades:
        raise ConfigurationError(f"{where}: it has neither a label nor a grade; write `label`, or `tier` and `good`")
    if text is None and label is not None and not logged:
        raise ConfigurationError(f"{where}: it has a label and no text; write `text`")
    tools = row.get("tools", 0)
    if not is_whole(tools, 0):
        raise ConfigurationError(f"{where}: tools is {tools!r:.60}; write how many were offered")
    weight = row.get("weight", 1.0)
    if isinstance(weight, bool) or not isinstance(weight, (int, float)) or not isfinite(weight) or weight <= 0:
        raise ConfigurationError(f"{where}: weight is {weight!r:.60}; write a number above 0")
    return Row(
        where=where,
        id=row.get("id") or _key(route, text, where),
        text=text,
        route=route or UNNAMED,
        tools=tools,
        label=None if logged else label,  # of a decision it is what was said, and not what is right
        grades=grades,
        usage=_usage(where, row, logged=logged),
        source=row.get("source") or "app",
        weight=float(weight),
        record=row if logged else None,
    )


def _grades(where: str, row: Mapping[str, Any]) -> tuple[tuple[str, float], ...]:
    good, tier = row["good"], row.get("tier")
    if isinstance(good, dict):
        if not good or not all(isinstance(name, str) and name for name in good):
            raise ConfigurationError(f'{where}: good has no tiers; write {{"haiku": 0, "opus": 1}}')
        return tuple((name, check_grade(f"{where}: good of {name}", grade)) for name, grade in good.items())
    if not tier:
        raise ConfigurationError(
            f"{where}: it has a grade and no tier; write `tier`, the name of the one that answered"
        )
    return ((tier, check_grade(f"{where}: good", good)),)


def _usage(where: str, row: Mapping[str, Any], *, logged: bool) -> Usage | None:
    if logged:
        try:
            return usage_of(row.get("usage"))
        except ValueError as error:
            raise ConfigurationError(f"{where}: its usage {error}") from None
    counts = {name: row.get(name) for name in ("in_tokens", "out_tokens")}
    for name, count in counts.items():
        if count is not None and not is_whole(count, 0):
            raise ConfigurationError(f"{where}: {name} is {count!r:.60}; write a whole number of tokens")
    if counts["in_tokens"] is None or counts["out_tokens"] is None:
        return None
    return Usage(counts["in_tokens"], counts["out_tokens"])


def usage_of(counts: object) -> Usage | None:
    """The usage in a record; None for what is no table. ValueError for what no Router of this version writes."""
    if not isinstance(counts, dict):
        return None
    for name, count in counts.items():
        if not is_whole(count, 0, _MOST_TOKENS):
            raise ValueError(f"has {name}={count!r:.60}, and a count is a whole number of tokens")
    try:
        return Usage(**counts)
    except TypeError:
        raise ValueError("is of another version; read it with that one") from None


def _key(route: str | None, text: str | None, where: str) -> str:
    """What rows without an id are put together by: the same request on several tiers."""
    if text is None:
        return where
    return blake2b(f"{route}\0{text}".encode("utf-8", "replace"), digest_size=16).hexdigest()

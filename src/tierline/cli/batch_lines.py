"""Lines and rows of a file by number, as a stream: no more of it is in memory than one of them, and that is bounded."""

from __future__ import annotations

import csv
import tempfile
from typing import IO, TYPE_CHECKING, Final, NamedTuple

from tierline.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Iterator

LONGEST: Final = 32_000_000
"""Bytes of one line or row: what the API takes of one request."""
_CHUNK: Final = 1 << 20
_BOM: Final = b"\xef\xbb\xbf"
_OTHERS: Final = {
    b"\xff\xfe": "it is UTF-16: save it as UTF-8",
    b"\xfe\xff": "it is UTF-16: save it as UTF-8",
    b"\x1f\x8b": "it is compressed: gunzip -c FILE | tierline batch submit - …",
    b"PK\x03\x04": "it is a zip or a workbook: save it as CSV or JSON lines",
}
_WHY: Final = {
    "unexpected end of data": "a quote is opened in it, and not closed",
    "new-line character seen": "a carriage return stands in it outside of quotes: save the file with the ends of lines "
    "of Unix or Windows",
}
"""What the csv module says, and what that means to whoever has the file."""
_DELIMITERS: Final = ",;\t|"


class Line(NamedTuple):
    """A line by its number, from 1. Where `wrong` says why, `text` is none."""

    number: int
    text: str
    wrong: str = ""


class Row(NamedTuple):
    """A row of a CSV by the numbers of its first and last line. Where `wrong` says why, it has no cells."""

    first: int
    last: int
    cells: list[str]
    wrong: str = ""


class _TooLong(Exception):  # noqa: N818  (it never leaves this file)
    """A line that is not read."""


def spooled(file: IO[bytes]) -> IO[bytes]:
    """What cannot be read twice, in a file that nobody else sees and that is gone with this process."""
    found = tempfile.TemporaryFile()  # noqa: SIM115  (whoever asks closes it)
    while chunk := file.read(_CHUNK):
        found.write(chunk)
    found.seek(0)
    return found


def lines_of(file: IO[bytes], encoding: str) -> Iterator[Line]:
    """All lines, without their ends, a blank one too. ConfigurationError for what is no text."""
    number = 0
    while raw := file.readline(LONGEST + 2):
        number += 1
        if number == 1:
            for mark, why in _OTHERS.items():
                if raw.startswith(mark):
                    raise ConfigurationError(why)
            raw = raw.removeprefix(_BOM)
        if not raw.endswith(b"\n") and len(raw) > LONGEST:
            size = len(raw)
            del raw
            while rest := file.readline(_CHUNK):
                size += len(rest)
                if rest.endswith(b"\n"):
                    break
            yield Line(number, "", f"it has {size:,} bytes, and a request has {LONGEST:,} at most")
            continue
        try:
            yield Line(number, raw.decode(encoding).removesuffix("\n").removesuffix("\r"))
        except UnicodeDecodeError as error:
            yield Line(
                number, "", f"byte {error.start + 1} is no {encoding}: save the file as UTF-8, or say --encoding"
            )


class _Feed:
    """Lines as the csv module asks for them: with their ends, and which they were."""

    def __init__(self, lines: Iterator[Line]) -> None:
        self._lines = lines
        self.number = self.size = 0

    def __iter__(self) -> _Feed:
        return self

    def __next__(self) -> str:
        line = next(self._lines)
        self.number = line.number
        self.size += len(line.text) + 1
        if line.wrong:
            raise _TooLong(line.wrong)
        if self.size > LONGEST:
            raise _TooLong(f"the row has more than {LONGEST:,} characters: is a quote left open?")
        return line.text + "\n"


def rows_of(lines: Iterator[Line], delimiter: str) -> Iterator[Row]:
    """Rows of a CSV, where cells in quotes may have several lines. Blank lines between them are none."""
    csv.field_size_limit(LONGEST)  # of this process: 128 kB are no prompt
    feed = _Feed(lines)
    reader = csv.reader(feed, delimiter=delimiter, strict=True)
    while True:
        first, feed.size = feed.number + 1, 0
        try:
            cells = next(reader)
        except StopIteration:
            return
        except (_TooLong, csv.Error) as error:
            why = str(error)
            why = next((said for begins, said in _WHY.items() if why.startswith(begins)), why)
            yield Row(first, feed.number, [], why)
            reader = csv.reader(feed, delimiter=delimiter, strict=True)
        else:
            if cells:
                yield Row(first, feed.number, cells)


def delimiter_of(header: str) -> str:
    """What parts the cells of a header: that which makes the most of them."""

    def cells(delimiter: str) -> int:
        try:
            return len(next(csv.reader([header], delimiter=delimiter), []))
        except csv.Error:
            return 0  # no delimiter mends it: reading the rows says what it is

    return max(_DELIMITERS, key=cells)

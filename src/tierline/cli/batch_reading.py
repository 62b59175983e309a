"""Requests of a file: JSON lines as Anthropic's API has them or OpenAI's, or a CSV with a prompt for each row."""

from __future__ import annotations

import hashlib
import json
import string
from array import array
from collections import Counter
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING, Any, Final, Literal, NoReturn

from tierline.batches import BatchRequest, Unreadable
from tierline.cli.batch_lines import Line, delimiter_of, lines_of, rows_of
from tierline.cli.batch_openai import URL, Unmapped, params_of
from tierline.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tierline.cli.batch_lines import Row
    from tierline.policies import Policy

Format = Literal["anthropic", "openai", "csv"]
_TRIED: Final = 100
"""Lines that are looked at for which format it is."""
_IDS: Final = ("custom_id", "id")


@dataclass(frozen=True)
class Shape:
    """What each request has that its line does not say. `id` and `tenant_column` are columns of a CSV."""

    prompt: str = ""
    system: str = ""
    id: str = ""
    tenant_column: str = ""
    model: str = "auto"
    max_tokens: int | None = None
    drop: frozenset[str] = frozenset()
    thinking: bool = True
    tenant: str | None = None
    route: str | None = None
    policy: Policy | None = None
    encoding: str = "utf-8"


class Requests:
    """The requests of a file, in order, one for each line or row that is not blank; what is none is `Unreadable`.

    May be gone through again, for it reads from the beginning each time. ConfigurationError for a file that has none,
    or whose format cannot be told, and for a prompt or a column that does not go with it.
    """

    def __init__(self, file: IO[bytes], shape: Shape, given: Format | None = None) -> None:
        self._file, self.shape = file, shape
        try:
            fits = "\n".encode(shape.encoding) == b"\n"
        except LookupError:
            fits = False
        if not fits:
            raise ConfigurationError(f"--encoding {shape.encoding}: write utf-8, cp1252, latin-1 or the like")
        self.size = file.seek(0, 2)
        """Bytes of all."""
        self.format: Format = given or self._told()
        self._table = _Table(self._header(), shape) if self.format == "csv" else None
        self._numbers = array("Q")
        self.models: Counter[str] = Counter()
        """Models of somebody else's that lines named, and how many did."""

    @property
    def read(self) -> int:
        """Bytes that have been read."""
        return self._file.tell()

    def line_of(self, place: int) -> int:
        """The number of the line, or of the first of a row, that a request was read from."""
        return self._numbers[place] if place < len(self._numbers) else 0

    def digest(self, *more: object) -> str:
        """Of all that is in the file and of what is made of it: 12 hexadecimal digits."""
        found = hashlib.blake2b(repr((self.shape, *more)).encode("utf-8", "surrogatepass"), digest_size=6)
        self._file.seek(0)
        while chunk := self._file.read(1 << 20):
            found.update(chunk)
        self._file.seek(0)
        return found.hexdigest()

    def __iter__(self) -> Iterator[BatchRequest | Unreadable]:
        self._numbers, self.models = array("Q"), Counter()
        for number, found in self._rows() if self._table is not None else self._objects():
            self._numbers.append(number)
            yield found

    def _lines(self) -> Iterator[Line]:
        self._file.seek(0)
        return lines_of(self._file, self.shape.encoding)

    def _told(self) -> Format:
        """The format by what is in the file."""
        any_line = False
        for line in self._lines():
            if not line.text.strip() and not line.wrong:
                continue
            any_line = True
            first = line.text.lstrip()[:1]
            if first == "[":
                raise ConfigurationError(
                    "it is a list, and lines are needed: jq -c '.[]' FILE | tierline batch submit -"
                )
            if first and first != "{":
                return "csv"
            found, _ = _parsed(line.text)
            if isinstance(found, dict):
                if "requests" in found:
                    raise ConfigurationError(
                        "it is one batch, and lines are needed: jq -c '.requests[]' FILE | tierline batch submit -"
                    )
                if "params" in found:
                    return "anthropic"
                if "body" in found or "url" in found:
                    return "openai"
            if line.number >= _TRIED:
                break
        if not any_line:
            raise ConfigurationError("there is nothing in it")
        raise ConfigurationError(
            "no line of it is a request: one has custom_id and params, or custom_id and body (OpenAI's). "
            "--format says which it is to be"
        )

    def _header(self) -> str:
        for line in self._lines():
            if line.wrong:
                raise ConfigurationError(f"line {line.number}: {line.wrong}")
            if line.text.strip():
                return line.text
        raise ConfigurationError("there is nothing in it")

    # JSON lines

    def _objects(self) -> Iterator[tuple[int, BatchRequest | Unreadable]]:
        for line in self._lines():
            if line.wrong or line.text.strip():
                yield line.number, self._object(line)

    def _object(self, line: Line) -> BatchRequest | Unreadable:
        found, wrong = (None, line.wrong) if line.wrong else _parsed(line.text)
        if not isinstance(found, dict):
            return Unreadable(f"line {line.number}: {wrong or 'it is no JSON object'}")
        name = found.get("custom_id")
        try:
            return self._of_anthropic(found) if self.format == "anthropic" else self._of_openai(found)
        except Unmapped as error:
            return Unreadable(f"line {line.number}: {error}", name if isinstance(name, str) else None)

    def _of_anthropic(self, found: dict[str, Any]) -> BatchRequest:
        _only(found, ("custom_id", "params", "tenant", "route"))
        name, params = _id(found), found.get("params")
        if not isinstance(params, dict):
            _wrong("params", "it is missing: they are what messages.create takes")
        params.setdefault("model", self.shape.model)
        if self.shape.max_tokens is not None:
            params.setdefault("max_tokens", self.shape.max_tokens)
        if params.get("max_tokens") is None:
            _wrong("params.max_tokens", "it is missing: write it, or give --max-tokens")
        if self.shape.system:
            params.setdefault("system", self.shape.system)
        for field in self.shape.drop:
            params.pop(field, None)
        return self._request(name, params, _name(found, "tenant"), _name(found, "route"))

    def _of_openai(self, found: dict[str, Any]) -> BatchRequest:
        _only(found, ("custom_id", "method", "url", "body"))
        if found.get("method", "POST") != "POST":
            _wrong("method", "it is POST")
        if found.get("url", URL) != URL:
            _wrong("url", f"{URL} alone is mapped")
        body, name = found.get("body"), _id(found)
        if not isinstance(body, dict):
            _wrong("body", "it is missing: a chat completion's")
        params = params_of(body, self.shape.model, self.shape.max_tokens, self.shape.drop)
        if self.shape.system:
            params.setdefault("system", self.shape.system)
        named = body.get("model")
        if isinstance(named, str) and named != params["model"]:
            key = named[:80] if named in self.models or len(self.models) < _TRIED else "others"
            self.models[key] += 1
        return self._request(name, params)

    # CSV

    def _rows(self) -> Iterator[tuple[int, BatchRequest | Unreadable]]:
        table = self._table
        assert table is not None  # noqa: S101  (the caller's part)
        rows = rows_of(self._lines(), table.delimiter)
        next(rows)
        for row in rows:
            yield row.first, self._row(table, row)

    def _row(self, table: _Table, row: Row) -> BatchRequest | Unreadable:
        where = f"line {row.first}" if row.first == row.last else f"lines {row.first} to {row.last}"
        if not row.wrong and len(row.cells) != len(table.columns):
            row = row._replace(wrong=f"it has {len(row.cells)} cells, and the header has {len(table.columns)}")
        if row.wrong:
            return Unreadable(f"{where}: {row.wrong}")
        cells = dict(zip(table.columns, row.cells, strict=True))
        name = cells[table.id] if table.id else f"line-{row.first}"
        prompt = table.filled(cells)
        if not name:
            return Unreadable(f"{where}: {table.id} is empty, and it is the request's custom_id")
        if not table.says_something(cells):
            return Unreadable(f"{where}: what its prompt is made of is empty", name)
        params: dict[str, Any] = {
            "model": self.shape.model,
            "max_tokens": self.shape.max_tokens,
            "messages": [{"role": "user", "content": prompt}],
        }
        if self.shape.system:
            params["system"] = self.shape.system
        return self._request(name, params, cells.get(table.tenant) or None)

    def _request(
        self, name: str, params: dict[str, Any], tenant: str | None = None, route: str | None = None
    ) -> BatchRequest:
        shape = self.shape
        if not shape.thinking:
            params.setdefault("thinking", {"type": "disabled"})
        return BatchRequest(name, params, tenant or shape.tenant, route or shape.route, shape.policy)


class _Table:
    """The header of a CSV, and the prompt that goes with it."""

    def __init__(self, header: str, shape: Shape) -> None:
        self.delimiter = delimiter_of(header)
        self.columns = [each.strip() for each in _cells(header, self.delimiter)]
        shown = ", ".join(self.columns)[:200]
        if len(set(self.columns)) != len(self.columns):
            raise ConfigurationError(f"two columns have the same name: {shown}")
        if not shape.prompt:
            raise ConfigurationError(f'a CSV needs --prompt, such as "Classify: {{{self.columns[0]}}}"; it has {shown}')
        if shape.max_tokens is None:
            raise ConfigurationError("a CSV needs --max-tokens: how long an answer may be")
        self._parts = _template(shape.prompt)
        self.id = shape.id or next((each for each in _IDS if each in self.columns), "")
        self.tenant = shape.tenant_column
        wanted = [("--id", self.id), ("--tenant-column", self.tenant)]
        wanted += [("--prompt", field) for _, field in self._parts if field is not None]
        for option, column in wanted:
            if column and column not in self.columns:
                raise ConfigurationError(f"{option}: there is no column {column!r:.80}; there are {shown}")
        if not any(field is not None for _, field in self._parts):
            raise ConfigurationError(
                f"--prompt has no column in it, such as {{{self.columns[0]}}}: each row would be the same"
            )

    def says_something(self, cells: dict[str, str]) -> bool:
        """Whether a row has more to say than every row."""
        return any(cells[field].strip() for _, field in self._parts if field is not None)

    def filled(self, cells: dict[str, str]) -> str:
        """The prompt of a row."""
        return "".join(text + (cells[field] if field is not None else "") for text, field in self._parts)


def _cells(header: str, delimiter: str) -> list[str]:
    row = next(rows_of(iter([Line(1, header)]), delimiter))
    if row.wrong:
        raise ConfigurationError(f"line 1: {row.wrong}")
    return row.cells


def _template(prompt: str) -> list[tuple[str, str | None]]:
    """Texts, each with the column that comes after it."""
    try:
        found = list(string.Formatter().parse(prompt))
    except ValueError as error:
        raise ConfigurationError(f"--prompt: {error}; a brace that is meant is written twice: {{{{ and }}}}") from None
    for _, field, spec, conversion in found:
        if field is not None and (not field.strip() or spec or conversion):
            raise ConfigurationError("--prompt: between braces stands the name of a column, and nothing else")
    return [(text, field.strip() if field is not None else None) for text, field, _, _ in found]


def _parsed(text: str) -> tuple[Any, str]:
    """JSON, or why it is none. What Python alone takes for JSON would make a whole batch unreadable to the API."""
    try:
        found = json.loads(text, parse_constant=_no_number)
        if "\\u" in text:
            json.dumps(found, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return None, "it has half of a surrogate pair, which is no character"
    except RecursionError:
        return None, "it is nested too deep"
    except json.JSONDecodeError as error:
        return None, f"it is no JSON: {error.msg}, at column {error.colno}"
    except ValueError as error:
        return None, f"it is no JSON: {error}"
    return found, ""


def _no_number(name: str) -> NoReturn:
    raise ValueError(f"{name} is no number of JSON")


def _only(found: dict[str, Any], known: tuple[str, ...]) -> None:
    for field in found:
        if field not in known:
            _wrong(f"{field:.80}", f"a line has {', '.join(known)}")


def _id(found: dict[str, Any]) -> str:
    if not isinstance(name := found.get("custom_id"), str) or not name:
        _wrong("custom_id", "it is missing, or is no text")
    return name


def _name(found: dict[str, Any], field: str) -> str | None:
    value = found.get(field)
    if value is not None and (not isinstance(value, str) or not value):
        _wrong(field, "it is a text")
    return value


def _wrong(field: str, why: str) -> NoReturn:
    raise Unmapped(field, why)

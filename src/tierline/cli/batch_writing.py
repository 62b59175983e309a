"""Results of a job as lines of a file: as Anthropic's API writes them, as OpenAI's does, or as a CSV."""

from __future__ import annotations

import csv
import io
import json
import os
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Final, Literal

from tierline.cli.batch_openai import completion_of
from tierline.cli.files import check_out
from tierline.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tierline.batches import BatchResult

Written = Literal["anthropic", "openai", "csv"]
_COLUMNS: Final = (
    "place", "custom_id", "outcome", "text", "stop_reason", "error", "tier", "model", "input_tokens", "output_tokens",
    "cost", "estimated", "tries",
)  # fmt: skip
_FORMULA: Final = ("=", "+", "-", "@", "\t", "\r")
"""How a cell begins that a spreadsheet would compute."""


def header_of(form: Written) -> bytes:
    """What comes before all results."""
    return _row(_COLUMNS) if form == "csv" else b""


def line_of(result: BatchResult, form: Written) -> bytes:
    """A result, with its end. The same result is always the same bytes."""
    message = json.loads(result.raw) if result.raw is not None else None
    if form == "csv":
        return _row(_cells(result, message))
    about = {
        "place": result.place, "outcome": result.outcome, "tier": result.tier, "model": result.model,
        "cost": result.cost, "estimated": result.estimated, "tries": result.tries,
    }  # fmt: skip
    shaped = _anthropic(result, message) if form == "anthropic" else _openai(result, message)
    return json.dumps(shaped | {"tierline": about}, ensure_ascii=False).encode("utf-8", "replace") + b"\n"


def _anthropic(result: BatchResult, message: Any) -> dict[str, Any]:
    if message is not None:
        found: dict[str, Any] = {"type": "succeeded", "message": message}
    elif result.outcome in ("canceled", "expired"):
        found = {"type": result.outcome}
    else:
        kind = {"invalid": "invalid_request_error", "refused": "budget_exceeded_error"}.get(result.outcome, "api_error")
        inner = {"type": kind, "message": result.error or ""}
        found = {"type": "errored", "error": {"type": "error", "error": inner}}
    return {"custom_id": result.custom_id, "result": found}


def _openai(result: BatchResult, message: Any) -> dict[str, Any]:
    name = {"id": f"batch_req_{result.place}", "custom_id": result.custom_id}
    if message is None:
        return name | {"response": None, "error": {"code": result.outcome, "message": result.error or ""}}
    answer = {"status_code": 200, "request_id": message.get("id"), "body": completion_of(message)}
    return name | {"response": answer, "error": None}


def _cells(result: BatchResult, message: Any) -> tuple[object, ...]:
    said = message or {}
    blocks, usage = said.get("content") or [], said.get("usage") or {}
    text = "".join(each.get("text") or "" for each in blocks if each.get("type") == "text")
    return (
        result.place, result.custom_id or "", result.outcome, text, said.get("stop_reason") or "", result.error or "",
        result.tier, result.model, usage.get("input_tokens", ""), usage.get("output_tokens", ""), result.cost,
        int(result.estimated), result.tries,
    )  # fmt: skip


def _row(cells: tuple[object, ...]) -> bytes:
    file = io.StringIO()
    # Whoever wrote a prompt can have an answer that a spreadsheet would run.
    safe = [f"'{each}" if isinstance(each, str) and each.startswith(_FORMULA) else each for each in cells]
    csv.writer(file, lineterminator="\n").writerow(safe)
    return file.getvalue().encode("utf-8", "replace")


class _Resumed:
    """Writes to a file, past what an earlier run has written of the same."""

    def __init__(self, file: IO[bytes], path: Path) -> None:
        self._file, self._path = file, path
        self._there = file.seek(0, os.SEEK_END)
        file.seek(0)

    def __call__(self, line: bytes) -> None:
        at = self._file.tell()
        if at < self._there:
            before = self._file.read(len(line))
            if not line.startswith(before):
                raise ConfigurationError(
                    f"{self._path} is there, and has not what this command writes: remove it, or name another file"
                )
            if len(before) == len(line):
                return
            self._file.seek(at)  # the last line was cut off
            self._file.truncate()
            self._there = at
        self._file.write(line)


@contextmanager
def results_to(out: Path | None, stdout: IO[bytes], *, force: bool) -> Iterator[Callable[[bytes], None]]:
    """Where lines go. A file has `.part` at its end until all of them are there, and goes on where it was cut off.

    ConfigurationError for a file that is there, without `force`, and for a part of something else.
    """
    if out is None:

        def write(line: bytes) -> None:
            stdout.write(line)
            stdout.flush()

        yield write
        return
    check_out(out)
    if out.exists() and not force:
        raise ConfigurationError(f"{out} is there: name another file, or write --force to replace it")
    part = out.with_name(f"{out.name}.part")
    with os.fdopen(os.open(part, os.O_RDWR | os.O_CREAT, 0o600), "r+b") as file:
        yield _Resumed(file, part)
        file.truncate()
        file.flush()
        os.fsync(file.fileno())
    part.replace(out)

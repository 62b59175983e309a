"""The file that a long run of labelling is taken up again from: salted hashes and labels, and no text."""

from __future__ import annotations

import json
import os
import secrets
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from tierline.classify.question import confidence_in
from tierline.errors import ConfigurationError
from tierline.recent import keyed

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

_FORMAT: Final = "tierline labels"
_VERSION: Final = 1
_PURPOSE: Final = b"tierline labels"


class LabelFile:
    """Labels by text, in a file of JSON lines that only grows. A line that is cut off or damaged is passed over.

    Its first line says what it is of: `of` names the labels and the instruction, `secret` may key the hashes besides
    the salt that stands in the file. ConfigurationError where the file is of others, is none of ours, or cannot be
    written. Whoever opens it and writes waits for the disk.
    """

    def __init__(self, path: str | os.PathLike[str], labels: Sequence[str], of: str, secret: bytes) -> None:
        self._path = os.fspath(path)
        self._labels = frozenset(labels)
        self._of, self._secret = of, secret
        self._known: dict[str, tuple[str, float]] = {}
        try:
            self._open()
        except OSError as error:
            raise ConfigurationError(
                f"classify_many(resume={self._path!r:.200}): the file cannot be used ({error.strerror})"
            ) from None

    def find(self, text: str) -> tuple[str, float] | None:
        """The label of a text and how sure it was, where the file has it."""
        return self._known.get(self._key(text))

    def keep(self, found: Iterable[tuple[str, str, float]]) -> None:
        """Write texts (as their hashes), labels and confidences down, in one piece. OSError where that fails."""
        lines = [
            json.dumps({"key": self._key(text), "label": label, "confidence": confidence})
            for text, label, confidence in found
        ]
        self._append("".join(f"{line}\n" for line in lines))

    def _key(self, text: str) -> str:
        digest = self._keyed.copy()
        digest.update(text.encode("utf-8", "surrogatepass"))
        return digest.hexdigest()

    def _use(self, salt: str) -> str:
        """Key the hashes; what a file with this salt says of its secret."""
        self._keyed = keyed(self._secret + bytes.fromhex(salt), _PURPOSE)
        return self._key("")

    def _open(self) -> None:
        with suppress(FileNotFoundError), Path(self._path).open(encoding="utf-8", errors="replace") as file:
            lines = file.read().split("\n")
            if any(lines):
                self._read(lines)
                if lines[-1]:
                    self._append("\n")  # the last line was cut off
                return
        salt = secrets.token_hex(16)
        head = {_FORMAT: _VERSION, "of": self._of, "salt": salt, "check": self._use(salt)}
        self._append(json.dumps(head) + "\n")

    def _read(self, lines: Sequence[str]) -> None:
        head = _object(lines[0])
        salt = head.get("salt")
        try:
            check = self._use(salt) if isinstance(salt, str) else None
        except ValueError:
            check = None
        if head.get(_FORMAT) != _VERSION or check is None:
            raise ConfigurationError(
                f"classify_many(resume={self._path!r:.200}): the file is none of labels that this version reads; "
                "give the path of another one"
            )
        if head.get("of") != self._of or head.get("check") != check:
            raise ConfigurationError(
                f"classify_many(resume={self._path!r:.200}): the file is of other labels, of another instruction or of "
                "a Router with another secret; give the path of another one"
            )
        for line in lines[1:]:
            row = _object(line)
            key, label = row.get("key"), row.get("label")
            if isinstance(key, str) and isinstance(label, str) and label in self._labels:
                self._known[key] = label, confidence_in(row.get("confidence"))

    def _append(self, text: str) -> None:
        # In one write to the end of the file: two runs may share it. Readable by its owner alone.
        file = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        try:
            data = text.encode()
            while data:
                data = data[os.write(file, data) :]
        finally:
            os.close(file)


def _object(line: str) -> dict[str, Any]:
    with suppress(ValueError, RecursionError):
        found = json.loads(line)
        if isinstance(found, dict):
            return found
    return {}

"""The page itself: the files of `static/`, read once. There is no data in them."""

from __future__ import annotations

import base64
import hashlib
from html import escape
from pathlib import Path
from typing import Final, NamedTuple

STATIC: Final = Path(__file__).parent / "static"
_TYPES: Final = {
    # Written down: what a system takes `.js` to be, a browser may refuse to run.
    ".css": "text/css; charset=utf-8",
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
    ".png": "image/png",
    ".txt": "text/plain; charset=utf-8",
}
_OTHER: Final = "application/octet-stream"
_TROUBLE: Final = "<!--trouble-->"


class File(NamedTuple):
    """One file, as it is sent."""

    body: bytes
    type: str
    tag: str


def read_files(folder: Path = STATIC) -> dict[str, File]:
    """Every file below a folder, by its path from there. What is no name here can be asked for by no path."""
    found = {}
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            body = path.read_bytes()
            tag = f'"{hashlib.sha256(body).hexdigest()[:32]}"'
            found[path.relative_to(folder).as_posix()] = File(body, _TYPES.get(path.suffix, _OTHER), tag)
    return found


class Form:
    """The page where people sign in: whole in itself, for nothing else is open before that."""

    def __init__(self, file: File) -> None:
        self._text = file.body.decode()
        style = self._text.partition("<style>")[2].partition("</style>")[0]
        digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
        self.policy = (
            f"default-src 'none'; style-src 'sha256-{digest}'; img-src data:; base-uri 'none'; form-action 'self'; "
            "frame-ancestors 'none'"
        )

    def saying(self, trouble: str) -> str:
        """The page, with what was wrong."""
        return self._text.replace(_TROUBLE, escape(trouble), 1)

"""Lets mkdocs show files of the root as pages, too: a hook of `mkdocs.yml`.

On the forge and in an sdist these files stand at the root, so their links lead into `docs/`, and those of `docs/` lead
out of it. On the site all stand beside each other. What the site does not have is linked to where it is; so is the
README, for the site has a front page of its own.
"""

from __future__ import annotations

import posixpath
import re
from pathlib import Path
from typing import Any, Final

from mkdocs.structure.files import File, Files

ROOT: Final = Path(__file__).parents[1]
SHOWN: Final = {
    "CHANGELOG.md": "CHANGELOG.md",
    "CONTRIBUTING.md": "CONTRIBUTING.md",
    "RELEASING.md": "RELEASING.md",
    "SECURITY.md": "SECURITY.md",
}
"""The files of the root that are pages, and what they are called there."""
_LINK: Final = re.compile(r"(?<=\]\()(?!https?:|#|mailto:)([^)\s#]+)")


def on_files(files: Files, config: Any) -> Files:
    """Add the pages of the root."""
    for name, page in SHOWN.items():
        text = (ROOT / name).read_text(encoding="utf-8")
        files.append(File.generated(config, page, content=text))
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, **_: Any) -> str:
    """Let each link lead where its target is on the site, or at the forge."""
    here = page.file.src_uri
    origin = next((name for name, shown in SHOWN.items() if shown == here), f"docs/{here}")

    def moved(match: re.Match[str]) -> str:
        target = posixpath.normpath(posixpath.join(posixpath.dirname(origin), match[1]))
        if not (ROOT / target).exists():
            return match[1]  # mkdocs says so
        there = SHOWN.get(target) or (target.removeprefix("docs/") if target.startswith("docs/") else "")
        if not there or (ROOT / target).is_dir():
            return f"{config.extra['forge']}/blob/main/{target}"
        return posixpath.relpath(there, posixpath.dirname(here) or ".")

    return _LINK.sub(moved, markdown)

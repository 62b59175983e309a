"""The README as a package index shows it: a hook of the build.

There it stands alone, so that what it links to beside it is linked to at the forge, as it is in the release's tag.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, Final

from hatchling.metadata.plugin.interface import MetadataHookInterface

_LINK: Final = re.compile(r"(?P<image>!?)(?P<text>\[[^\]]*\]\()(?!https?:|#|mailto:)(?P<target>[^)\s]+)")


class LongDescription(MetadataHookInterface):
    """Writes `readme` into the metadata. The forge is the one that `project.urls` names."""

    def update(self, metadata: dict[str, Any]) -> None:
        """Called by hatchling for every wheel and sdist."""
        text = (Path(self.root) / "README.md").read_text("utf-8")
        forge = metadata["urls"]["Repository"]
        metadata["readme"] = {
            "content-type": "text/markdown",
            "text": standing_alone(text, forge, f"v{metadata['version']}"),
        }


def standing_alone(text: str, forge: str, tag: str) -> str:
    """A page of the repository's root with links that lead somewhere from anywhere: pictures to their bytes."""

    def moved(match: re.Match[str]) -> str:
        kind = "raw" if match["image"] else "blob"
        return f"{match['image']}{match['text']}{forge}/{kind}/{tag}/{match['target']}"

    return _LINK.sub(moved, text)

"""An outcome model that notes what it is told."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tierline.learn import OutcomeModel

if TYPE_CHECKING:
    from collections.abc import Iterable

    from tierline.learn.outcomes import Evidence


class Recording(OutcomeModel):
    """`absorbed` is what it was told since it was made, or began again."""

    def __init__(self, tiers: tuple[str, ...] = ("haiku", "sonnet", "opus"), **options: object) -> None:
        super().__init__(tiers, **options)  # type: ignore[arg-type]
        self.absorbed: list[Evidence] = []
        self.restarts = 0

    def absorb(self, evidence: Evidence) -> None:
        self.absorbed.append(evidence)
        super().absorb(evidence)

    def absorb_all(self, evidence: Iterable[Evidence]) -> None:
        evidence = list(evidence)
        self.absorbed += evidence
        super().absorb_all(evidence)

    def restart(self) -> None:
        self.restarts += 1
        self.absorbed = []
        super().restart()


def features(text: str, tools: int = 0) -> bytes:
    """What is kept of a text."""
    return OutcomeModel().features(text, tools)

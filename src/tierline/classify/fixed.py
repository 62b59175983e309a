"""A classifier that says the same of everything: for tests, for one-sided routes, and as the last of a cascade."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tierline.classify.base import check_confidence, check_labels, fingerprint_of
from tierline.values import Classification

if TYPE_CHECKING:
    from tierline.classify.base import Consult
    from tierline.values import View


class FixedClassifier:
    """Always `label`, with `confidence` (0 to 1). Raises `ConfigurationError` for a label or number that cannot be."""

    name = "fixed"
    cacheable = False

    def __init__(self, label: str, confidence: float = 1.0) -> None:
        check_labels((label,))
        check_confidence("FixedClassifier(confidence=…)", confidence)
        self.fingerprint = fingerprint_of(self.name, label, confidence)
        self._answer = Classification(label, confidence, "fixed")

    async def classify(self, view: View, consult: Consult) -> Classification | None:  # noqa: ARG002
        """Say what was configured. Asks nobody."""
        return self._answer

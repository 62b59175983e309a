"""A build fails where a classifier got worse."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from tierline.classify import FixedClassifier, KeywordClassifier
from tierline.errors import ConfigurationError
from tierline.testing import assert_quality

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def labels(tmp_path: Path) -> Path:
    """A hundred rows, of which ten are complex."""
    path = tmp_path / "labels.jsonl"
    rows = [{"id": f"r{n}", "text": f"secret {n}", "label": "complex" if n % 10 == 0 else "simple"} for n in range(100)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_what_is_good_enough_passes(labels: Path) -> None:
    """Bounds that hold, each of them and all together."""
    assert_quality(FixedClassifier("simple"), labels, min_agreement=0.9, max_too_cheap=0.1, max_price=0.2)
    assert_quality(FixedClassifier("complex"), str(labels), max_too_cheap=0)


def test_what_is_not_fails_readably(labels: Path) -> None:
    """Every bound that does not hold, with its interval, and the worst rows by their ids."""
    with pytest.raises(AssertionError) as failed:
        assert_quality(FixedClassifier("simple"), labels, min_agreement=0.95, max_too_cheap=0.05, max_price=0.2)
    told = str(failed.value)
    assert "fixed on" in told
    assert "agreement is 0.900 [0.826, 0.945], and must be at least 0.95" in told
    assert "too cheap is 0.100 [0.055, 0.174], and must be at most 0.05" in told
    assert "price" not in told
    assert "    r0\n" in told
    assert "secret" not in told
    assert "no opinion" not in told
    with pytest.raises(AssertionError, match="r0: 'secret 0'"):
        assert_quality(FixedClassifier("simple"), labels, min_agreement=0.95, texts=True)


def test_silence_is_told(labels: Path) -> None:
    """Rows without an opinion are no agreement, and a failure says how many there are."""
    with pytest.raises(AssertionError, match=r"on 100 rows it has no opinion \(Claude is not asked here\)") as failed:
        assert_quality(KeywordClassifier(), labels, min_agreement=0.95)
    assert "agreement is 0.000" in str(failed.value)


def test_few_rows_are_not_enough_to_be_sure(labels: Path) -> None:
    """With `sure` the end of the interval must hold."""
    assert_quality(FixedClassifier("simple"), labels, min_agreement=0.85)
    with pytest.raises(AssertionError, match=r"must be at least 0\.85"):
        assert_quality(FixedClassifier("simple"), labels, min_agreement=0.85, sure=True)


def test_outcomes(tmp_path: Path) -> None:
    """APGR of one who sends the hard ones first is high, and of one who cannot tell is chance."""
    path = tmp_path / "graded.jsonl"
    hard = "Prove step by step that the algorithm terminates, then refactor the architecture."
    rows = [{"id": str(n), "text": (hard, "hi")[n % 2], "good": {"haiku": n % 2, "opus": 1}} for n in range(60)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert_quality(KeywordClassifier(), path, min_apgr=0.7)
    with pytest.raises(AssertionError, match=r"APGR is 0\.500 .*at least 0\.51"):
        assert_quality(FixedClassifier("simple"), path, min_apgr=0.51)


def test_nothing_to_hold(labels: Path, tmp_path: Path) -> None:
    """No bound, or none that the rows can say anything of, is a mistake and no success."""
    with pytest.raises(ConfigurationError, match="holds nothing"):
        assert_quality(None, labels)
    with pytest.raises(ConfigurationError, match="no rows with grades on two tiers"):
        assert_quality(None, labels, min_apgr=0.5)
    graded: dict[str, Any] = {"text": "x", "tier": "haiku", "good": 1}
    (tmp_path / "g.jsonl").write_text(json.dumps(graded))
    with pytest.raises(ConfigurationError, match="no rows with labels"):
        assert_quality(None, tmp_path / "g.jsonl", min_agreement=0.5)

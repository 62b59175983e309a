from __future__ import annotations

import inspect
import json
import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tierline import errors
from tierline.errors import (
    BudgetExceededError,
    ConfigurationError,
    IllegalRequestError,
    LedgerUnavailableError,
    TierlineError,
    UnknownModelError,
)
from tierline.values import Refusal

SECRET = "tenant-of-mrs-smith"


def refusal(renews_in: float | None, needed: int | None = 5) -> Refusal:
    return Refusal("b", SECRET, 10, 10, 0, needed, renews_in, "" if needed else "it has no bound")


def test_one_base() -> None:
    """Every error that somebody may be told of is a TierlineError, and every one ends in Error."""
    found = [e for _, e in inspect.getmembers(errors, inspect.isclass) if issubclass(e, BaseException)]
    assert len(found) == 8
    assert [e for e in found if not issubclass(e, TierlineError)] == [errors.ClientGoneError]
    assert all(e.__name__.endswith("Error") for e in found)


@given(st.one_of(st.none(), st.floats(0, 1e9)))
def test_a_budget_that_renews_is_429(renews_in: float | None) -> None:
    """A client is told to wait, at least a second and never too short, exactly where waiting helps."""
    error = BudgetExceededError(refusal(renews_in))
    if renews_in is None:
        assert error.http_status == 402
        assert error.http_headers == {}
    else:
        assert error.http_status == 429
        assert int(error.http_headers["retry-after"]) >= max(1, renews_in)
        assert int(error.http_headers["retry-after"]) < renews_in + 2


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (TierlineError("x"), 500),
        (ConfigurationError("x"), 500),
        (UnknownModelError("x"), 500),
        (IllegalRequestError("x"), 500),
        (LedgerUnavailableError("x"), 503),
        (BudgetExceededError(refusal(None)), 402),
        (BudgetExceededError(refusal(1.0)), 429),
    ],
)
def test_the_problem_document(error: TierlineError, status: int) -> None:
    """The body of the answer is JSON, agrees with the status, and repeats nothing of the message."""
    document = json.loads(json.dumps(error.problem))
    assert document["status"] == error.http_status == status
    assert document["type"] == "about:blank"
    assert document["title"]
    assert str(error) not in json.dumps(document)
    assert SECRET not in json.dumps(document)


def test_no_account_in_the_message() -> None:
    """An account may name a person: the message of a refusal leaves it out."""
    assert SECRET not in str(BudgetExceededError(refusal(3.0)))
    assert SECRET not in str(BudgetExceededError(refusal(3.0, None)))


def test_errors_cross_processes() -> None:
    """A refusal that was pickled has its numbers still."""
    back = pickle.loads(pickle.dumps(BudgetExceededError(refusal(3.0))))  # noqa: S301  (our own)
    assert back.refusal == refusal(3.0)
    assert back.http_status == 429
    assert str(back) == str(BudgetExceededError(refusal(3.0)))

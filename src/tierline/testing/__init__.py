"""For tests and demos: the Messages API offline, assertions on calls, and what parts of your own must do."""

from tierline.testing._answer import Reply
from tierline.testing._asserting import assert_refused, assert_spent, assert_tier
from tierline.testing._calls import Calls
from tierline.testing._faults import OK, Fault
from tierline.testing._log import Received
from tierline.testing._offline import offline
from tierline.testing._quality import assert_quality
from tierline.testing.conformance import LedgerConformance
from tierline.testing.fake import FakeClaude
from tierline.testing.recorded import NotRecordedError, RecordedAnswers

__all__ = [
    "OK",
    "Calls",
    "FakeClaude",
    "Fault",
    "LedgerConformance",
    "NotRecordedError",
    "Received",
    "RecordedAnswers",
    "Reply",
    "assert_quality",
    "assert_refused",
    "assert_spent",
    "assert_tier",
    "offline",
]

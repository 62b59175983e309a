"""For tests and demos: the Messages API offline, what every ledger must do, and how good a classifier must be."""

from tierline.testing._answer import Reply
from tierline.testing._faults import OK, Fault
from tierline.testing._log import Received
from tierline.testing._quality import assert_quality
from tierline.testing.conformance import LedgerConformance
from tierline.testing.fake import FakeClaude

__all__ = ["OK", "FakeClaude", "Fault", "LedgerConformance", "Received", "Reply", "assert_quality"]

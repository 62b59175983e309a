"""For tests and demos: the Messages API offline, and what every ledger must do."""

from tierline.testing._answer import Reply
from tierline.testing._faults import OK, Fault
from tierline.testing._log import Received
from tierline.testing.conformance import LedgerConformance
from tierline.testing.fake import FakeClaude

__all__ = ["OK", "FakeClaude", "Fault", "LedgerConformance", "Received", "Reply"]

"""For tests and demos: the Messages API offline."""

from tierline.testing._answer import Reply
from tierline.testing._faults import OK, Fault
from tierline.testing._log import Received
from tierline.testing.fake import FakeClaude

__all__ = ["OK", "FakeClaude", "Fault", "Received", "Reply"]

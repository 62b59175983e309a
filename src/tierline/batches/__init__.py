"""Work that can wait, for half the price: Message Batches, routed and within the budgets. See `Router.batches`."""

from tierline.batches.previewing import Estimate, Preview, Room
from tierline.batches.queue import Queue
from tierline.batches.queue.values import Deferred
from tierline.batches.values import BatchRequest, BatchResult, BatchStatus, JobReport, JobShare, Unreadable

__all__ = [
    "BatchRequest",
    "BatchResult",
    "BatchStatus",
    "Deferred",
    "Estimate",
    "JobReport",
    "JobShare",
    "Preview",
    "Queue",
    "Room",
    "Unreadable",
]

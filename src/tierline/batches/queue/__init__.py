"""Requests that are deferred one by one: a queue that fills batches, and calls where a deadline comes near.

See `Batches.defer`.
"""

from tierline.batches.queue.settings import Queue

__all__ = ["Queue"]

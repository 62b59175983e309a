"""Verdicts that outlive a process: the second level of the verdict cache, in the store of the balances."""

from tierline.verdicts.store import StoredVerdicts

__all__ = ["StoredVerdicts"]

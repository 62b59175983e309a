"""An opt-in log of what was decided: one record for each call, in JSON lines or SQLite."""

from tierline.decisionlog.log import DecisionLog
from tierline.decisionlog.record import SCHEMA, record_of

__all__ = ["SCHEMA", "DecisionLog", "record_of"]

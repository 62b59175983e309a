"""Tierline: tier routing, a verdict cache, budgets and traces for any ASGI app that calls Claude."""

import logging

from tierline.binding import Binding, current
from tierline.budgets import Budget
from tierline.ladder import Ladder, Tier
from tierline.policies import Policy, policy
from tierline.report import Report
from tierline.router import Router
from tierline.values import Decision

__all__ = [
    "Binding",
    "Budget",
    "Decision",
    "Ladder",
    "Policy",
    "Report",
    "Router",
    "Tier",
    "current",
    "policy",
]
__version__ = "0.1.0"

# An app that has set up no logging sees nothing of ours, not even on stderr.
logging.getLogger("tierline").addHandler(logging.NullHandler())

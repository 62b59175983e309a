"""Escalation: what is checked of an answer before the app gets it, and where a chain of tiers begins. Pure."""

from tierline.escalation.rules import Escalate

__all__ = ["Escalate"]

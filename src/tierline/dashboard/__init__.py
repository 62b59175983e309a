"""The page where the money is: what is spent, on what, and what was decided. One app to mount, of any ASGI app."""

from tierline.dashboard.app import dashboard

__all__ = ["dashboard"]

"""Packages that are tested with, and not needed otherwise."""

from __future__ import annotations

import importlib
import os

import pytest


def need(*packages: str) -> None:
    """Skip the tests of a module where a package is not installed. Never in CI: there it is an error."""
    for package in packages:
        if os.environ.get("CI"):
            importlib.import_module(package)
        else:
            pytest.importorskip(package, exc_type=ImportError)

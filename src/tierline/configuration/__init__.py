"""A Router that is set up in a file: `tierline.toml`, or `[tool.tierline]` of `pyproject.toml`."""

from tierline.configuration.loading import Configuration, load

__all__ = ["Configuration", "load"]

"""The files of the page: what others made is unmodified, and nothing leads anywhere else."""

from __future__ import annotations

import hashlib
import re

import pytest

from tierline.dashboard.files import STATIC

VENDORED = {
    # npm: uplot 1.6.32
    "uPlot.iife.min.js": "19c8d4c6ad88929a79f4ae49d6f7161566dfd0ba3d15cc495e974f787eb78f1f",
    "uPlot.min.css": "df630c6a8d6f8eeaff264b50f73ce5b114f646ffd9a0bb74f049b0a00135fa04",
    "uPlot.LICENSE.txt": "8f989229699b4fe2f1a0432d0e9edc338a8a911e250e2d1b01ecd770a5f5b1bd",
    # npm: preact 11.2.0, dist/preact.mjs
    "preact.js": "bdcbd9abdf2c77c5c45326eab42191e949222d479d0d5f69467387a77040cb55",
    "preact.LICENSE.txt": "1fe6958409c8c257a70c587a18b6f7f412b179b456630790d30b2ec9a8e4b7d4",
}
OWN = sorted(path.name for path in STATIC.iterdir() if path.is_file())


def test_vendored_files_are_unmodified() -> None:
    """They are to the byte what their packages have, and none is there that nobody knows."""
    found = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in (STATIC / "vendor").iterdir()}
    del found["README.txt"]
    assert found == VENDORED


@pytest.mark.parametrize("name", OWN)
def test_nothing_leads_elsewhere(name: str) -> None:
    """No file names another host, and what it loads is there."""
    text = (STATIC / name).read_text("utf-8")
    assert [url for url in re.findall(r"(?:https?:)?//[\w.-]+\.\w+", text) if "www.w3.org" not in url] == []
    for path in re.findall(r'from "\./([^"]+)"', text) + re.findall(r'(?:src|href)="static/([^"]+)"', text):
        assert (STATIC / path).is_file(), path


@pytest.mark.parametrize("name", [name for name in OWN if name.endswith((".js", ".html"))])
def test_names_can_only_be_text(name: str) -> None:
    """Nothing makes markup or code of text, and no script or style stands in the markup of the page."""
    text = (STATIC / name).read_text("utf-8")
    assert not re.search(r"innerHTML|outerHTML|insertAdjacent|document\.write|\beval\b|new Function", text)
    if name == "index.html":
        assert not re.search(r"<style|<script(?![^>]*\ssrc=)|\sstyle=|\son\w+=", text)

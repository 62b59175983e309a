"""Handles: good for one grade of one answer, and nothing can be read out of them."""

from __future__ import annotations

import base64
import secrets

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tierline.learn.handles import Grip, Handles

SECRET = bytes(range(32))
GRIP = Grip("0a1b2c3d4e5f6071-12", "/contracts/{id}", "haiku", "ab" * 16, bytes(range(60)), 2_000_000_000)

names = st.text(st.characters(exclude_categories=["Cs"]), max_size=60)


@given(
    st.builds(
        Grip, names, names, names, st.binary(max_size=32).map(bytes.hex), st.binary(max_size=200), st.integers(1, 2**39)
    )
)
def test_a_handle_says_what_it_was_made_of(grip: Grip) -> None:
    """Any content comes back whole, from another process with the same secret."""
    handle = Handles(SECRET).make(grip)
    assert Handles(SECRET).read(handle, grip.until - 1) == grip
    assert handle == Handles(SECRET).make(grip)
    assert set(handle) <= set("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_")


@given(st.integers(0), st.integers(1, 255))
def test_no_bit_can_be_changed(at: int, flip: int) -> None:
    """Not one byte of it, wherever it is."""
    handles = Handles(SECRET)
    sealed = bytearray(base64.urlsafe_b64decode(handles.make(GRIP) + "=="))
    sealed[at % len(sealed)] ^= flip
    assert handles.read(base64.urlsafe_b64encode(sealed).rstrip(b"=").decode(), 0) is None


@given(
    st.one_of(
        st.text(max_size=200),
        st.binary(max_size=200).map(lambda raw: base64.urlsafe_b64encode(raw).decode()),
        st.none(),
        st.integers(),
        st.binary(),
    )
)
def test_anything_else_is_nothing(handle: object) -> None:
    """Whatever a client sends, it is read as no handle, and nothing is raised."""
    assert Handles(SECRET).read(handle, 0) is None


@pytest.mark.parametrize("change", [lambda h: h[:-1], lambda h: h + "A", lambda h: h[1:], lambda h: h * 50])
def test_parts_of_it_are_nothing(change) -> None:
    """One that was cut, or is more than it was."""
    handles = Handles(SECRET)
    assert handles.read(change(handles.make(GRIP)), 0) is None


def test_it_expires() -> None:
    """From the moment that it carries on."""
    handles = Handles(SECRET)
    handle = handles.make(GRIP)
    assert handles.read(handle, GRIP.until - 0.1) == GRIP
    assert handles.read(handle, GRIP.until) is None


def test_another_secret_knows_nothing_of_it() -> None:
    """A handle of another Router is none."""
    assert Handles(secrets.token_bytes(32)).read(Handles(SECRET).make(GRIP), 0) is None


def test_nothing_can_be_read_out_of_it() -> None:
    """Neither names nor features stand in it, and handles that differ in one letter have nothing in common."""
    sealed = [
        base64.urlsafe_b64decode(Handles(SECRET).make(grip) + "==")
        for grip in (GRIP, GRIP._replace(tier="haikv"), GRIP._replace(id="0a1b2c3d4e5f6071-13"))
    ]
    for each in sealed:
        for word in (b"contracts", b"haik", b"0a1b2c", bytes.fromhex("abab"), GRIP.features[:8]):
            assert word not in each
    for other in sealed[1:]:
        same = sum(one == two for one, two in zip(sealed[0], other, strict=True))
        assert same < len(other) / 4

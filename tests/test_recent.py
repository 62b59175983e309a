"""What was seen lately, and no more of it than there is room for."""

from __future__ import annotations

from tierline.recent import Recent, keyed


def test_recent_is_bounded() -> None:
    """What was used longest ago makes room."""
    kept: Recent[str, int] = Recent(2)
    for number, key in enumerate("ab"):
        kept.keep(key, number)
    assert kept.find("a") == 0
    kept.keep("c", 2)
    assert (kept.find("a"), kept.find("b"), kept.find("c")) == (0, None, 2)


def test_keyed_hashes_need_the_secret_and_keep_purposes_apart() -> None:
    """Another secret, however long, or another purpose gives another hash; a text of its own another one."""
    long = b"secret" * 50
    states = [keyed(b"secret", b"a"), keyed(b"secret", b"b"), keyed(b"another", b"a"), keyed(long, b"a")]
    assert len({state.digest() for state in states}) == 4
    assert keyed(long, b"a").digest() == states[-1].digest()
    states[0].update(b"text")
    assert states[0].digest() != keyed(b"secret", b"a").digest()
    assert states[0].digest_size == 16

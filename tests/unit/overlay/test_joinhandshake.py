"""The join handshake without I/O: only one K, on one connection, in the two roles, makes a membership."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hived.overlay.joinhandshake import CONFIRM_BYTES, SHARE_BYTES, Binding, JoinHandshake, JoinRuns
from hived.overlay.wire import ProtocolError

K = b"k" * 32
BINDING = Binding(b"n" * 32, "alice", "bob", b"h" * 32)


def agree(one: JoinHandshake, other: JoinHandshake) -> tuple[bool, bool]:
    """Exchange shares; whether each takes the other's proof."""
    one.finish(other.share)
    other.finish(one.share)
    return other.verify(one.confirmation), one.verify(other.confirmation)


def pair(key: bytes = K, binding: Binding = BINDING) -> tuple[JoinHandshake, JoinHandshake]:
    return JoinHandshake(K, BINDING, opener=True), JoinHandshake(key, binding, opener=False)


def test_the_same_key_on_the_same_connection() -> None:
    one, other = pair()
    assert (len(one.share), len(one.share)) == (SHARE_BYTES, SHARE_BYTES)
    assert agree(one, other) == (True, True)
    assert len(one.confirmation) == CONFIRM_BYTES
    assert one.confirmation != other.confirmation


def test_another_key() -> None:
    assert agree(*pair(key=b"l" * 32)) == (False, False)


@pytest.mark.parametrize(
    "changed",
    [
        {"network_id": b"m" * 32},
        {"opener": "eve"},
        {"answerer": "eve"},
        {"handshake_hash": b"i" * 32},
        {"handshake_hash": b""},
        {"opener": "bob", "answerer": "alice"},
        {"opener": "alic", "answerer": "ebob"},
    ],
)
def test_another_connection(changed: dict[str, bytes | str]) -> None:
    """A man in the middle relays between two connections: their hashes or peers differ."""
    assert agree(*pair(binding=replace(BINDING, **changed))) == (False, False)  # type: ignore[arg-type]


def test_two_of_one_role() -> None:
    for opener in (True, False):
        one, other = (JoinHandshake(K, BINDING, opener=opener) for _ in range(2))
        with pytest.raises(ProtocolError):
            one.finish(other.share)


def test_a_reflected_share_or_proof() -> None:
    one, other = pair()
    with pytest.raises(ProtocolError):
        one.finish(one.share)
    one, other = pair()
    one.finish(other.share)
    assert not one.verify(one.confirmation)


def test_a_replayed_handshake() -> None:
    """What an eavesdropper recorded opens nothing later: each side draws anew."""
    one, other = pair()
    agree(one, other)
    later = JoinHandshake(K, BINDING, opener=False)
    later.finish(one.share)
    assert not later.verify(one.confirmation)


@given(
    st.binary(max_size=40)
    | st.binary(min_size=SHARE_BYTES, max_size=SHARE_BYTES)
    | st.binary(min_size=32, max_size=32).map(lambda b: b"B" + b)
)
def test_any_share_is_refused_or_leads_nowhere(share: bytes) -> None:
    """ProtocolError and nothing else; or a secret that the sender cannot prove."""
    one = JoinHandshake(K, BINDING, opener=True)
    try:
        one.finish(share)
    except ProtocolError:
        return
    assert not one.verify(bytes(CONFIRM_BYTES))


@pytest.mark.parametrize(
    "point", [bytes(32), b"\x01" + bytes(31), b"\xff" * 32, b"\xec" + b"\xff" * 30 + b"\x7f"]
)
def test_points_of_small_order(point: bytes) -> None:
    """Zero, one, minus one and what is no point at all."""
    with pytest.raises(ProtocolError):
        JoinHandshake(K, BINDING, opener=True).finish(b"B" + point)


DONE = pair()
agree(*DONE)


@given(st.binary(max_size=40) | st.binary(min_size=CONFIRM_BYTES, max_size=CONFIRM_BYTES))
def test_any_confirmation_is_refused(proof: bytes) -> None:
    assert not DONE[0].verify(proof)
    assert not DONE[1].verify(proof)


PARTS = st.binary(max_size=6)
TEXTS = st.text(max_size=6)


@given(st.tuples(PARTS, TEXTS, TEXTS, PARTS), st.tuples(PARTS, TEXTS, TEXTS, PARTS))
def test_bindings_are_unambiguous(
    one: tuple[bytes, str, str, bytes], other: tuple[bytes, str, str, bytes]
) -> None:
    assert (Binding(*one).encode() == Binding(*other).encode()) == (one == other)


OLD, NEW, OTHER = b"o" * 32, b"n" * 32, b"x" * 32


@pytest.mark.parametrize(
    ("opener", "answerer", "match"),
    [
        ([OLD], [OLD], OLD),
        ([OLD], [OLD, NEW], OLD),
        ([NEW], [OLD, NEW], NEW),
        ([OLD, NEW], [OLD], OLD),
        ([OLD, NEW], [NEW], NEW),
        ([OLD, NEW], [OLD, NEW], NEW),
        ([OLD, NEW], [OTHER], None),
        ([OLD, NEW], [OLD, OTHER], OLD),
        ([OTHER], [OLD, NEW], None),
    ],
)
def test_two_keys_on_either_side(opener: list[bytes], answerer: list[bytes], match: bytes | None) -> None:
    """While a network is rekeyed the newest key that both have counts."""
    one = JoinRuns(opener, BINDING, opener=True)
    other = JoinRuns(answerer, BINDING, opener=False)
    assert len(list(other.finish(one.shares))) == len(list(one.finish(other.shares)))
    pair = other.matching(one.confirmations)
    assert (None if pair is None else answerer[other.own_key(pair)]) == match
    if pair is not None:
        assert one.verify(pair, other.confirmations[pair])
        assert opener[one.own_key(pair)] == match
        assert not one.verify(pair, one.confirmations[pair])
    assert not one.verify(len(other.confirmations), b"p" * 32)
    assert not one.verify(-1, other.confirmations[-1])


def test_the_number_of_shares_is_bounded() -> None:
    share = JoinHandshake(K, BINDING, opener=True).share
    for shares in ([], [share] * 3, [b"\x00" * 33]):
        with pytest.raises(ProtocolError):
            list(JoinRuns([OLD, NEW], BINDING, opener=False).finish(shares))

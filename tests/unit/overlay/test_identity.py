"""Identity strings: whoever signed is who is meant, and anything else is one clear line."""

from __future__ import annotations

import base64
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st
from libp2p.crypto.rsa import create_new_key_pair as create_rsa
from libp2p.peer.envelope import seal_record
from libp2p.peer.id import ID
from libp2p.peer.peer_record import PeerRecord
from multiaddr import Multiaddr

from hived.errors import HiveError, Kind
from hived.overlay import identity
from hived.overlay.identity import Identity, parse_identity

ALICE = Identity.from_seed(b"a" * 32)
BOB = Identity.from_seed(b"b" * 32)
ADDRESSES = ["/ip4/1.2.3.4/tcp/4483", "/dns/box.example/tcp/1"]


def encode(envelope: bytes) -> str:
    return base64.urlsafe_b64encode(envelope).rstrip(b"=").decode()


def refused(text: str) -> str:
    with pytest.raises(HiveError) as caught:
        parse_identity(text)
    assert caught.value.kind is Kind.USAGE
    return caught.value.why


def test_round_trip() -> None:
    text = ALICE.string(ADDRESSES)
    assert not set(text) & set("+/=\n ")
    found = parse_identity(text)
    assert (found.peer_id, found.addresses) == (ALICE.peer_id, tuple(ADDRESSES))
    assert parse_identity(f"  {text[:40]}\n{text[40:]}\n") == found  # as a mail may break it


@given(st.binary(min_size=32, max_size=32))
def test_a_seed_is_one_identity(seed: bytes) -> None:
    one = Identity.from_seed(seed)
    assert one.peer_id == Identity.from_seed(seed).peer_id
    assert identity.is_peer_id(one.peer_id)


@given(st.text() | st.binary(max_size=300).map(encode))
def test_any_text_is_refused(text: str) -> None:
    refused(text)


@given(st.data())
def test_no_altered_string_says_something_else(data: st.DataObject) -> None:
    text = ALICE.string(ADDRESSES)
    at = data.draw(st.integers(0, len(text) - 1))
    other = data.draw(st.sampled_from("ABCDEFGHabcdefgh0123456789-_"))
    try:
        found = parse_identity(text[:at] + other + text[at + 1 :])
    except HiveError as error:
        if error.kind is not Kind.USAGE:
            raise
    else:
        assert found == parse_identity(text)


@given(st.integers(0, 400))
def test_a_string_cut_short(end: int) -> None:
    text = ALICE.string(ADDRESSES)
    if end < len(text) - 1:
        refused(text[:end])


def test_signed_by_another() -> None:
    record = PeerRecord(ID.from_string(BOB.peer_id), [Multiaddr(ADDRESSES[0])], time.time_ns())
    assert "not signed by the node" in refused(
        encode(seal_record(record, ALICE.key_pair.private_key).marshal_envelope())
    )


def test_a_key_that_is_not_ed25519() -> None:
    pair = create_rsa()
    record = PeerRecord(ID.from_pubkey(pair.public_key), [], time.time_ns())
    refused(encode(seal_record(record, pair.private_key).marshal_envelope()))


def test_addresses_that_cannot_be_dialled_are_left_out() -> None:
    mixed = ["/ip4/1.2.3.4/udp/1/quic", *ADDRESSES, ADDRESSES[0]]
    assert parse_identity(ALICE.string(mixed)).addresses == tuple(ADDRESSES)
    many = [f"/ip4/1.2.3.4/tcp/{port}" for port in range(1, 60)]
    assert parse_identity(ALICE.string(many)).addresses == tuple(many[:32])
    assert identity.usable_addresses(["nonsense", "", "/ip4/1.2.3.4/tcp/1/p2p/" + BOB.peer_id]) == [
        "/ip4/1.2.3.4/tcp/1"
    ]


@given(
    st.text()
    | st.text(alphabet="123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz", max_size=44).map(
        lambda t: "12D3KooW" + t
    )
)
def test_peer_ids(text: str) -> None:
    """Only what decodes to an Ed25519 key of 32 bytes is one."""
    if identity.is_peer_id(text):
        assert str(ID.from_string(text)) == text


@pytest.mark.parametrize(
    "text",
    ["", "12D3KooW", ALICE.peer_id[:-1], ALICE.peer_id + "1", ALICE.peer_id[:-1] + "0", "Qm" + "a" * 44],
)
def test_what_is_no_peer_id(text: str) -> None:
    assert not identity.is_peer_id(text)

"""A record speaks for its author only: nothing forged, altered or of another network is believed."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from libp2p.peer.envelope import Envelope, make_unsigned

from hived.overlay import records
from hived.overlay.identity import Identity
from hived.overlay.networkkeys import network_id
from hived.overlay.ranges import MAX_SEQUENCE
from hived.overlay.records import DOMAIN, MAX_ENVELOPE, PAYLOAD_TYPE, NodeRecord
from hived.overlay.wire import ProtocolError

ALICE = Identity.from_seed(b"a" * 32)
BOB = Identity.from_seed(b"b" * 32)
NET = network_id("net")


def record(**changes: Any) -> NodeRecord:
    values: dict[str, Any] = {
        "network": NET,
        "peer_id": ALICE.peer_id,
        "name": "alice",
        "seq": 7,
        "issued": 1.0,
    }
    values |= {"addresses": ["/ip4/1.2.3.4/tcp/5"], "version": "1", "nonce": b"n"}
    return NodeRecord(**{**values, **changes})


SIGNED = records.sign(record(), ALICE.key_pair)


def sealed(payload: bytes, domain: str = DOMAIN, kind: bytes = PAYLOAD_TYPE, by: Identity = ALICE) -> bytes:
    signature = by.key_pair.private_key.sign(make_unsigned(domain, kind, payload))
    return Envelope(by.key_pair.public_key, kind, payload, signature).marshal_envelope()


def refused(envelope: bytes, network: bytes = NET) -> str:
    with pytest.raises(ProtocolError) as caught:
        records.verify(envelope, network)
    return str(caught.value)


def test_round_trip() -> None:
    found = records.verify(SIGNED.envelope, NET)
    assert found.record == record()
    assert found.envelope == SIGNED.envelope


@given(st.data())
def test_an_altered_envelope_is_refused_or_says_the_same(data: st.DataObject) -> None:
    """Any byte changed, cut out or put in; protobuf has redundant spellings, the record has not."""
    at = data.draw(st.integers(0, len(SIGNED.envelope)))
    cut = data.draw(st.integers(0, 3))
    new = data.draw(st.binary(max_size=3))
    altered = SIGNED.envelope[:at] + new + SIGNED.envelope[at + cut :]
    try:
        found = records.verify(altered, NET)
    except ProtocolError:
        return
    assert found.record == record()


@given(st.binary(max_size=300))
def test_garbage(envelope: bytes) -> None:
    refused(envelope)


@given(st.binary(max_size=200))
def test_a_signed_payload_that_is_no_record(payload: bytes) -> None:
    refused(sealed(payload))


def test_another_network() -> None:
    assert "another network" in refused(SIGNED.envelope, network_id("other"))


def test_another_author() -> None:
    """Bob signs what claims to be Alice's."""
    assert "did not sign" in refused(records.sign(record(), BOB.key_pair).envelope)


def test_another_domain_or_type() -> None:
    payload = msgspec.msgpack.encode(record())
    records.verify(sealed(payload), NET)
    refused(sealed(payload, domain="libp2p-peer-record"))
    refused(sealed(payload, kind=b"/hive/other/1"))


def test_another_nodes_key_in_the_envelope() -> None:
    payload = msgspec.msgpack.encode(record())
    signature = BOB.key_pair.private_key.sign(make_unsigned(DOMAIN, PAYLOAD_TYPE, payload))
    refused(Envelope(ALICE.key_pair.public_key, PAYLOAD_TYPE, payload, signature).marshal_envelope())


@pytest.mark.parametrize(
    "changes",
    [
        {"name": ""},
        {"name": "a b"},
        {"name": "\x1b[2J"},
        {"name": "a" * 64},
        {"seq": 0},
        {"seq": -1},
        {"seq": MAX_SEQUENCE},
        {"version": "x" * 65},
        {"issued": float("nan")},
        {"issued": float("inf")},
        {"issued": -1.0},
        {"issued": 1e300},
    ],
)
def test_malformed_fields(changes: dict[str, Any]) -> None:
    assert "malformed" in refused(records.sign(record(**changes), ALICE.key_pair).envelope)


def test_limits_that_still_fit() -> None:
    for changes in ({"seq": 1}, {"seq": MAX_SEQUENCE - 1}, {"name": "a" * 63}, {"issued": 0.0}):
        records.verify(records.sign(record(**changes), ALICE.key_pair).envelope, NET)


def test_the_size_is_bounded() -> None:
    huge = record(capabilities=["x" * 60] * (MAX_ENVELOPE // 60))
    assert "bytes" in refused(records.sign(huge, ALICE.key_pair).envelope)


def test_only_usable_addresses_stay() -> None:
    addresses = ["/ip4/1.2.3.4/udp/1", "x", *(f"/ip4/1.2.3.4/tcp/{n}" for n in range(1, 50))]
    found = records.verify(records.sign(record(addresses=addresses), ALICE.key_pair).envelope, NET)
    assert found.record.addresses == [f"/ip4/1.2.3.4/tcp/{n}" for n in range(1, 33)]

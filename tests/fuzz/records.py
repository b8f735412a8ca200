"""Node records: whatever an envelope holds, it verifies with sane fields or is a ProtocolError.

First byte: the rest is an envelope; a payload that is signed here; fields, as MessagePack or as steps that
always make some, that are put over an honest record's and signed: so that what stands behind signature and
types is reached too.
"""

from __future__ import annotations

import struct
from datetime import UTC, datetime
from typing import Any

import msgspec
from libp2p.peer.envelope import Envelope, make_unsigned

from hived.overlay import addresses
from hived.overlay.identity import Identity, is_peer_id
from hived.overlay.networkkeys import network_id
from hived.overlay.ranges import MAX_SEQUENCE
from hived.overlay.records import DOMAIN, PAYLOAD_TYPE, NodeRecord, sign, verify
from hived.overlay.wire import ProtocolError
from hived.schema import check_name

from .target import Script, Target

ALICE = Identity.from_seed(b"a" * 32)
NETWORK = network_id("net")
HONEST: dict[str, Any] = {
    "network": NETWORK,
    "peer_id": ALICE.peer_id,
    "name": "alice",
    "addresses": ["/ip4/127.0.0.1/tcp/4483"],
    "version": "0.1.0",
    "seq": 1_700_000_000_000,
    "nonce": b"12345678",
    "issued": 1_700_000_000.0,
}
NAMES = [*(field.name for field in msgspec.structs.fields(NodeRecord)), "later"]
_BODY = msgspec.msgpack.Decoder(dict[str, Any])


def sealed(payload: bytes) -> bytes:
    signature = ALICE.key_pair.private_key.sign(make_unsigned(DOMAIN, PAYLOAD_TYPE, payload))
    return Envelope(ALICE.key_pair.public_key, PAYLOAD_TYPE, payload, signature).marshal_envelope()


def completed(fields: bytes) -> bytes:
    """An honest record's payload with these fields put over it; what is no map stays as it is."""
    try:
        return msgspec.msgpack.encode({**HONEST, **_BODY.decode(fields)})
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, TypeError):
        return fields


def value(script: Script, depth: int = 0) -> Any:
    """Any value that MessagePack has, or text that looks like an address."""
    kind = script.byte() % 8
    if kind == 0:
        return struct.unpack(">d", script.take(8).rjust(8, b"\0"))[0]
    if kind == 1:
        return int.from_bytes(script.take(8), "big", signed=bool(script.byte() & 1))
    if kind == 2:
        return script.piece()
    if kind == 3:
        return script.piece().decode(errors="replace")
    if kind == 4:
        return f"/{script.take(4).decode(errors='replace')}/{script.take(9).decode(errors='replace')}/tcp/1"
    if kind == 5 and depth < 3:
        return [value(script, depth + 1) for _ in range(script.byte() % 40)]
    if kind == 6 and depth < 3:
        return {str(number): value(script, depth + 1) for number in range(script.byte() % 8)}
    return (None, True, "", 0)[script.byte() % 4]


def built(script: Script) -> bytes:
    """An honest record's payload with fields put over it that a list of steps makes."""
    fields = dict(HONEST)
    while script:
        fields[NAMES[script.byte() % len(NAMES)]] = value(script)
    return msgspec.msgpack.encode(fields)


def run(data: bytes) -> None:
    script = Script(data)
    kind = script.byte() % 4
    if kind == 3:
        envelope = sealed(built(script))
    else:
        body = script.rest()
        envelope = body if kind == 0 else sealed(body if kind == 1 else completed(body))
    try:
        signed = verify(envelope, NETWORK)
    except ProtocolError:
        return
    record = signed.record
    assert signed.envelope == envelope
    assert record.network == NETWORK
    assert is_peer_id(record.peer_id)
    assert check_name(record.name)
    assert 0 < record.seq < MAX_SEQUENCE
    assert record.version == "" or (record.version.isprintable() and len(record.version) <= 64)
    assert datetime.fromtimestamp(record.issued, UTC).isoformat()
    assert len(record.addresses) <= 32
    assert [str(addresses.parse(address)) for address in record.addresses] == record.addresses
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(record), type=NodeRecord) == record
    if record.peer_id == ALICE.peer_id:
        assert verify(sign(record, ALICE.key_pair).envelope, NETWORK).record == record


def seeds() -> list[bytes]:
    changes: list[dict[str, Any]] = [
        {},
        {"name": "-"},
        {"seq": 0},
        {"seq": 2**53},
        {"seq": 1.0},
        {"issued": float("nan")},
        {"issued": 1e300},
        {"issued": -1.0},
        {"version": "x" * 65},
        {"version": "\x1b[2J"},
        {"nonce": "text"},
        {"peer_id": "12D3KooWNotThisOne"},
        {"network": b"another"},
        {"relays": ["/p2p/x"], "capabilities": ["relay"], "later": None},
        {"addresses": ["/ip6/::1/tcp/1", "/dns4/a.example/tcp/65535/p2p/" + ALICE.peer_id, "/unix/x", ""]},
        {"addresses": [f"/ip4/10.0.0.{n}/tcp/1" for n in range(33)]},
    ]
    bodies = [msgspec.msgpack.encode(change) for change in changes]
    envelope = sealed(msgspec.msgpack.encode(HONEST))
    whole = [b"\0" + envelope, b"\0" + envelope[:-1], b"\0", b"\1" + msgspec.msgpack.encode(HONEST)]
    steps = [
        bytes([3, number, kind]) + rest
        for number in range(len(NAMES))
        for kind in range(8)
        for rest in (b"", b"\3ip4\x0910.0.0.1", b"\0\3::1\x07\x03\x04")
    ]
    return [*whole, *(b"\2" + body for body in bodies), *steps]


TARGET = Target("records", run, seeds, most_bytes=8 * 1024)

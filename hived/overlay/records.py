"""Node records: what a node says about itself in one network, signed by its own key.

A record is MessagePack in a libp2p signed envelope (RFC 0002) of the domain
``hive-node-record``; the network ID is inside the signature, so that a record cannot be
carried from one network into another.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import msgspec
from libp2p.crypto.ed25519 import Ed25519PublicKey
from libp2p.crypto.keys import KeyPair
from libp2p.peer.envelope import Envelope, make_unsigned, unmarshal_envelope
from libp2p.peer.id import ID

from ..schema import check_name
from .identity import usable_addresses, usable_relays
from .ranges import MAX_SEQUENCE
from .wire import Message, ProtocolError, decode

DOMAIN = "hive-node-record"
PAYLOAD_TYPE = b"/hive/node-record/1"
MAX_ENVELOPE = 8 * 1024
# The end of the year 9999: what RFC 3339 can write.
MAX_TIME = 253402300800.0
_MAX_TEXT = 64


class NodeRecord(Message, kw_only=True):
    """A node in a network. ``seq`` grows with every change; ``issued`` is epoch seconds at the author.

    ``nonce`` is drawn at each start, so that two nodes with one copied identity can be told.
    """

    network: bytes
    peer_id: str
    name: str
    addresses: list[str] = msgspec.field(default_factory=list)
    relays: list[str] = msgspec.field(default_factory=list)
    version: str = ""
    capabilities: list[str] = msgspec.field(default_factory=list)
    seq: int
    nonce: bytes = b""
    issued: float


@dataclass(frozen=True)
class SignedRecord:
    """A verified record with the envelope that proves it."""

    record: NodeRecord
    envelope: bytes = field(repr=False)


def sign(record: NodeRecord, key_pair: KeyPair) -> SignedRecord:
    """Seal a record with its author's key."""
    payload = msgspec.msgpack.encode(record)
    signature = key_pair.private_key.sign(make_unsigned(DOMAIN, PAYLOAD_TYPE, payload))
    envelope = Envelope(key_pair.public_key, PAYLOAD_TYPE, payload, signature)
    return SignedRecord(record, envelope.marshal_envelope())


@dataclass(frozen=True)
class Claim:
    """A record as somebody sent it, not proved yet: enough to see whether it is worth proving."""

    record: NodeRecord
    _sealed: Envelope = field(repr=False)
    _envelope: bytes = field(repr=False)

    def prove(self) -> SignedRecord:
        """Check signature and author. Raises ProtocolError."""
        record = self.record
        try:
            self._sealed.validate(DOMAIN)
            author = str(ID.from_pubkey(self._sealed.public_key))
        except Exception as error:  # key parsers raise unrelated kinds
            raise ProtocolError(f"a record that does not verify: {error}") from None
        if record.peer_id != author:
            raise ProtocolError("a record that its node did not sign")
        addresses, relays = usable_addresses(record.addresses), usable_relays(record.relays)
        usable = msgspec.structs.replace(record, addresses=addresses, relays=relays)
        return SignedRecord(usable, self._envelope)


def read(envelope: bytes, network_id: bytes) -> Claim:
    """Parse a record that somebody sent for this network, without believing it. Raises ProtocolError.

    A hundred times cheaper than to prove it: what is no news is dropped for next to nothing.
    """
    if len(envelope) > MAX_ENVELOPE:
        raise ProtocolError(f"a record of {len(envelope)} bytes")
    try:
        sealed = unmarshal_envelope(envelope)
        if not isinstance(sealed.public_key, Ed25519PublicKey) or sealed.payload_type != PAYLOAD_TYPE:
            raise ValueError("not a node record")
    except Exception as error:  # protobuf and key parsers raise unrelated kinds
        raise ProtocolError(f"a record that does not verify: {error}") from None
    record = decode(sealed.raw_payload, NodeRecord)
    if record.network != network_id:
        raise ProtocolError("a record of another network")
    if (
        not check_name(record.name)
        or not 0 < record.seq < MAX_SEQUENCE
        or len(record.version) > _MAX_TEXT
        or not record.version.isprintable()
    ):
        raise ProtocolError("a record with a malformed field")
    if not 0 <= record.issued < MAX_TIME:
        raise ProtocolError("a record with a malformed time")
    return Claim(record, sealed, envelope)


def verify(envelope: bytes, network_id: bytes) -> SignedRecord:
    """Check a record that somebody sent. Raises ProtocolError unless its author made it for this network."""
    return read(envelope, network_id).prove()

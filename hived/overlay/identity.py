"""The node's identity: an Ed25519 key, its peer ID, and the identity string.

The identity string is base64url (no padding) of a libp2p signed peer record (RFC 0003:
envelope, domain ``libp2p-peer-record``): what ``hivectl id --base64`` prints.
"""

from __future__ import annotations

import base64
import binascii
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from libp2p.crypto.ed25519 import create_new_key_pair
from libp2p.crypto.keys import KeyPair
from libp2p.peer.envelope import ENVELOPE_DOMAIN, seal_record, unmarshal_envelope
from libp2p.peer.id import ID
from libp2p.peer.peer_record import PeerRecord
from multiaddr import Multiaddr

from ..errors import usage
from .addresses import parse

SEED_BYTES = 32
PEER_ID_PREFIX = "12D3KooW"
PEER_ID_CHARS = 52
_MAX_ADDRESSES = 32


@dataclass(frozen=True)
class Identity:
    """The key pair and what follows from it."""

    key_pair: KeyPair
    peer_id: str

    @classmethod
    def from_seed(cls, seed: bytes) -> Identity:
        """The identity of a 32-byte Ed25519 seed."""
        pair = create_new_key_pair(seed)
        return cls(pair, str(ID.from_pubkey(pair.public_key)))

    def string(self, addresses: Sequence[str]) -> str:
        """The identity string with these addresses."""
        record = PeerRecord(ID.from_string(self.peer_id), [Multiaddr(a) for a in addresses], time.time_ns())
        envelope = seal_record(record, self.key_pair.private_key).marshal_envelope()
        return base64.urlsafe_b64encode(envelope).rstrip(b"=").decode()


@dataclass(frozen=True)
class PeerIdentity:
    """What an identity string says: who, and where to dial."""

    peer_id: str
    addresses: tuple[str, ...]


def parse_identity(text: str) -> PeerIdentity:
    """Read and verify an identity string. Raises HiveError (usage) for anything else."""
    what = "reading the identity failed"
    hint = "Copy what this prints on the other node: hivectl id --base64"
    text = "".join(text.split())
    try:
        data = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
    except (binascii.Error, ValueError):
        raise usage(what, "it is not base64url", hint) from None
    try:
        envelope = unmarshal_envelope(data)
        envelope.validate(ENVELOPE_DOMAIN)
        record = envelope.record()
        author = ID.from_pubkey(envelope.public_key)
        addresses = [str(address) for address in record.addrs]
    except Exception:  # protobuf, key and multiaddr parsers raise unrelated kinds
        raise usage(what, "it is damaged, or its signature is wrong", hint) from None
    peer_id = str(author)
    if record.peer_id != author or not is_peer_id(peer_id):
        raise usage(what, "it was not signed by the node that it names", hint)
    return PeerIdentity(peer_id, tuple(usable_addresses(addresses, circuits=True)))


def usable_addresses(addresses: Sequence[str], *, circuits: bool = False) -> list[str]:
    """The addresses that Hive can dial, in their order, at most 32; the rest is dropped.

    ``circuits``: those through relays, too.
    """
    found: list[str] = []
    for address in addresses:
        try:
            text = str(parse(address))
        except ValueError:
            if not circuits or relay_of(address) is None:
                continue
            text = address
        if text not in found:
            found.append(text)
    return found[:_MAX_ADDRESSES]


CIRCUIT = "/p2p-circuit"


def outside_relay(text: str) -> str | None:
    """The peer ID of a relay that is named by its address, ``/ip4/.../tcp/PORT/p2p/ID``, else None."""
    address, found, peer_id = text.rpartition("/p2p/")
    try:
        if not found or not is_dialable(peer_id):
            return None
        parse(address)
        # The whole is what is dialled.
        parse(text)
    except ValueError:
        return None
    return peer_id


def usable_relays(relays: Iterable[str]) -> list[str]:
    """Those of a record's relays that can be used: peer IDs of nodes, addresses of others."""
    found = dict.fromkeys(r for r in list(relays)[:_MAX_ADDRESSES] if is_peer_id(r) or outside_relay(r))
    return list(found)


def relay_of(text: str) -> str | None:
    """The relay in the address of a circuit, ``/ip4/.../tcp/PORT/p2p/ID/p2p-circuit``; None for any other."""
    relay = text.removesuffix(CIRCUIT)
    return relay if relay != text and outside_relay(relay) is not None else None


def is_dialable(text: str) -> bool:
    """Whether ``text`` is the peer ID of a key of any kind: relays need not be nodes of Hive."""
    try:
        return 34 <= len(ID.from_string(text).to_bytes()) <= 64
    except Exception:  # multihash parsers raise unrelated kinds
        return False


def is_peer_id(text: str) -> bool:
    """Whether ``text`` is the peer ID of an Ed25519 key (identity multihash, base58btc)."""
    if not text.startswith(PEER_ID_PREFIX) or len(text) != PEER_ID_CHARS:
        return False
    try:
        raw = ID.from_string(text).to_bytes()
    except Exception:
        return False
    # identity multihash, 36 bytes: protobuf of key type Ed25519 and 32 key bytes
    return len(raw) == 38 and raw[:6] == b"\x00\x24\x08\x01\x12\x20"

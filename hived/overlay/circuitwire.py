"""Messages of circuit relay v2 and DCUtR: a varint with the length, then protobuf (libp2p specs, relay/)."""

from __future__ import annotations

from typing import Protocol, TypeVar

import trio
from google.protobuf.message import DecodeError
from libp2p.peer.id import ID
from libp2p.utils.varint import encode_uvarint

from .wire import ProtocolError, receive_exactly

HOP = "/libp2p/circuit/relay/0.2.0/hop"
STOP = "/libp2p/circuit/relay/0.2.0/stop"
DCUTR = "/libp2p/dcutr"
# Of both specifications.
MAX_MESSAGE = 4096


class Packed(Protocol):
    """What a protobuf message can do."""

    def SerializeToString(self) -> bytes: ...

    def ParseFromString(self, data: bytes, /) -> int: ...


M = TypeVar("M", bound=Packed)


async def send(stream: trio.abc.SendStream, message: Packed) -> None:
    body = message.SerializeToString()
    await stream.send_all(encode_uvarint(len(body)) + body)


async def receive(stream: trio.abc.ReceiveStream, empty: M) -> M:
    """The next message, read into ``empty``. Raises ProtocolError."""
    length = shift = 0
    while True:
        (byte,) = await receive_exactly(stream, 1)
        length |= (byte & 0x7F) << shift
        shift += 7
        if length > MAX_MESSAGE or shift > 21:
            raise ProtocolError("a message of more than 4 KiB")
        if byte < 0x80:
            break
    try:
        empty.ParseFromString(await receive_exactly(stream, length))
    except DecodeError as error:
        raise ProtocolError(f"a message that is no protobuf: {error}") from None
    return empty


def peer_id_of(data: bytes) -> str:
    """A peer ID's text. Raises ProtocolError."""
    try:
        if not 34 <= len(data) <= 64:
            raise ValueError(f"{len(data)} bytes")
        return str(ID(data))
    except Exception as error:  # multihash parsers raise unrelated kinds
        raise ProtocolError(f"no peer ID: {error}") from None

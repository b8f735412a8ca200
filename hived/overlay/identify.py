"""What a stranger may ask: identify and ping, as in the libp2p specs.

Names of networks and members are not in it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import trio
from libp2p.identity.identify.pb.identify_pb2 import Identify
from libp2p.utils.varint import encode_uvarint
from multiaddr import Multiaddr

from .. import __version__
from ..transport.muxstream import MuxedStream
from .addresses import parse
from .connection import Connection
from .identity import Identity
from .wire import ProtocolError, receive_exactly

IDENTIFY = "/ipfs/id/1.0.0"
PING = "/ipfs/ping/1.0.0"
PING_BYTES = 32
_IDENTIFY_SECONDS = 10.0
_MAX_IDENTIFY = 64 * 1024
# Of one connection.
MAX_PINGS = 4
# A stranger that sends and does not read must not hold our memory.
_PING_SECONDS = 20.0


class IdentifyService:
    """Answers identify with the node's key, addresses and the protocols open to strangers."""

    def __init__(
        self,
        identity: Identity,
        addresses: Callable[[], Iterable[str]],
        protocols: Callable[[], Iterable[str]],
    ) -> None:
        self._identity = identity
        self._addresses = addresses
        self._protocols = protocols

    async def serve(self, stream: MuxedStream, connection: Connection) -> None:
        """One Identify message, length-prefixed (libp2p spec: identify)."""
        answer = Identify(
            protocol_version="hive/1",
            agent_version=f"hived/{__version__}",
            public_key=self._identity.key_pair.public_key.serialize(),
            listen_addrs=[Multiaddr(address).to_bytes() for address in self._addresses()],
            observed_addr=Multiaddr(connection.address).to_bytes(),
            protocols=list(self._protocols()),
        ).SerializeToString()
        await stream.send_all(encode_uvarint(len(answer)) + answer)
        await stream.send_eof()


async def observed(connection: Connection) -> str:
    """Whence a peer sees this node's connection come, as it says itself. Raises one of STREAM_ERRORS."""
    with trio.fail_after(_IDENTIFY_SECONDS):
        stream = await connection.open_stream(IDENTIFY)
        try:
            data = bytearray()
            while part := await stream.receive_some():
                data += part
                if len(data) > _MAX_IDENTIFY:
                    raise ProtocolError("an identify message of more than 64 KiB")
        finally:
            stream.reset()
    try:
        start = 1
        while data[start - 1] & 0x80:
            start += 1
        return str(parse(str(Multiaddr(Identify.FromString(bytes(data[start:])).observed_addr))))
    except Exception as error:  # protobuf and multiaddr parsers raise unrelated kinds
        raise ProtocolError(f"an identify message that says nothing usable: {error}") from None


async def serve_ping(stream: MuxedStream, connection: Connection) -> None:
    """Echo 32 bytes at a time until the peer has enough (libp2p spec: ping); on a few streams at once."""
    if connection.pings >= MAX_PINGS:
        raise ProtocolError("more ping streams than anybody needs")
    connection.pings += 1
    try:
        await _echo(stream)
    finally:
        connection.pings -= 1


async def _echo(stream: MuxedStream) -> None:
    while True:
        try:
            with trio.fail_after(_PING_SECONDS):
                data = await receive_exactly(stream, PING_BYTES)
                await stream.send_all(data)
        except ProtocolError:
            return

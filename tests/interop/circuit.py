"""Two of Hive's ends with Kubo between them as a relay (libp2p specs: circuit relay v2).

Kubo joins two streams and passes on a half-close as a half-close and a reset as a reset. The names of the
services go over the circuit in a line, where else there would be another handshake.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from libp2p.peer.id import ID
from libp2p.relay.circuit_v2.pb.circuit_pb2 import OK, HopMessage, PeerId, StopMessage
from libp2p.utils.varint import encode_uvarint

from hived.overlay.connection import Connection
from hived.transport.muxstream import MuxedStream
from tests.interop.end import End, hive_end
from tests.interop.services import Stream, exactly, line
from tests.interop.stock import JS_PROTOCOL, Stock

_HOP = "/libp2p/circuit/relay/0.2.0/hop"
_STOP = "/libp2p/circuit/relay/0.2.0/stop"


@dataclass(frozen=True)
class Circuits:
    """``near`` opens circuits to ``far``, where the services are."""

    near: End
    far: End
    connection: Connection

    async def open(self, service: str) -> MuxedStream:
        """A new circuit to one of the services."""
        stream = await self.connection.open_stream(_HOP)
        to = PeerId(id=ID.from_string(self.far.peer_id).to_bytes())
        await _ask(stream, HopMessage(type=HopMessage.CONNECT, peer=to))
        await stream.send_all(f"{service}\n".encode())
        return stream


@asynccontextmanager
async def circuits(relay: Stock) -> AsyncIterator[Circuits]:
    """Both ends connected to the relay, where the far one has reserved."""
    async with hive_end(JS_PROTOCOL) as near, hive_end(JS_PROTOCOL) as far:
        services = far.services.all()

        async def serve(stream: MuxedStream, connection: Connection) -> None:
            asked = StopMessage.FromString(await _receive(stream))
            assert asked.type == StopMessage.CONNECT
            assert asked.peer.id == ID.from_string(near.peer_id).to_bytes()
            await _send(stream, StopMessage(type=StopMessage.STATUS, status=OK))
            await services[await line(stream)](stream)

        far.host.handlers[_STOP] = serve
        reserving = await (await far.host.dial(relay.address, relay.peer_id)).open_stream(_HOP)
        await _ask(reserving, HopMessage(type=HopMessage.RESERVE))
        await reserving.aclose()
        yield Circuits(near, far, await near.host.dial(relay.address, relay.peer_id))


async def _ask(stream: MuxedStream, message: HopMessage) -> None:
    await _send(stream, message)
    answer = HopMessage.FromString(await _receive(stream))
    assert answer.type == HopMessage.STATUS
    assert answer.status == OK, f"the relay answers {answer.status}"


async def _send(stream: Stream, message: Any) -> None:
    body = message.SerializeToString()
    await stream.send_all(encode_uvarint(len(body)) + body)


async def _receive(stream: Stream) -> bytes:
    """A message, with its length as a varint before it."""
    length = shift = 0
    while True:
        (byte,) = await exactly(stream, 1)
        length |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            return await exactly(stream, length)

"""Circuits through relays, as their ends: reserving, dialling a peer through one, being dialled.

Circuit relay v2 (libp2p specs, relay/circuit-v2.md). The connection inside a circuit is secured end to end: a
relay that lies about who is there is found out by the handshake.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import trio
from libp2p.peer.id import ID
from libp2p.relay.circuit_v2.pb import circuit_pb2
from libp2p.relay.circuit_v2.pb.circuit_pb2 import (
    MALFORMED_MESSAGE,
    OK,
    PERMISSION_DENIED,
    RESOURCE_LIMIT_EXCEEDED,
    HopMessage,
    PeerId,
    StopMessage,
)

from ..logs import Log
from ..transport.muxstream import MuxedStream
from .circuitwire import HOP, STOP, peer_id_of, receive, send
from .connection import STREAM_ERRORS, Connection, DialError
from .host import Host
from .wire import ProtocolError

log = Log("hived.overlay.circuits")

RESERVE_SECONDS = 5.0
# The relay has ten seconds to ask the other side.
CIRCUIT_SECONDS = 12.0
# What a relay promises is believed within these bounds.
MIN_RESERVED, MAX_RESERVED = 60.0, 2 * 3600.0


class ReserveError(Exception):
    """A relay takes no reservation; the text says why."""


@dataclass(frozen=True)
class Reserved:
    """A reservation of ours: ``until``, by the monotonic clock; ``limited``: circuits are short and small."""

    connection: Connection
    until: float
    limited: bool


class Circuits:
    """``reserved``: whether this node holds a reservation on a relay; nobody else may bring it circuits."""

    def __init__(self, host: Host, reserved: Callable[[str], bool]) -> None:
        self._host = host
        self._reserved = reserved
        # A relay is a member, or has this offered on its connection (``welcome``): strangers do not need it.
        host.member_handlers[STOP] = self._serve

    def welcome(self, relay: Connection) -> None:
        """Let a relay that is no member bring circuits on this connection."""
        relay.handlers[STOP] = self._serve

    async def reserve(self, relay: Connection) -> Reserved:
        """Reserve on a relay that is connected, or renew. Raises ReserveError."""
        try:
            with trio.fail_after(RESERVE_SECONDS):
                stream = await relay.open_stream(HOP)
                try:
                    await send(stream, HopMessage(type=HopMessage.RESERVE))
                    answer = await receive(stream, HopMessage())
                finally:
                    stream.reset()
        except STREAM_ERRORS as error:
            raise ReserveError(str(error) or "no answer") from error
        if answer.type != HopMessage.STATUS or answer.status != OK:
            raise ReserveError(_said(answer.status))
        seconds = min(max(answer.reservation.expire - time.time(), MIN_RESERVED), MAX_RESERVED)
        return Reserved(relay, time.monotonic() + seconds, answer.HasField("limit"))

    async def dial(self, relay: Connection, peer_id: str) -> Connection:
        """Connect to a peer through a relay that is connected. Raises DialError."""
        try:
            with trio.fail_after(CIRCUIT_SECONDS):
                stream = await relay.open_stream(HOP)
                try:
                    target = PeerId(id=ID.from_string(peer_id).to_bytes())
                    await send(stream, HopMessage(type=HopMessage.CONNECT, peer=target))
                    answer = await receive(stream, HopMessage())
                    if answer.type != HopMessage.STATUS or answer.status != OK:
                        raise DialError(_said(answer.status))
                except BaseException:
                    stream.reset()
                    raise
        except trio.TooSlowError:
            raise DialError("the relay does not answer") from None
        except STREAM_ERRORS as error:
            raise DialError(f"the relay: {error}") from None
        connection = await self._host.adopt(stream, peer_id, relay.peer_id, initiator=True)
        log.debug("connected", peer=peer_id, relay=relay.peer_id, by="us")
        return connection

    async def _serve(self, stream: MuxedStream, connection: Connection) -> None:
        """A relay brings a circuit."""
        relay = connection.peer_id
        with trio.fail_after(RESERVE_SECONDS):
            asked = await receive(stream, StopMessage())
            status = OK
            source = ""
            if asked.type != StopMessage.CONNECT:
                status = MALFORMED_MESSAGE
            elif connection.relay is not None or not self._reserved(relay):
                status = PERMISSION_DENIED
            else:
                try:
                    source = peer_id_of(asked.peer.id)
                except ProtocolError:
                    status = MALFORMED_MESSAGE
            if status == OK and not self._host.inbound.admission.admit(f"relay:{relay}", trio.current_time()):
                status = RESOURCE_LIMIT_EXCEEDED
            await send(stream, StopMessage(type=StopMessage.STATUS, status=status))
            if status != OK:
                await stream.send_eof()
                return
        try:
            await self._host.adopt(stream, source, relay, initiator=False)
        except DialError as error:
            log.debug("a circuit to us was not secured", peer=source, relay=relay, why=error)
        else:
            log.debug("connected", peer=source, relay=relay, by="peer")


_WORDS = {
    circuit_pb2.RESERVATION_REFUSED: "the relay has no free reservation",
    circuit_pb2.RESOURCE_LIMIT_EXCEEDED: "the relay has no free circuit",
    circuit_pb2.PERMISSION_DENIED: "the relay does not let us",
    circuit_pb2.CONNECTION_FAILED: "the relay does not reach it",
    circuit_pb2.NO_RESERVATION: "it has no reservation there",
}


def _said(status: circuit_pb2.Status.ValueType) -> str:
    """A relay's refusal, for people."""
    return _WORDS.get(status, f"the relay answers {status}")

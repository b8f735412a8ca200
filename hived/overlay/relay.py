"""This node as a relay: circuit relay v2, the hop side (libp2p specs, relay/circuit-v2.md).

Members reserve and connect with generous limits, and only where both are in one network with this node: who
is in another learns nothing. Strangers may do either only where the admin has opened the relay, with the
small limits of the specification. The two streams of a circuit are joined inside the data plane.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import trio
from libp2p.peer.id import ID
from libp2p.relay.circuit_v2.pb.circuit_pb2 import (
    CONNECTION_FAILED,
    MALFORMED_MESSAGE,
    NO_RESERVATION,
    OK,
    PERMISSION_DENIED,
    RESERVATION_REFUSED,
    RESOURCE_LIMIT_EXCEEDED,
    UNEXPECTED_MESSAGE,
    HopMessage,
    Limit,
    PeerId,
    Reservation,
    Status,
    StopMessage,
)
from multiaddr import Multiaddr

from ..logs import Log
from ..transport.joint import join_streams
from ..transport.muxstream import MuxedStream
from .circuitwire import HOP, STOP, peer_id_of, receive, send
from .connection import STREAM_ERRORS, Connection
from .host import Host
from .quota import Allowance
from .wire import ProtocolError

log = Log("hived.overlay.relay")

Mode = Literal["off", "members", "anyone"]

RESERVATION_SECONDS = 3600.0
HOP_SECONDS = 15.0
STOP_SECONDS = 10.0
# The specification's: two minutes and 128 KiB each way.
STRANGER_SECONDS = 120
STRANGER_BYTES = 128 * 1024
MAX_STRANGER_RESERVATIONS = 32
MAX_STRANGER_CIRCUITS = 32


@dataclass(frozen=True)
class RelayLimits:
    """For members: how many may reserve, circuits in all, and circuits of one peer as source or target."""

    reservations: int = 256
    circuits: int = 1024
    circuits_of_one: int = 128


class Relay:
    """Serves ``HOP``. ``addresses``: where this node can be reached itself."""

    def __init__(
        self,
        host: Host,
        addresses: Callable[[], list[str]],
        limits: RelayLimits | None = None,
    ) -> None:
        self.mode: Mode = "off"
        self.bytes = 0
        self._host = host
        self._addresses = addresses
        self.limits = limits or RelayLimits()
        # The connection on which a peer reserved, and until when, by the wall clock.
        self._reserved: dict[str, tuple[Connection, float]] = {}
        self._circuits: Counter[str] = Counter()
        self._live = 0
        self._of_strangers = 0
        # One peer may ask so often, and all strangers together.
        self._asking = Allowance(burst=60, rate=2)
        host.on_disconnected.append(self._disconnected)

    def set_mode(self, mode: Mode) -> None:
        """Who may use it from now on; circuits that live are left to end."""
        self.mode = mode
        self._host.handlers.pop(HOP, None)
        self._host.member_handlers.pop(HOP, None)
        if mode == "anyone":
            self._host.handlers[HOP] = self._serve
        elif mode == "members":
            self._host.member_handlers[HOP] = self._serve
        else:
            self._reserved.clear()

    @property
    def reservations(self) -> list[str]:
        """The peers that hold one."""
        return list(self._reserved)

    @property
    def circuits(self) -> int:
        """How many live."""
        return self._live

    def _disconnected(self, connection: Connection) -> None:
        held = self._reserved.get(connection.peer_id)
        if held is not None and held[0] is connection:
            del self._reserved[connection.peer_id]

    async def _serve(self, stream: MuxedStream, connection: Connection) -> None:
        with trio.fail_after(HOP_SECONDS):
            try:
                asked = await receive(stream, HopMessage())
            except ProtocolError:
                await self._refuse(stream, MALFORMED_MESSAGE)
                return
            key = connection.peer_id if connection.memberships else "strangers"
            if connection.relay is not None:
                # No relay through a relay.
                await self._refuse(stream, PERMISSION_DENIED)
                return
            if not self._asking.take(key, trio.current_time()):
                await self._refuse(stream, RESOURCE_LIMIT_EXCEEDED)
                return
            if asked.type == HopMessage.RESERVE:
                await self._reserve(stream, connection)
                return
            if asked.type != HopMessage.CONNECT:
                await self._refuse(stream, UNEXPECTED_MESSAGE)
                return
        await self._connect(stream, connection, asked)

    async def _refuse(self, stream: MuxedStream, status: Status.ValueType) -> None:
        await send(stream, HopMessage(type=HopMessage.STATUS, status=status))
        await stream.send_eof()

    # Reserving

    async def _reserve(self, stream: MuxedStream, connection: Connection) -> None:
        peer_id = connection.peer_id
        member = bool(connection.memberships)
        held = self._reserved.get(peer_id)
        if held is None:
            of_members = sum(bool(c.memberships) for c, _ in self._reserved.values())
            taken = of_members if member else len(self._reserved) - of_members
            if taken >= (self.limits.reservations if member else MAX_STRANGER_RESERVATIONS):
                await self._refuse(stream, RESERVATION_REFUSED)
                return
            log.info("a peer reserves here", peer=peer_id, member=member)
        expires = time.time() + RESERVATION_SECONDS
        self._reserved[peer_id] = connection, expires
        answer = HopMessage(
            type=HopMessage.STATUS,
            status=OK,
            reservation=Reservation(
                expire=int(expires), addrs=[Multiaddr(address).to_bytes() for address in self._addresses()]
            ),
        )
        if not member:
            answer.limit.CopyFrom(_stranger_limit())
        await send(stream, answer)
        await stream.send_eof()

    # Connecting

    def _target(self, connection: Connection, peer_id: str) -> Connection | None:
        """The reserved connection of a peer, where this one may know of it."""
        held = self._reserved.get(peer_id)
        if (
            held is None
            or held[1] < time.time()
            or not held[0].takes_streams
            or peer_id == connection.peer_id
        ):
            return None
        shared = connection.memberships & held[0].memberships
        return held[0] if shared or self.mode == "anyone" else None

    async def _connect(self, stream: MuxedStream, connection: Connection, asked: HopMessage) -> None:
        try:
            peer_id = peer_id_of(asked.peer.id)
        except ProtocolError:
            await self._refuse(stream, MALFORMED_MESSAGE)
            return
        target = self._target(connection, peer_id)
        if target is None:
            await self._refuse(stream, NO_RESERVATION)
            return
        member = bool(connection.memberships & target.memberships)
        ends = (connection.peer_id, peer_id)
        full = (
            self._live - self._of_strangers >= self.limits.circuits
            or any(self._circuits[end] >= self.limits.circuits_of_one for end in ends)
            if member
            else self._of_strangers >= MAX_STRANGER_CIRCUITS
        )
        if full:
            await self._refuse(stream, RESOURCE_LIMIT_EXCEEDED)
            return
        self._count(ends, member, 1)
        try:
            await self._circuit(stream, connection, target, member)
        finally:
            self._count(ends, member, -1)

    def _count(self, ends: tuple[str, str], member: bool, change: int) -> None:
        self._live += change
        if not member:
            self._of_strangers += change
        for end in ends:
            self._circuits[end] += change
            if not self._circuits[end]:
                del self._circuits[end]

    async def _circuit(
        self, stream: MuxedStream, connection: Connection, target: Connection, member: bool
    ) -> None:
        """Have the target agree, and join the two until both have ended."""
        limit = None if member else _stranger_limit()
        try:
            with trio.fail_after(STOP_SECONDS):
                onward = await target.open_stream(STOP)
                try:
                    source = PeerId(id=ID.from_string(connection.peer_id).to_bytes())
                    await send(onward, StopMessage(type=StopMessage.CONNECT, peer=source, limit=limit))
                    answer = await receive(onward, StopMessage())
                    if answer.type != StopMessage.STATUS or answer.status != OK:
                        raise ProtocolError(f"the target answers {answer.status}")
                except BaseException:
                    onward.reset()
                    raise
        except STREAM_ERRORS as error:
            log.debug("a circuit was not made", peer=target.peer_id, why=error)
            await self._refuse(stream, CONNECTION_FAILED)
            return
        try:
            await send(stream, HopMessage(type=HopMessage.STATUS, status=OK, limit=limit))
        except BaseException:
            onward.reset()
            raise
        try:
            limit_bytes = None if member else 2 * STRANGER_BYTES
            joint = join_streams(self._host.plane, stream, onward, limit=limit_bytes)
        except BaseException:
            onward.reset()
            raise
        try:
            with trio.move_on_after(float("inf") if member else STRANGER_SECONDS):
                await joint.wait()
        except trio.BrokenResourceError as error:
            log.debug("a circuit broke", peer=target.peer_id, why=error)
        finally:
            self.bytes += joint.bytes_in + joint.bytes_out


def _stranger_limit() -> Limit:
    return Limit(duration=STRANGER_SECONDS, data=STRANGER_BYTES)

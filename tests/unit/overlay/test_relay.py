"""A relay and circuits through it, over real connections: who may, who may not, and what a bad relay does."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass

import pytest
import trio
from libp2p.peer.id import ID
from libp2p.relay.circuit_v2.pb.circuit_pb2 import (
    CONNECTION_FAILED,
    MALFORMED_MESSAGE,
    NO_RESERVATION,
    OK,
    PERMISSION_DENIED,
    RESERVATION_REFUSED,
    UNEXPECTED_MESSAGE,
    HopMessage,
    PeerId,
    StopMessage,
)
from trio.testing import trio_test

from hived.overlay import relay as relay_module
from hived.overlay.circuits import Circuits, ReserveError
from hived.overlay.circuitwire import HOP, STOP, receive, send
from hived.overlay.connection import STREAM_ERRORS, Connection, DialError
from hived.overlay.relay import Mode, Relay, RelayLimits
from hived.transport.muxstream import MuxedStream
from tests.unit.overlay.parties import K, Logged, Party, party, until

ECHO = "/test/echo"


async def echo(stream: MuxedStream, connection: Connection) -> None:
    while data := await stream.receive_some():
        await stream.send_all(data)


@dataclass
class Scene:
    """``near`` and ``far``, each with a connection to the relay in the middle, on which they are members."""

    near: Party
    middle: Party
    far: Party
    relay: Relay
    circuits: Circuits
    far_circuits: Circuits
    to_relay: Connection
    far_to_relay: Connection

    async def circuit(self) -> Connection:
        await self.far_circuits.reserve(self.far_to_relay)
        return await self.circuits.dial(self.to_relay, self.far.peer_id)


@asynccontextmanager
async def scene(
    mode: Mode = "members", limits: RelayLimits | None = None, ends: str = "ab"
) -> AsyncIterator[Scene]:
    async with party(ends[0]) as near, party("r") as middle, party(ends[1]) as far:
        relay = Relay(middle.host, lambda: [middle.address], limits)
        relay.set_mode(mode)
        far.host.handlers[ECHO] = echo
        yield Scene(
            near,
            middle,
            far,
            relay,
            Circuits(near.host, lambda peer_id: False),
            Circuits(far.host, middle.peer_id.__eq__),
            await near.joined(middle),
            await far.joined(middle),
        )


async def ask(connection: Connection, message: HopMessage) -> HopMessage:
    stream = await connection.open_stream(HOP)
    try:
        await send(stream, message)
        return await receive(stream, HopMessage())
    finally:
        await stream.aclose()


def connect_to(peer_id: str) -> HopMessage:
    return HopMessage(type=HopMessage.CONNECT, peer=PeerId(id=ID.from_string(peer_id).to_bytes()))


@trio_test
async def test_a_connection_through_a_relay(logged: Logged) -> None:
    """Secured between its ends, usable as any other, and gone with its relay."""
    async with scene() as s:
        connection = await s.circuit()
        assert (connection.peer_id, connection.relay) == (s.far.peer_id, s.middle.peer_id)
        await s.near.membership.join(connection, "net")
        await until(lambda: s.far.host.find(s.near.peer_id, "net") is not None)
        theirs = s.far.host.find(s.near.peer_id)
        assert theirs is not None
        assert (theirs.relay, theirs.initiator) == (s.middle.peer_id, False)
        stream = await connection.open_stream(ECHO)
        await stream.send_all(b"x" * 300_000)
        await stream.send_eof()
        got = b""
        while data := await stream.receive_some():
            got += data
        assert got == b"x" * 300_000
        assert s.relay.circuits == 1
        assert s.relay.reservations == [s.far.peer_id]
        s.middle.host.close_peer(s.near.peer_id)
        await connection.muxer.closed.wait()
        await until(lambda: s.relay.circuits == 0)
        assert s.relay.bytes > 600_000


@trio_test
async def test_who_has_not_reserved_is_not_reached(logged: Logged) -> None:
    async with scene() as s:
        with pytest.raises(DialError, match="no reservation"):
            await s.circuits.dial(s.to_relay, s.far.peer_id)
        await s.circuit()
        # Gone with the connection on which it was made.
        s.middle.host.close_peer(s.far.peer_id)
        await until(lambda: s.relay.reservations == [])
        with pytest.raises(DialError, match="no reservation"):
            await s.circuits.dial(s.to_relay, s.far.peer_id)


@trio_test
async def test_members_of_other_networks_are_as_if_they_were_not_there(logged: Logged) -> None:
    """The same answer, whether somebody of another network has reserved or nobody has."""
    async with scene() as s:
        s.middle.membership.set_network("other", K)
        async with party("o", network="other") as outsider:
            connection = await outsider.joined(s.middle, "other")
            await s.far_circuits.reserve(s.far_to_relay)
            for target in (s.far.peer_id, s.near.peer_id):
                answer = await ask(connection, connect_to(target))
                assert answer.status == NO_RESERVATION
            # And they cannot be reached by ours.
            assert (await ask(connection, HopMessage(type=HopMessage.RESERVE))).status == OK
            assert (await ask(s.to_relay, connect_to(outsider.peer_id))).status == NO_RESERVATION


@trio_test
async def test_strangers_have_no_relay_unless_it_is_open(logged: Logged) -> None:
    async with scene() as s, party("s", network=None) as stranger:
        with pytest.raises(STREAM_ERRORS):
            await (await stranger.dial(s.middle)).open_stream(HOP)
        s.relay.set_mode("anyone")
        connection = await stranger.dial(s.middle)
        answer = await ask(connection, HopMessage(type=HopMessage.RESERVE))
        assert answer.status == OK
        assert (answer.limit.duration, answer.limit.data) == (120, 128 * 1024)
        s.relay.set_mode("off")
        assert s.relay.reservations == []
        with pytest.raises(ReserveError):
            await s.far_circuits.reserve(s.far_to_relay)


@trio_test
async def test_a_strangers_circuit_is_small(logged: Logged) -> None:
    """128 KiB each way, as the specification has it; what is more is cut, and members are not."""
    async with scene("anyone") as s, party("s", network=None) as stranger:
        await s.far_circuits.reserve(s.far_to_relay)
        circuits = Circuits(stranger.host, lambda peer_id: False)
        connection = await circuits.dial(await stranger.dial(s.middle), s.far.peer_id)
        stream = await connection.open_stream(ECHO)
        with pytest.raises(STREAM_ERRORS):
            while True:
                await stream.send_all(bytes(16 * 1024))
                await stream.receive_some()
        assert stream.bytes_out < 200 * 1024
        await until(lambda: s.relay.circuits == 0)


@trio_test
async def test_limits(logged: Logged, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(relay_module, "MAX_STRANGER_RESERVATIONS", 1)
    async with scene("anyone", RelayLimits(reservations=1, circuits_of_one=1)) as s:
        await s.far_circuits.reserve(s.far_to_relay)
        # Again is a renewal.
        await s.far_circuits.reserve(s.far_to_relay)
        assert (await ask(s.to_relay, HopMessage(type=HopMessage.RESERVE))).status == RESERVATION_REFUSED
        await s.circuits.dial(s.to_relay, s.far.peer_id)
        with pytest.raises(DialError, match="no free circuit"):
            await s.circuits.dial(s.to_relay, s.far.peer_id)
        async with party("s", network=None) as one, party("t", network=None) as two:
            first, second = await one.dial(s.middle), await two.dial(s.middle)
            assert (await ask(first, HopMessage(type=HopMessage.RESERVE))).status == OK
            assert (await ask(second, HopMessage(type=HopMessage.RESERVE))).status == RESERVATION_REFUSED


@trio_test
async def test_who_asks_without_end_is_turned_away(logged: Logged) -> None:
    async with scene("anyone") as s, party("s", network=None) as stranger:
        connection = await stranger.dial(s.middle)
        statuses = set()
        for _ in range(80):
            statuses.add((await ask(connection, HopMessage(type=HopMessage.RESERVE))).status)
        assert OK in statuses
        assert len(statuses) == 2
        # Members have budgets of their own.
        await s.far_circuits.reserve(s.far_to_relay)


@trio_test
async def test_no_relay_through_a_relay(logged: Logged) -> None:
    async with scene() as s:
        far_relay = Relay(s.far.host, lambda: [s.far.address])
        far_relay.set_mode("anyone")
        connection = await s.circuit()
        for message in (HopMessage(type=HopMessage.RESERVE), connect_to(s.middle.peer_id)):
            assert (await ask(connection, message)).status == PERMISSION_DENIED


@trio_test
async def test_messages_that_make_no_sense(logged: Logged) -> None:
    async with scene() as s:
        assert (await ask(s.to_relay, HopMessage(type=HopMessage.STATUS))).status == UNEXPECTED_MESSAGE
        bad = HopMessage(type=HopMessage.CONNECT, peer=PeerId(id=b"nobody"))
        assert (await ask(s.to_relay, bad)).status == MALFORMED_MESSAGE
        for junk in (b"\xff\xff\xff\xff\x0f", b"\x05hello"):
            stream = await s.to_relay.open_stream(HOP)
            await stream.send_all(junk)
            assert (await receive(stream, HopMessage())).status == MALFORMED_MESSAGE


@trio_test
async def test_a_target_that_refuses(logged: Logged) -> None:
    """It holds no reservation there, whatever the relay thinks: nobody else may bring it circuits."""
    async with scene() as s:
        await s.far_circuits.reserve(s.far_to_relay)
        s.far_circuits._reserved = lambda peer_id: False
        with pytest.raises(DialError, match="does not reach"):
            await s.circuits.dial(s.to_relay, s.far.peer_id)
        assert (await ask(s.to_relay, connect_to(s.far.peer_id))).status == CONNECTION_FAILED


@trio_test
async def test_a_relay_that_lies_about_who_is_there(logged: Logged) -> None:
    """It brings a circuit as another's; the handshake shows that it is not."""
    async with scene() as s, party("x") as other:
        await s.far_circuits.reserve(s.far_to_relay)
        back = s.middle.host.find(s.far.peer_id)
        assert back is not None
        stream = await back.open_stream(STOP)
        claimed = PeerId(id=ID.from_string(s.near.peer_id).to_bytes())
        await send(stream, StopMessage(type=StopMessage.CONNECT, peer=claimed))
        assert (await receive(stream, StopMessage())).status == OK
        with pytest.raises((*STREAM_ERRORS, DialError)):
            connection = await other.host.adopt(stream, s.far.peer_id, s.middle.peer_id, initiator=True)
            # The far side drops it once it has seen who this is.
            await connection.muxer.closed.wait()
            raise trio.BrokenResourceError
        assert s.far.host.find(other.peer_id) is None
        assert s.far.host.find(s.near.peer_id) is None

        # The other way round: it leads to somebody else than was asked for.
        async def impostor(stream: MuxedStream, connection: Connection) -> None:
            await receive(stream, HopMessage())
            await send(stream, HopMessage(type=HopMessage.STATUS, status=OK))
            with contextlib.suppress(DialError):
                await s.middle.host.adopt(stream, None, other.peer_id, initiator=False)

        s.middle.host.member_handlers[HOP] = impostor
        with pytest.raises(DialError, match="another node"):
            await s.circuits.dial(s.to_relay, s.far.peer_id)


async def stalls(stream: MuxedStream, connection: Connection) -> None:
    await trio.sleep_forever()


async def drops(stream: MuxedStream, connection: Connection) -> None:
    stream.reset()


async def answers_and_drops(stream: MuxedStream, connection: Connection) -> None:
    await receive(stream, HopMessage())
    await send(stream, HopMessage(type=HopMessage.STATUS, status=OK))
    stream.reset()


async def says_nonsense(stream: MuxedStream, connection: Connection) -> None:
    await stream.send_all(b"\xff" * 100)


@pytest.mark.parametrize("behave", [stalls, drops, answers_and_drops, says_nonsense])
@trio_test
async def test_a_relay_that_does_not_do_its_work(
    behave: Callable[[MuxedStream, Connection], object], logged: Logged, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each is one failed dial, or one reservation that was not made, in bounded time."""
    monkeypatch.setattr("hived.overlay.circuits.CIRCUIT_SECONDS", 0.5)
    monkeypatch.setattr("hived.overlay.circuits.RESERVE_SECONDS", 0.5)
    async with scene() as s:
        s.middle.host.member_handlers[HOP] = behave  # type: ignore[assignment]
        with trio.fail_after(10), pytest.raises(DialError):
            await s.circuits.dial(s.to_relay, s.far.peer_id)
        if behave is not answers_and_drops:
            with trio.fail_after(10), pytest.raises(ReserveError):
                await s.far_circuits.reserve(s.far_to_relay)
        assert s.to_relay.is_open

"""Hole punching between real hosts: the protocol's two sides, and what a bad peer can do with it."""

from __future__ import annotations

import contextlib

import pytest
import trio
from libp2p.relay.circuit_v2.pb.dcutr_pb2 import HolePunch
from multiaddr import Multiaddr
from trio.testing import trio_test

from hived.overlay.circuitwire import DCUTR, receive, send
from hived.overlay.connection import STREAM_ERRORS, Connection
from hived.overlay.holepunch import HolePuncher
from hived.overlay.wire import ProtocolError
from hived.transport.muxstream import MuxedStream
from tests.unit.overlay.parties import Logged, until
from tests.unit.overlay.test_relay import Scene, scene


async def relayed(s: Scene) -> Connection:
    """The near side's end of a relayed connection on which both are members."""
    connection = await s.circuit()
    await s.near.membership.join(connection, "net")
    await until(lambda: s.far.host.find(s.near.peer_id, "net") is not None)
    return connection


async def far_puncher(s: Scene, nursery: trio.Nursery) -> HolePuncher:
    """The far side's, running."""
    far = HolePuncher(s.far.host, lambda: s.far.host.listening)
    await nursery.start(far.run)
    return far


def far_end(s: Scene) -> Connection:
    """The far side's end of the connection with the near side."""
    found = s.far.host.find(s.near.peer_id)
    assert found is not None
    return found


@trio_test
async def test_the_relayed_connection_gets_a_direct_one_beside_it(logged: Logged) -> None:
    """Whoever was dialled asks; whoever dialled is the client of what is new, and joins there."""
    async with scene() as s, trio.open_nursery() as nursery:
        near = HolePuncher(s.near.host, lambda: s.near.host.listening)
        far = HolePuncher(s.far.host, lambda: s.far.host.listening)
        for puncher in (near, far):
            await nursery.start(puncher.run)
        s.far.membership.on_joined.append(lambda connection, network: far.joined(connection))
        await relayed(s)

        def direct() -> bool:
            found = s.near.host.find(s.far.peer_id), s.far.host.find(s.near.peer_id)
            return all(c is not None and c.relay is None for c in found)

        await until(direct)
        found = s.near.host.find(s.far.peer_id)
        assert found is not None
        assert found.initiator
        assert found.punched
        assert not far.errors
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("ends", ["ab", "ba"])
def test_of_two_tries_at_once_that_of_the_smaller_peer_id_goes_on(logged: Logged, ends: str) -> None:
    """Both were dialled, each over a relay: with both tries on, each would be client and server at once."""

    async def check() -> None:
        async with scene(ends=ends) as s, trio.open_nursery() as nursery:
            asked, withdrawn = trio.Event(), trio.Event()

            async def stall(stream: MuxedStream, connection: Connection) -> None:
                await receive(stream, HolePunch())
                asked.set()
                with contextlib.suppress(*STREAM_ERRORS):
                    while await stream.receive_some():
                        pass
                withdrawn.set()

            s.near.host.member_handlers[DCUTR] = stall
            far = await far_puncher(s, nursery)
            connection = await relayed(s)
            theirs = far_end(s)
            far.joined(theirs)
            await asked.wait()
            stream = await connection.open_stream(DCUTR)
            await send(stream, HolePunch(type=HolePunch.CONNECT))
            if s.far.peer_id < s.near.peer_id:
                with pytest.raises(STREAM_ERRORS):
                    await receive(stream, HolePunch())
                assert not withdrawn.is_set()
            else:
                assert (await receive(stream, HolePunch())).type == HolePunch.CONNECT
                await withdrawn.wait()
            nursery.cancel_scope.cancel()

    trio.run(check)


@trio_test
async def test_who_asks_without_end_is_refused(logged: Logged) -> None:
    """What a member names is dialled, but not for ever."""
    async with scene() as s, trio.open_nursery() as nursery:
        far = await far_puncher(s, nursery)
        connection = await relayed(s)
        answers = 0
        with pytest.raises(STREAM_ERRORS):
            for _ in range(100):
                stream = await connection.open_stream(DCUTR)
                await send(stream, HolePunch(type=HolePunch.CONNECT))
                await receive(stream, HolePunch())
                await send(stream, HolePunch(type=HolePunch.SYNC))
                await until(lambda: not far._tries)
                answers += 1
        assert 12 <= answers <= 14
        assert connection.is_open
        nursery.cancel_scope.cancel()


@trio_test
async def test_without_any_address_it_stays_relayed(logged: Logged) -> None:
    async with scene() as s, trio.open_nursery() as nursery:
        HolePuncher(s.near.host, list)
        far = await far_puncher(s, nursery)
        connection = await relayed(s)
        theirs = far_end(s)
        far.joined(theirs)
        await until(lambda: s.near.peer_id in far.errors)
        assert far.errors[s.near.peer_id] == "the other node names no address for hole punching"
        assert connection.is_open
        nursery.cancel_scope.cancel()


@trio_test
async def test_only_on_relayed_connections_and_only_in_order(logged: Logged) -> None:
    async with scene() as s:
        HolePuncher(s.far.host, lambda: s.far.host.listening)
        HolePuncher(s.middle.host, lambda: s.middle.host.listening)
        with pytest.raises(STREAM_ERRORS):
            # That connection is direct.
            await receive(await s.to_relay.open_stream(DCUTR), HolePunch())
        connection = await relayed(s)
        with pytest.raises(STREAM_ERRORS):
            stream = await connection.open_stream(DCUTR)
            await send(stream, HolePunch(type=HolePunch.SYNC))
            await receive(stream, HolePunch())


@trio_test
async def test_what_is_no_tcp_address_is_left_out(logged: Logged) -> None:
    """QUIC, circuits, names and junk: others may send them, nobody here dials them."""
    async with scene() as s, trio.open_nursery() as nursery:
        far = await far_puncher(s, nursery)
        connection = await relayed(s)
        dialled: list[str] = []

        async def note(peer_id: str, addresses: list[str], *, initiator: bool) -> None:
            dialled.extend(addresses)

        far._dial_all = note  # type: ignore[method-assign]
        stream = await connection.open_stream(DCUTR)
        told = ["/ip4/5.5.5.5/udp/4001/quic-v1", "/dns4/example.com/tcp/1", "/ip4/127.0.0.1/tcp/7"]
        raw = [Multiaddr(text).to_bytes() for text in told]
        await send(stream, HolePunch(type=HolePunch.CONNECT, ObsAddrs=[*raw, b"\xff\xff", b""]))
        answer = await receive(stream, HolePunch())
        assert [str(Multiaddr(data)) for data in answer.ObsAddrs] == s.far.host.listening
        await send(stream, HolePunch(type=HolePunch.SYNC))
        await until(lambda: bool(dialled))
        assert dialled == ["/ip4/127.0.0.1/tcp/7"]
        nursery.cancel_scope.cancel()


@trio_test
async def test_two_joins_at_once_are_one_keeper(logged: Logged) -> None:
    """Also of two circuits, or two networks; and what ends one of them ends nothing else."""
    async with scene() as s, trio.open_nursery() as nursery:
        far = await far_puncher(s, nursery)
        connection = await relayed(s)
        theirs = far_end(s)
        far.joined(theirs)
        far.joined(theirs)
        await connection.muxer.aclose()
        await until(lambda: not far._running)
        nursery.cancel_scope.cancel()


@trio_test
async def test_a_relayed_connection_that_comes_again_is_punched_for_again(logged: Logged) -> None:
    """The keeper belongs to the peer: it goes on over the newest of its connections."""
    async with scene() as s, trio.open_nursery() as nursery:
        asked: list[Connection] = []

        async def refuse(stream: MuxedStream, connection: Connection) -> None:
            asked.append(connection)
            raise ProtocolError("not now")

        s.near.host.member_handlers[DCUTR] = refuse
        far = await far_puncher(s, nursery)
        s.far.membership.on_joined.append(lambda connection, network: far.joined(connection))
        first = await relayed(s)
        await until(lambda: len(asked) == 1)
        await first.muxer.aclose()
        second = await relayed(s)
        await until(lambda: asked[-1] is second)
        nursery.cancel_scope.cancel()


@trio_test
async def test_an_address_is_awaited_once(logged: Logged) -> None:
    """A peer may name somebody else's: that one is met as our server once, and as anybody the next time."""
    async with scene() as s:
        address = "/ip4/127.0.0.1/tcp/7"
        with s.far.host.expecting([address], s.near.peer_id):
            assert s.far.host.inbound.expected == {address: s.near.peer_id}
        assert not s.far.host.inbound.expected
        # That of an open connection of somebody else is not awaited at all.
        middle = s.far.host.find(s.middle.peer_id)
        assert middle is not None
        with s.far.host.expecting([middle.address], s.near.peer_id):
            assert not s.far.host.inbound.expected

"""What a connection's streams held for readers is given back to the budget, however they end."""

from __future__ import annotations

import time

import pytest
import trio

from hived.transport import suites
from hived.transport.carrier import Carrier
from hived.transport.joint import join_socket, join_streams
from hived.transport.muxer import Muxer
from hived.transport.records import Opener, Sealer
from tests.unit.transport.joins import tcp_pair
from tests.unit.transport.pairs import (
    DATA,
    FIN,
    GO_AWAY,
    KEY_BACK,
    KEY_THERE,
    SYN,
    muxers,
    of_plane,
    plane,
    receive_all,
    settle,
    streams,
    trio_test,
)
from tests.unit.transport.rawpeer import raw, raw_peer

WAYS = ("unaccepted", "accepted later", "reset", "aclose", "read", "to a socket", "joined")


@pytest.mark.parametrize("how", WAYS)
@trio_test
async def test_streams_that_ended_before_their_connection_was_lost(how: str) -> None:
    """What came before the peer's FIN stays readable; it must not stay for ever where nobody reads it."""
    async with plane() as running:
        async with raw_peer() as (muxer, peer):
            for number in range(4):
                data = bytes(200_000)
                await peer.send(raw(DATA, SYN | FIN, 2 * number + 1, len(data), data))
            await settle()
            found = (
                [] if how in ("unaccepted", "accepted later") else [await muxer.accept() for _ in range(4)]
            )
            await settle()
            assert running.budget.buffered > 500_000
            if how == "to a socket":
                # The loss comes between trio's letting go and the data plane's taking over.
                running.call(muxer.tunnel.end_now)
                pairs = [tcp_pair() for _ in found]
                for stream, (_, local) in zip(found, pairs, strict=True):
                    join_socket(running, stream, local)
                for client, _ in pairs:
                    await client.aclose()
            elif how == "joined":
                running.call(muxer.tunnel.end_now)
                join_streams(running, found[0], found[1])
                join_streams(running, found[2], found[3])
            peer.pipe.socket.close()
            await muxer.closed.wait()
            await settle()
            for stream in found:
                if how == "reset":
                    stream.reset()
                elif how == "aclose":
                    await stream.aclose()
                elif how == "read":
                    while await stream.receive_some():
                        pass
            if how == "accepted later":
                with pytest.raises(trio.EndOfChannel):
                    await muxer.accept()
        await settle()
        assert running.budget.buffered == 0
        assert running.budget.windows == 0


@pytest.mark.parametrize("said", [raw(GO_AWAY, 0, 0, 2), raw(9, 0, 0, 2), raw(GO_AWAY, 0, 0, 0)])
@trio_test
async def test_an_inner_connection_that_ends_before_it_begins(said: bytes) -> None:
    """In the record behind its negotiation: the stream that carried it goes, too."""
    async with muxers() as (a, b):
        for _ in range(3):
            stream = await a.open()
            await stream.send_all(b"x")
            inner = Muxer(
                a.tunnel.plane,
                Carrier(await b.accept()),
                Sealer(suites.NOISE, KEY_THERE),
                Opener(suites.NOISE, KEY_BACK),
                initiator=False,
                plain=said,
            )
            await inner.run()
            await stream.aclose()
        await settle()
        assert (a.stream_count, b.stream_count) == (0, 0)
        assert a.tunnel.plane.budget.buffered == 0


@trio_test
async def test_streams_one_of_which_cannot_be_joined() -> None:
    """The peer of the second has just reset it; the first must not stay open with nobody to end it."""
    async with streams() as (_, first, _, muxer), streams() as (gone, second, _, _):
        gone.reset()
        await settle()
        with pytest.raises(trio.BrokenResourceError):
            join_streams(muxer.tunnel.plane, first, second)
        await settle()
        assert of_plane(first).dead


@trio_test
async def test_two_streams_of_one_connection_are_joined_and_it_is_lost() -> None:
    """Each ends the other; all the rest is told, too."""
    async with muxers() as (a, b):
        for _ in range(3):
            await (await a.open()).send_all(b"x")
        one, other, bystander = [await b.accept() for _ in range(3)]
        for stream in (one, other, bystander):
            assert await stream.receive_some() == b"x"
        joint = join_streams(b.tunnel.plane, one, other)
        await settle()
        a.tunnel.plane.call(a.tunnel.end_now)
        with trio.fail_after(5):
            await b.closed.wait()
            with pytest.raises(trio.BrokenResourceError):
                await bystander.receive_some()
            with pytest.raises(trio.BrokenResourceError):
                await joint.wait()


@pytest.mark.parametrize("heads", [0, 1, 2])
@trio_test
async def test_a_join_of_streams_that_have_both_ended_ends(heads: int) -> None:
    """Also where trio had still something to send on them."""
    async with streams() as (near, one, _, muxer), streams() as (far, other, _, _):
        running = muxer.tunnel.plane
        for stream in (near, far):
            await stream.send_all(b"hello")
            await stream.send_eof()
        await settle()
        assert await one.receive_some() == await other.receive_some() == b"hello"
        await settle()
        # The data plane is kept busy, so that what follows is seen all at once.
        running.call(time.sleep, 0.05)
        for stream in (one, other)[:heads]:
            await stream.send_all(b"ok")
        joint = join_streams(running, one, other)
        assert await receive_all(near) == b"ok" * (heads > 0)
        assert await receive_all(far) == b"ok" * (heads > 1)
        with trio.fail_after(5):
            await joint.wait()

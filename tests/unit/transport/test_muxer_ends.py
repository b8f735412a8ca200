"""Ends of a connection: ours, the peer's, and the network's."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest
import trio

from hived.transport.muxstream import MuxedStream
from tests.unit.transport.pairs import (
    DATA,
    FIN,
    GO_AWAY,
    RST,
    SYN,
    WINDOW,
    breaks,
    ends,
    make_muxer,
    muxers,
    plane,
    receive_all,
    settle,
    sockets,
    streams,
    trio_test,
)
from tests.unit.transport.rawpeer import RawPeer, raw, raw_peer


@pytest.mark.parametrize("how", ["aclose", "goaway", "none"])
@trio_test
async def test_an_end_that_nobody_announced_is_a_loss(how: str) -> None:
    """And how many streams it cut is known."""
    async with raw_peer() as (muxer, peer):
        await muxer.open()
        await muxer.open()
        await settle()
        if how == "goaway":
            await peer.send(raw(GO_AWAY, 0, 0, 0))
        if how == "aclose":
            await muxer.aclose()
        else:
            await peer.pipe.aclose()
        await muxer.closed.wait()
        assert muxer.lost is (how == "none")
        assert (muxer.tunnel.cut, muxer.tunnel.cut_proxied) == (2, 0)


@pytest.mark.parametrize("kind", ["socket", "tiny"])
@trio_test
async def test_aclose_ends_both_sides(kind: str) -> None:
    async with streams(kind) as (ours, theirs, a, b):
        # One that is closed on unread bytes resets its peer.
        await settle()
        await a.aclose()
        assert a.close_reason == "closed here"
        await ends(a, ours, here=True)
        await ends(b, theirs, here=False)
        assert b.close_reason in ("the peer closed the connection", "the peer went away")


@trio_test
async def test_aclose_sends_what_is_queued_and_go_away() -> None:
    async with raw_peer() as (muxer, peer):
        stream = await muxer.open()
        await stream.send_all(b"last words")
        await stream.send_eof()
        await muxer.aclose()
        assert [frame.told for frame in await peer.until_end()] == [
            (WINDOW, SYN, 2, 0),
            (DATA, 0, 2, 10),
            (DATA, FIN, 2, 0),
            (GO_AWAY, 0, 0, 0),
        ]


@trio_test
async def test_aclose_sends_what_is_queued_through_a_narrow_pipe() -> None:
    async with streams("tiny") as (ours, theirs, a, b):
        data = random.Random(1).randbytes(60_000)
        await ours.send_all(data)
        await ours.send_eof()
        await a.aclose()
        assert a.close_reason == "closed here"
        assert await receive_all(theirs) == data
        await b.closed.wait()


@pytest.mark.parametrize("kind", ["socket", "tiny"])
@trio_test
async def test_aclose_sends_what_many_streams_have_queued(kind: str) -> None:
    count, data = 40, random.Random(2).randbytes(60_000)
    async with muxers(kind) as (a, b), trio.open_nursery() as nursery:
        whole = 0

        async def read(stream: MuxedStream) -> None:
            nonlocal whole
            got = await receive_all(stream)
            whole += got == data

        streams = [await a.open() for _ in range(count)]
        for stream in streams:
            await stream.send_all(data[:1])
        # What has not been accepted when the end comes is dropped: here all is.
        for _ in range(count):
            nursery.start_soon(read, await b.accept())
        for stream in streams:
            await stream.send_all(data[1:])
            await stream.aclose()
        nursery.start_soon(a.aclose)
    assert whole == count


@trio_test
async def test_who_gives_up_opening_waits_no_more() -> None:
    """The peer acknowledges nothing."""
    async with raw_peer() as (muxer, _):
        for _ in range(muxer.tunnel.session.limits.ack_backlog):
            await muxer.open()
        for _ in range(20):
            with trio.CancelScope() as scope:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(muxer.open)
                    await settle()
                    scope.cancel()
        await settle()
        assert not muxer.tunnel.session._waiting


@trio_test
async def test_aclose_is_bounded_against_a_peer_that_does_not_read() -> None:
    async with raw_peer(kind="tiny") as (muxer, _), trio.open_nursery() as nursery:
        stream = await muxer.open()
        nursery.start_soon(breaks, lambda: stream.send_all(bytes(2**20)))
        await settle()
        before = trio.current_time()
        await muxer.aclose()
        assert trio.current_time() - before <= 2.0
        assert muxer.closed.is_set()


@trio_test
async def test_aclose_before_run() -> None:
    one, other = sockets()
    async with plane() as running:
        muxer = make_muxer(running, one, initiator=True)
        await muxer.aclose()
        peer = RawPeer(other, initiator=False)
        assert [frame.told for frame in await peer.until_end()] in ([], [(GO_AWAY, 0, 0, 0)])
        await muxer.run()
        with pytest.raises(trio.ClosedResourceError):
            await muxer.open()
        other.close()


@trio_test
async def test_aclose_cancelled_closes_too() -> None:
    async with raw_peer(kind="tiny") as (muxer, peer), trio.open_nursery() as nursery:
        stream = await muxer.open()
        nursery.start_soon(breaks, lambda: stream.send_all(bytes(2**20)))
        await settle()
        with trio.CancelScope() as scope:
            scope.cancel()
            await muxer.aclose()
        await muxer.closed.wait()
        await receive_all(peer.pipe)


@trio_test
async def test_the_peer_vanishes() -> None:
    async with raw_peer() as (muxer, peer):
        await peer.send(raw(WINDOW, SYN, 1, 0), raw(DATA, 0, 1, 3, b"abc"))
        stream = await muxer.accept()
        waits: list[str] = []

        async def wait_for(what: str, call: Callable[[], object], error: type[Exception]) -> None:
            with pytest.raises(error):
                await call()  # type: ignore[misc]  # any awaitable
            waits.append(what)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(wait_for, "accept", muxer.accept, trio.EndOfChannel)
            nursery.start_soon(
                wait_for, "send", lambda: stream.send_all(bytes(2**20)), trio.BrokenResourceError
            )
            nursery.start_soon(wait_for, "wait_broken", stream.wait_broken, trio.BrokenResourceError)
            await settle()
            await trio.aclose_forcefully(peer.pipe)
        assert sorted(waits) == ["accept", "send", "wait_broken"]
        assert muxer.close_reason
        await ends(muxer, stream, here=False)


@pytest.mark.parametrize("what", ["flipped", "too long", "too short", "half"])
@trio_test
async def test_a_record_that_is_not_the_peers_ends_the_connection(what: str) -> None:
    async with raw_peer() as (muxer, peer):
        stream = await muxer.open()
        sealed = peer.sealed(raw(WINDOW, SYN, 1, 0))
        await peer.pipe.send_all(
            {
                "flipped": sealed[:-1] + bytes([sealed[-1] ^ 1]),
                "too long": b"\xff\xff" + bytes(70_000),
                "too short": b"\x00\x03abc",
                "half": sealed[:-1],
            }[what]
        )
        if what == "half":
            await peer.pipe.send_eof()
        await ends(muxer, stream, here=False)
        assert muxer.close_reason.startswith("the peer closed" if what == "half" else "bad record")


@trio_test
async def test_a_pipe_that_breaks_ends_the_connection_without_an_exception() -> None:
    for way in ("reset", "not connected"):
        one, other = sockets()
        async with plane() as running:
            if way == "reset":
                # Closed with unread bytes in it, a pair's end resets the other.
                one.send(b"unread")
            else:
                one = type(one)(one.family, one.type)
                one.setblocking(False)
            other.close()
            muxer = make_muxer(running, one, initiator=True)
            await muxer.run()
            assert muxer.closed.is_set()
            assert muxer.close_reason


@trio_test
async def test_a_pipe_that_is_closed_already_ends_the_connection_without_an_exception() -> None:
    one, other = sockets()
    async with plane() as running:
        muxer = make_muxer(running, one, initiator=True)
        one.close()
        await muxer.run()
        assert muxer.close_reason.startswith("the connection broke")
        other.close()


@trio_test
async def test_cancelling_run_closes_everything() -> None:
    one, other = sockets()
    async with plane() as running:
        muxer = make_muxer(running, one, initiator=True)
        async with trio.open_nursery() as nursery:
            await nursery.start(muxer.run)
            stream = await muxer.open()
            nursery.cancel_scope.cancel()
        assert muxer.close_reason == "cancelled"
        assert not muxer.lost
        await ends(muxer, stream, here=False)
        peer = RawPeer(other, initiator=False)
        assert GO_AWAY not in [frame.kind for frame in await peer.until_end()]
        other.close()


@trio_test
async def test_what_ended_cleanly_stays_readable_when_the_connection_is_lost() -> None:
    async with raw_peer() as (muxer, peer):
        data = random.Random(5).randbytes(200_000)
        await peer.send(raw(WINDOW, SYN, 1, 0), raw(DATA, FIN, 1, len(data), data))
        stream = await muxer.accept()
        await settle()
        await trio.aclose_forcefully(peer.pipe)
        await muxer.closed.wait()
        await settle()
        assert await receive_all(stream) == data
        with pytest.raises(trio.BrokenResourceError):
            await stream.send_all(b"x")
        await settle()
        assert muxer.tunnel.plane.budget.buffered == 0


@trio_test
async def test_a_muxer_closed_before_run_is_closed_though_cancelled() -> None:
    one, other = sockets()
    async with plane() as running:
        muxer = make_muxer(running, one, initiator=True)
        with trio.CancelScope() as scope:
            scope.cancel()
            await muxer.aclose()
        await muxer.closed.wait()
        await RawPeer(other, initiator=False).until_end()
        other.close()


# GoAway


@trio_test
async def test_go_away_lets_streams_finish() -> None:
    async with raw_peer() as (muxer, peer):
        await peer.send(raw(WINDOW, SYN, 1, 0), raw(GO_AWAY, 0, 0, 0))
        stream = await muxer.accept()
        await settle()
        assert muxer.draining
        with pytest.raises(trio.BrokenResourceError):
            await muxer.open()
        await peer.send(raw(WINDOW, SYN, 3, 0), raw(DATA, FIN, 1, 2, b"ok"))
        assert await receive_all(stream) == b"ok"
        assert not muxer.closed.is_set()
        await stream.aclose()
        await muxer.closed.wait()
        told = [frame.told for frame in await peer.until_end()]
        assert (WINDOW, RST, 3, 0) in told
        assert told[-1] == (GO_AWAY, 0, 0, 0)


@trio_test
async def test_draining_ends_with_the_peers_last_fin() -> None:
    before = trio.current_time()
    async with raw_peer() as (muxer, peer):
        await peer.send(raw(WINDOW, SYN, 1, 0), raw(GO_AWAY, 0, 0, 0))
        stream = await muxer.accept()
        await stream.send_eof()
        await settle()
        assert not muxer.closed.is_set()
        await peer.send(raw(DATA, FIN, 1, 0))
        await muxer.closed.wait()
        assert muxer.close_reason == "the peer went away"
        assert trio.current_time() - before < 5, "and not with the next ping"


@trio_test
async def test_go_away_wakes_those_that_wait_to_open() -> None:
    async with raw_peer(ack_backlog=1) as (muxer, peer), trio.open_nursery() as nursery:
        await muxer.open()
        nursery.start_soon(breaks, muxer.open)
        nursery.start_soon(breaks, muxer.open)
        await settle()
        await peer.send(raw(GO_AWAY, 0, 0, 0))


@pytest.mark.parametrize("code", [1, 2, 4101])
@trio_test
async def test_go_away_with_an_error_ends_at_once(code: int) -> None:
    async with raw_peer() as (muxer, peer):
        stream = await muxer.open()
        await peer.send(raw(GO_AWAY, 0, 0, code))
        await ends(muxer, stream, here=False)
        assert muxer.close_reason == f"the peer ended the connection, code {code}"

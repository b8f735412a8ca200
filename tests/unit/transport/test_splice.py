"""Two streams joined by a relay: every byte, each end, each reset, and no more memory than windows."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import pytest
import trio

from hived.transport.joint import Joint, join_streams
from hived.transport.limits import MuxLimits
from hived.transport.mailbox import PIECE_BYTES
from hived.transport.muxer import Muxer
from hived.transport.muxstream import MuxedStream
from hived.transport.plane import Plane
from tests.unit.transport.joins import transfer
from tests.unit.transport.pairs import (
    WINDOW_BYTES,
    break_soon,
    make_muxer,
    plane,
    receive_all,
    receive_exactly,
    settle,
    sockets,
    trio_test,
)


@dataclass
class Relayed:
    """``a`` and ``b`` are the far ends of a relay's two halves."""

    running: Plane
    a: MuxedStream
    b: MuxedStream
    joint: Joint
    muxers: list[Muxer]


@asynccontextmanager
async def relayed(to_b: bytes = b"", to_a: bytes = b"") -> AsyncIterator[Relayed]:
    """A and B, each connected to a relay. What comes before the join: ``to_b`` from A, ``to_a`` from B."""
    async with plane() as running, trio.open_nursery() as nursery:
        made = []
        for pair in (sockets(), sockets()):
            for sock, initiator in zip(pair, (True, False), strict=True):
                muxer = make_muxer(running, sock, initiator=initiator)
                await nursery.start(muxer.run)
                made.append(muxer)
        of_a, relay_a, of_b, relay_b = made
        a, b = await of_a.open(), await of_b.open()
        half_a, half_b = await relay_a.accept(), await relay_b.accept()
        await a.send_all(to_b)
        await b.send_all(to_a)
        await settle()
        joint = join_streams(running, half_a, half_b)
        yield Relayed(running, a, b, joint, made)
        a.reset()
        b.reset()
        await settle()
        assert [muxer.stream_count for muxer in made] == [0] * 4
        assert (running.budget.windows, running.budget.buffered) == (0, 0)
        nursery.cancel_scope.cancel()


@trio_test
async def test_100_mb_and_the_counters() -> None:
    async with relayed() as found:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(transfer, found.a, found.b, 60, 1)
            nursery.start_soon(transfer, found.b, found.a, 40, 2)
        await found.joint.wait()
        # From the first stream, and to it.
        assert (found.joint.bytes_out, found.joint.bytes_in) == (60_000_000, 40_000_000)


@pytest.mark.full
@pytest.mark.timeout(300)
def test_a_gib_each_way() -> None:
    """Over two relayed halves at once, with equal hashes."""

    async def main() -> None:
        async with relayed() as found, trio.open_nursery() as nursery:
            nursery.start_soon(transfer, found.a, found.b, 1074, 1)
            nursery.start_soon(transfer, found.b, found.a, 1074, 2)

    trio.run(main)


@pytest.mark.full
@pytest.mark.timeout(200)
def test_a_minute_of_silence_and_a_minute_of_stalling() -> None:
    """Neither is an error; what waited arrives."""

    async def main() -> None:
        async with relayed() as found:
            data = random.Random(5).randbytes(8 * WINDOW_BYTES)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(found.a.send_all, data)
                await trio.sleep(60)
                assert await receive_exactly(found.b, len(data)) == data
            await trio.sleep(60)
            await found.b.send_all(b"still here")
            assert await receive_exactly(found.a, 10) == b"still here"

    trio.run(main)


@pytest.mark.parametrize("first", ["a", "b"])
@trio_test
async def test_half_closes_pass_each_for_itself(first: str) -> None:
    async with relayed() as found:
        one, other = (found.a, found.b) if first == "a" else (found.b, found.a)
        await one.send_all(b"question")
        await one.send_eof()
        assert await receive_all(other) == b"question"
        assert not found.joint.ended.is_set()
        await other.send_all(b"answer" * 50_000)
        await other.send_eof()
        assert await receive_all(one) == b"answer" * 50_000
        await found.joint.wait()
        assert not one.was_reset
        assert not other.was_reset


@trio_test
async def test_both_end_at_once() -> None:
    async with relayed() as found:
        await found.a.send_eof()
        await found.b.send_eof()
        assert await receive_all(found.a) == b"" == await receive_all(found.b)
        await found.joint.wait()


@trio_test
async def test_what_came_before_the_join_comes_first() -> None:
    to_b, to_a = random.Random(1).randbytes(200_000), random.Random(2).randbytes(300)
    async with relayed(to_b, to_a) as found:
        await found.a.send_all(b"and more")
        await found.a.send_eof()
        await found.b.send_eof()
        assert await receive_all(found.b) == to_b + b"and more"
        assert await receive_all(found.a) == to_a


@trio_test
async def test_a_stalled_reader_stalls_its_writer_and_memory_is_bounded_by_windows() -> None:
    async with relayed() as found, trio.open_nursery() as nursery:
        data = random.Random(3).randbytes(30_000_000)

        async def send() -> None:
            await found.a.send_all(data)
            await found.a.send_eof()

        nursery.start_soon(send)
        with trio.fail_after(10):
            await receive_exactly(found.b, 1)
        await settle()
        largest = MuxLimits().max_window
        assert found.a.bytes_out < 30_000_000
        # At the relay one window, at B another with a piece in its hands, at A its place in the data plane.
        assert found.running.budget.buffered <= 2 * largest
        assert found.a.bytes_out <= 2 * largest + 2 * PIECE_BYTES + 2**19
        before = found.a.bytes_out
        # The other way is not concerned.
        await found.b.send_all(b"still")
        assert await receive_exactly(found.a, 5) == b"still"
        assert found.a.bytes_out == before
        assert await receive_all(found.b) == data[1:]


@pytest.mark.parametrize("who", ["a", "b"])
@trio_test
async def test_a_reset_of_one_is_a_reset_of_the_other(who: str) -> None:
    async with relayed() as found:
        one, other = (found.a, found.b) if who == "a" else (found.b, found.a)
        await one.send_all(b"x")
        assert await receive_exactly(other, 1) == b"x"
        one.reset()
        with pytest.raises(trio.BrokenResourceError):
            await other.receive_some()
        with pytest.raises(trio.BrokenResourceError, match="reset"):
            await found.joint.wait()


@pytest.mark.parametrize("half_closed", [False, True])
@pytest.mark.parametrize("who", ["a", "b"])
@trio_test
async def test_the_loss_of_one_connection_is_a_reset_of_the_other(who: str, half_closed: bool) -> None:
    """Also with bytes that nobody has taken: nothing of them stays."""
    async with relayed() as found:
        one, other = (found.a, found.b) if who == "a" else (found.b, found.a)
        # More than the other takes: the relay holds some of it.
        await one.send_all(bytes(2 * WINDOW_BYTES))
        if half_closed:
            await one.send_eof()
        await settle()
        assert found.running.budget.buffered > WINDOW_BYTES
        await found.muxers[0 if who == "a" else 2].aclose()
        with pytest.raises(trio.BrokenResourceError):
            await receive_all(other)
        with pytest.raises(trio.BrokenResourceError):
            await found.joint.wait()


@trio_test
async def test_a_cut_is_a_reset_of_both() -> None:
    async with relayed() as found:
        with trio.CancelScope() as scope:
            scope.cancel()
            await found.joint.wait()
        for stream in (found.a, found.b):
            with pytest.raises(trio.BrokenResourceError):
                await stream.receive_some()


@trio_test
async def test_a_stream_that_ended_before_the_join_is_a_reset_of_the_other() -> None:
    async with plane() as running, trio.open_nursery() as nursery:
        made = []
        for pair in (sockets(), sockets()):
            for sock, initiator in zip(pair, (True, False), strict=True):
                muxer = make_muxer(running, sock, initiator=initiator)
                await nursery.start(muxer.run)
                made.append(muxer)
        a, b = await made[0].open(), await made[2].open()
        half_a, half_b = await made[1].accept(), await made[3].accept()
        lost = half_a.mailbox.stream
        assert lost is not None
        break_soon(running, lost)
        joint = join_streams(running, half_a, half_b)
        with pytest.raises(trio.BrokenResourceError, match="ended"):
            await joint.wait()
        for stream in (a, b):
            with pytest.raises(trio.BrokenResourceError):
                await stream.receive_some()
        nursery.cancel_scope.cancel()

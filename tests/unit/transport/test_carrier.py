"""A connection inside a stream of another: sealed twice, muxed twice, as through a relay."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import pytest
import trio

from hived.transport import suites
from hived.transport.carrier import Carrier
from hived.transport.limits import MuxLimits
from hived.transport.muxer import Muxer
from hived.transport.muxstream import MuxedStream
from hived.transport.records import Opener, Sealer
from hived.transport.suites import Suite
from tests.unit.transport.joins import transfer
from tests.unit.transport.pairs import (
    KEY_BACK,
    KEY_THERE,
    WINDOW_BYTES,
    break_soon,
    muxers,
    receive_all,
    receive_exactly,
    settle,
    trio_test,
)


@dataclass
class Carried:
    """Two outer muxers, and two inner ones over a stream of them."""

    a: Muxer
    b: Muxer
    inner_a: Muxer
    inner_b: Muxer


def inner(outer: Muxer, stream: MuxedStream, suite: Suite, *, initiator: bool) -> Muxer:
    mine, theirs = (KEY_BACK, KEY_THERE) if initiator else (KEY_THERE, KEY_BACK)
    return Muxer(
        outer.tunnel.plane,
        Carrier(stream),
        Sealer(suite, mine),
        Opener(suite, theirs),
        initiator=initiator,
        limits=MuxLimits(keep_alive=0.2, keep_alive_timeout=5.0),
    )


@asynccontextmanager
async def carried(suite: Suite = suites.NOISE, outer: Suite = suites.NOISE) -> AsyncIterator[Carried]:
    async with muxers("socket", outer) as (a, b), trio.open_nursery() as nursery:
        ours, theirs = await a.open(), await b.accept()
        made = inner(a, ours, suite, initiator=True), inner(b, theirs, suite, initiator=False)
        with pytest.raises(trio.ClosedResourceError):
            await ours.send_all(b"the stream is the carrier's")
        for muxer in made:
            await nursery.start(muxer.run)
        yield Carried(a, b, *made)
        await made[0].aclose()
        await made[1].closed.wait()
        await settle()
        assert (a.stream_count, b.stream_count) == (0, 0)
        budget = a.tunnel.plane.budget
        assert (budget.windows, budget.buffered) == (0, 0)
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("suite", [suites.NOISE, suites.AESGCM_LONG], ids=lambda suite: suite.protocol)
@pytest.mark.parametrize("outer", [suites.NOISE, suites.AESGCM_LONG], ids=lambda suite: suite.protocol)
@trio_test
async def test_50_mb_both_ways(suite: Suite, outer: Suite) -> None:
    async with carried(suite, outer) as found:
        one = await found.inner_a.open()
        other = await found.inner_b.accept()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(transfer, one, other, 50, 1)
            nursery.start_soon(transfer, other, one, 50, 2)


@trio_test
async def test_many_streams_and_half_closes() -> None:
    async with carried() as found:

        async def ask(number: int) -> None:
            stream = await found.inner_a.open()
            question = random.Random(number).randbytes(number * 5000)
            await stream.send_all(question)
            await stream.send_eof()
            assert await receive_all(stream) == question[::-1]

        async def answer() -> None:
            stream = await found.inner_b.accept()
            await stream.send_all((await receive_all(stream))[::-1])
            await stream.send_eof()

        async with trio.open_nursery() as nursery:
            for number in range(40):
                nursery.start_soon(ask, number)
                nursery.start_soon(answer)
        await settle()
        assert found.inner_a.stream_count == found.inner_b.stream_count == 0


@trio_test
async def test_a_stalled_reader_stalls_its_stream_only() -> None:
    async with carried() as found, trio.open_nursery() as nursery:
        stalled, lively = await found.inner_a.open(), await found.inner_a.open()
        their_stalled, their_lively = await found.inner_b.accept(), await found.inner_b.accept()
        outside, their_outside = await found.a.open(), await found.b.accept()
        nursery.start_soon(stalled.send_all, bytes(4 * WINDOW_BYTES))
        await settle()
        assert stalled.bytes_out < 3 * WINDOW_BYTES
        for one, other in ((lively, their_lively), (outside, their_outside)):
            async with trio.open_nursery() as sending:
                sending.start_soon(one.send_all, bytes(4_000_000))
                await receive_exactly(other, 4_000_000)
        assert await receive_exactly(their_stalled, 4 * WINDOW_BYTES) == bytes(4 * WINDOW_BYTES)
        outside.reset()


@trio_test
async def test_the_end_of_the_inner_connection_leaves_the_outer_one() -> None:
    async with carried() as found:
        stream = await found.inner_a.open()
        theirs = await found.inner_b.accept()
        await stream.send_all(b"last words")
        await stream.send_eof()
        await found.inner_a.aclose()
        await found.inner_b.closed.wait()
        assert found.inner_b.close_reason in ("the peer closed the connection", "the peer went away")
        assert await receive_all(theirs) == b"last words"
        outside = await found.a.open()
        await outside.send_all(b"alive")
        their_outside = await found.b.accept()
        assert await receive_exactly(their_outside, 5) == b"alive"
        await outside.aclose()
        await their_outside.aclose()


@pytest.mark.parametrize("how", ["aclose", "lost", "reset"])
@trio_test
async def test_the_loss_of_the_outer_one_ends_the_inner_one(how: str) -> None:
    async with carried() as found:
        stream = await found.inner_a.open()
        theirs = await found.inner_b.accept()
        await stream.send_all(bytes(WINDOW_BYTES))
        await settle()
        running = found.a.tunnel.plane
        if how == "aclose":
            await found.a.aclose()
        elif how == "lost":
            running.call(found.a.tunnel.end_now)
        else:
            outer = next(iter(found.a.tunnel.session.streams.values()))
            break_soon(running, outer)
        for muxer in (found.inner_a, found.inner_b):
            with trio.fail_after(10):
                await muxer.closed.wait()
            assert muxer.close_reason
        with pytest.raises(trio.BrokenResourceError):
            while True:
                await theirs.receive_some()


@trio_test
async def test_an_idle_inner_connection_lives_by_its_own_pings() -> None:
    async with carried() as found:
        await trio.sleep(1)
        assert not found.inner_a.closed.is_set()
        assert found.inner_a.rtt is not None


@trio_test
async def test_bytes_that_came_before_are_the_inner_connections() -> None:
    """A handshake was read by trio; what follows had come already, in its hands or in the window."""
    async with muxers() as (a, b), trio.open_nursery() as nursery:
        ours, theirs = await a.open(), await b.accept()
        await ours.send_all(b"handshake")
        one = inner(a, ours, suites.NOISE, initiator=True)
        await nursery.start(one.run)
        stream = await one.open()
        await stream.send_all(bytes(200_000))
        await settle()
        assert await receive_exactly(theirs, 9) == b"handshake"
        other = inner(b, theirs, suites.NOISE, initiator=False)
        await nursery.start(other.run)
        assert await receive_exactly(await other.accept(), 200_000) == bytes(200_000)
        nursery.cancel_scope.cancel()


@trio_test
async def test_a_stream_that_has_ended_carries_nothing() -> None:
    async with muxers() as (a, b):
        ours, theirs = await a.open(), await b.accept()
        made = inner(a, ours, suites.NOISE, initiator=True)
        theirs.reset()
        await settle()
        await made.run()
        assert made.close_reason.startswith("the connection broke")
        with pytest.raises(trio.ClosedResourceError):
            Carrier(ours)


@trio_test
async def test_a_stream_may_be_opened_before_the_circuit_has_begun() -> None:
    """Whoever has just dialled opens one at once, perhaps before the connection runs."""
    async with muxers() as (a, b), trio.open_nursery() as nursery:
        ours, theirs = await a.open(), await b.accept()
        near, far = (
            inner(a, ours, suites.NOISE, initiator=True),
            inner(b, theirs, suites.NOISE, initiator=False),
        )
        stream = await near.open()
        await stream.send_all(b"early")
        await settle()
        assert not near.closed.is_set()
        for muxer in (near, far):
            await nursery.start(muxer.run)
        assert await receive_exactly(await far.accept(), 5) == b"early"
        nursery.cancel_scope.cancel()


@trio_test
async def test_a_circuit_may_end_before_it_has_begun() -> None:
    async with muxers() as (a, b):
        near = inner(a, await a.open(), suites.NOISE, initiator=True)
        await near.open()
        with trio.fail_after(5):
            await near.aclose()
        assert near.closed.is_set()
        await settle()
        assert b.stream_count == 0

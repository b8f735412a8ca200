"""Many streams of one connection: equal among bulk by bytes, short messages beside it by order."""

from __future__ import annotations

import pytest
import trio

from hived.transport import suites
from hived.transport.muxstream import MuxedStream
from hived.transport.outbox import QUANTUM
from hived.transport.suites import Suite
from tests.unit.transport.pairs import (
    ACK,
    DATA,
    FIN,
    PING,
    SYN,
    WINDOW,
    muxers,
    receive_exactly,
    settle,
    trio_test,
)
from tests.unit.transport.rawpeer import RawPeer, raw, raw_peer

HUGE = 2**31


async def given_window(peer: RawPeer, *numbers: int) -> None:
    await peer.send(*(raw(WINDOW, ACK, number, HUGE) for number in numbers))


@pytest.mark.parametrize("suite", [suites.NOISE, suites.AESGCM_LONG], ids=lambda suite: suite.protocol)
@trio_test
async def test_bulk_streams_get_equal_shares_by_bytes(suite: Suite) -> None:
    """One of them gives its bytes in pieces of a quarter: it has as much as the others."""
    async with raw_peer(kind="tiny", suite=suite) as (muxer, peer), trio.open_nursery() as nursery:
        made = [await muxer.open() for _ in range(4)]
        await given_window(peer, *(stream.id for stream in made))

        async def send(stream: MuxedStream, size: int) -> None:
            while True:
                await stream.send_all(bytes(size))

        for stream, size in zip(made, (16 * 1024, 65536, 65536, 1_000_000), strict=True):
            nursery.start_soon(send, stream, size)
        got = dict.fromkeys((stream.id for stream in made), 0)
        while sum(got.values()) < 16_000_000:
            frame = await peer.frame()
            if frame.kind == DATA:
                got[frame.stream_id] += frame.length
        nursery.cancel_scope.cancel()
    share = sum(got.values()) / len(got)
    # Nobody is owed more than some turns: the rest of the time all have had the same.
    assert all(abs(count - share) < share / 2 + 4 * QUANTUM for count in got.values()), got


@trio_test
async def test_a_short_message_goes_before_bulk_that_waits() -> None:
    """By order on the wire: behind what had left for the pipe, before the next records of the uploads."""
    async with raw_peer(kind="tiny") as (muxer, peer), trio.open_nursery() as nursery:
        uploads = [await muxer.open() for _ in range(3)]
        terminal = await muxer.open()
        await given_window(peer, *(stream.id for stream in (*uploads, terminal)))
        for stream in uploads:
            nursery.start_soon(stream.send_all, bytes(4_000_000))
        # Until all three are known for what they are.
        seen = dict.fromkeys((stream.id for stream in uploads), 0)
        while min(seen.values()) < 4:
            frame = await peer.frame()
            if frame.kind == DATA:
                seen[frame.stream_id] += 1
        for _ in range(5):
            await settle()
            await terminal.send_all(b"keystroke")
            await settle()
            between = 0
            while (frame := await peer.frame()).stream_id != terminal.id:
                between += frame.kind == DATA
            # One record is with the pipe, and one was sealed with it at most.
            assert between <= 2
        nursery.cancel_scope.cancel()


@trio_test
async def test_pings_and_window_updates_go_before_bulk_that_waits() -> None:
    async with raw_peer(kind="tiny") as (muxer, peer), trio.open_nursery() as nursery:
        upload = await muxer.open()
        await given_window(peer, upload.id)
        nursery.start_soon(upload.send_all, bytes(4_000_000))
        await settle()
        await peer.send(raw(PING, SYN, 0, 77), raw(WINDOW, SYN, 1, 0), raw(DATA, FIN, 1, 3, b"abc"))
        stream = await muxer.accept()
        await stream.aclose()
        await settle()
        order: list[tuple[int, int]] = []
        while (DATA, 1) not in order:
            frame = await peer.any_frame()
            order.append((frame.kind, frame.stream_id))
        assert order.count((DATA, upload.id)) <= 3
        assert (PING, 0) in order
        assert order.index((WINDOW, 1)) < order.index((DATA, 1))
        nursery.cancel_scope.cancel()


@trio_test
async def test_short_messages_do_not_starve_bulk() -> None:
    """Thirty talkative streams that always have something, and an upload that gets on all the same."""
    async with raw_peer(kind="tiny") as (muxer, peer), trio.open_nursery() as nursery:
        upload = await muxer.open()
        talkers = [await muxer.open() for _ in range(30)]
        await given_window(peer, *(stream.id for stream in (upload, *talkers)))

        async def talk(stream: MuxedStream) -> None:
            while True:
                await stream.send_all(bytes(1000))

        nursery.start_soon(upload.send_all, bytes(4_000_000))
        for stream in talkers:
            nursery.start_soon(talk, stream)
        records = 0
        for _ in range(3000):
            frame = await peer.frame()
            records += frame.kind == DATA and frame.stream_id == upload.id
        assert records >= 10
        nursery.cancel_scope.cancel()


@trio_test
async def test_a_terminal_answers_beside_eight_transfers() -> None:
    """The whole way, both ways: echoes come back while eight streams move their megabytes."""
    async with muxers() as (a, b), trio.open_nursery() as nursery:

        async def upload() -> None:
            stream = await a.open()
            await stream.send_all(b"u")
            while True:
                await stream.send_all(bytes(65536))

        async def discard(stream: MuxedStream) -> None:
            while True:
                await stream.receive_some()

        async def echo(stream: MuxedStream) -> None:
            while True:
                await stream.send_all(await stream.receive_some())

        async def serve() -> None:
            while True:
                stream = await b.accept()
                first = await receive_exactly(stream, 1)
                nursery.start_soon(echo if first == b"t" else discard, stream)

        nursery.start_soon(serve)
        for _ in range(8):
            nursery.start_soon(upload)
        terminal = await a.open()
        await terminal.send_all(b"t")
        for number in range(200):
            await terminal.send_all(number.to_bytes(2, "big"))
            assert await receive_exactly(terminal, 2) == number.to_bytes(2, "big")
        nursery.cancel_scope.cancel()

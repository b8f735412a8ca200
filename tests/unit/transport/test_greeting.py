"""Looking at an incoming stream's first bytes on the data plane's thread."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from hived.transport.muxer import Muxer
from hived.transport.stream import EOF, Stream
from tests.unit.transport.pairs import (
    ACK,
    DATA,
    FIN,
    RST,
    SYN,
    WINDOW,
    WINDOW_BYTES,
    receive_all,
    receive_exactly,
    settle,
    trio_test,
)
from tests.unit.transport.rawpeer import RawPeer, raw, raw_peer


class Echo:
    """An end that says once what it was given, and ends when the peer does."""

    def __init__(self, stream: Stream) -> None:
        self.stream = stream
        self.data = b""
        self.done = False

    @property
    def readable(self) -> bool:
        return bool(self.data) or self.done

    def deliver(self, data: memoryview) -> int:
        self.data += bytes(data)
        self.stream.ready()
        return len(data)

    def pull(self, space: memoryview) -> int:
        size = min(len(space), len(self.data))
        space[:size] = self.data[:size]
        self.data = self.data[size:]
        return size or (EOF if self.done else 0)

    def finished(self) -> None:
        self.done = True
        self.stream.ready()

    def broken(self, why: str, *, received: bool) -> None: ...


@asynccontextmanager
async def greeted() -> AsyncIterator[tuple[Muxer, RawPeer, list[bytes]]]:
    """A muxer that keeps streams that begin with "echo:" and leaves others, its peer, and what it saw."""
    seen: list[bytes] = []

    def greet(stream: Stream, data: bytes) -> bool | None:
        seen.append(data)
        if data.startswith(b"echo:"):
            stream.session.accept(stream)
            stream.put_back(data[5:])
            stream.attach(Echo(stream))
            return True
        return None if b"echo:".startswith(data) else False

    # Windows that do not grow: what credit is given is what was read.
    async with raw_peer(max_window=WINDOW_BYTES) as (muxer, peer):
        muxer.greeter = greet
        yield muxer, peer, seen


def data(stream_id: int, payload: bytes, flags: int = 0) -> bytes:
    return raw(DATA, flags, stream_id, len(payload), payload)


@trio_test
async def test_a_stream_is_kept_and_never_comes_to_trio() -> None:
    async with greeted() as (muxer, peer, _):
        await peer.send(raw(WINDOW, SYN, 1, 0), data(1, b"echo:hello"))
        assert [(await peer.frame()).told, (frame := await peer.frame()).told] == [
            (WINDOW, ACK, 1, 0),
            (DATA, 0, 1, 5),
        ]
        assert frame.payload == b"hello"
        await peer.send(data(1, b" again", FIN))
        assert (await peer.frame()).payload == b" again"
        assert (await peer.frame()).told == (DATA, FIN, 1, 0)
        await settle()
        assert muxer.stream_count == 0
        assert not muxer._incoming


@trio_test
async def test_its_first_bytes_in_several_frames_of_one_read() -> None:
    async with greeted() as (_, peer, seen):
        await peer.send(raw(WINDOW, SYN, 1, 0), data(1, b"ec"), data(1, b"ho:"), data(1, b"hi"))
        assert (await peer.frame()).told == (WINDOW, ACK, 1, 0)
        assert await peer._exactly(12 + 2) == data(1, b"hi")
        assert seen == [b"ec", b"echo:"]


@pytest.mark.parametrize(
    "first",
    [b"other protocol", b"e", b"ec", b"", b"echo" * 400],
    ids=["refused", "one byte", "two", "none", "long"],
)
@trio_test
async def test_what_is_not_kept_comes_to_trio_as_if_nobody_had_looked(first: bytes) -> None:
    async with greeted() as (muxer, peer, _):
        await peer.send(raw(WINDOW, SYN, 1, 0), *([data(1, first)] if first else []))
        stream = await muxer.accept()
        await peer.send(data(1, b"and more", FIN))
        assert await receive_all(stream) == first + b"and more"
        await stream.send_all(b"answer")
        assert [(await peer.frame()).told, (await peer.frame()).told] == [
            (WINDOW, ACK, 1, 0),
            (DATA, 0, 1, 6),
        ]
        await stream.send_eof()
        await settle()
        assert muxer.stream_count == 0
        assert muxer.tunnel.plane.budget.buffered == 0


@trio_test
async def test_a_stream_that_ends_within_its_greeting() -> None:
    async with greeted() as (muxer, peer, _):
        await peer.send(raw(WINDOW, SYN, 1, 0), data(1, b"ech", FIN))
        assert await receive_all(await muxer.accept()) == b"ech"


@trio_test
async def test_streams_of_one_read_are_accepted_in_their_order() -> None:
    async with greeted() as (muxer, peer, _):
        frames = []
        for number in (1, 3, 5, 7):
            frames += [raw(WINDOW, SYN, number, 0), *([data(number, b"ec")] if number != 3 else [])]
        await peer.send(*frames)
        assert [(await muxer.accept()).id for _ in range(4)] == [1, 3, 5, 7]


@trio_test
async def test_a_stream_reset_within_its_greeting_is_never_seen() -> None:
    async with greeted() as (muxer, peer, _):
        await peer.send(raw(WINDOW, SYN, 1, 0), data(1, b"ec"), raw(WINDOW, RST, 1, 0))
        await peer.send(raw(WINDOW, SYN, 3, 0), data(3, b"me"))
        stream = await muxer.accept()
        assert stream.id == 3
        assert await receive_exactly(stream, 2) == b"me"
        assert muxer.stream_count == 1
        stream.reset()
        await settle()
        assert muxer.tunnel.plane.budget.buffered == 0
        assert muxer.tunnel.session._backlog == set()


@trio_test
async def test_the_window_counts_what_was_looked_at() -> None:
    """A quarter of it was read by looking and then by trio, not twice."""
    async with greeted() as (muxer, peer, _):
        await peer.send(raw(WINDOW, SYN, 1, 0), data(1, b"x" * 65_535))
        stream = await muxer.accept()
        await receive_exactly(stream, 65_535)
        assert [frame.told for frame in await peer.settled()] == [(WINDOW, ACK, 1, 0)]
        await peer.send(data(1, b"y"))
        assert await receive_exactly(stream, 1) == b"y"
        assert [frame.told for frame in await peer.settled()] == [(WINDOW, 0, 1, 65_536)]


@trio_test
async def test_a_defect_of_the_greeter_ends_its_stream_only(caplog: pytest.LogCaptureFixture) -> None:
    def defective(stream: Stream, data: bytes) -> bool | None:
        raise RuntimeError("a defect")

    async with raw_peer() as (muxer, peer):
        muxer.greeter = defective
        await peer.send(raw(WINDOW, SYN, 1, 0), data(1, b"x"))
        assert (await peer.frame()).told == (WINDOW, RST, 1, 0)
        assert muxer.stream_count == 0
        muxer.greeter = None
        await peer.send(raw(WINDOW, SYN, 3, 0))
        assert (await muxer.accept()).id == 3
    assert "a defect in the handling of a stream" in caplog.text


@trio_test
async def test_who_opens_and_resets_faster_than_is_looked_at_is_refused() -> None:
    """In one read, so that no stream lives long enough to be passed on."""
    async with greeted() as (muxer, peer, seen):
        frames = b"".join(data(2 * n + 1, b"e", SYN) + raw(WINDOW, RST, 2 * n + 1, 0) for n in range(1000))
        await peer.send(frames)
        await settle()
        assert 200 <= len(seen) <= muxer.tunnel.session.limits.accept_backlog + 1
        assert muxer.tunnel.session._backlog == set()
        # And then it is as before.
        await peer.send(data(2001, b"echo:again", SYN))
        while (frame := await peer.frame()).kind != DATA:
            pass
        assert frame.payload == b"again"

"""Against py-libp2p's yamux, over a socket pair: the other implementation at hand."""

from __future__ import annotations

import contextlib
import random
from collections.abc import AsyncIterator
from typing import Any

import pytest
import trio
from libp2p.abc import IMuxedStream
from libp2p.io.exceptions import IOException
from libp2p.peer.id import ID
from libp2p.stream_muxer.exceptions import MuxedStreamEOF, MuxedStreamError
from libp2p.stream_muxer.yamux.yamux import Yamux

from hived.transport.muxer import Muxer
from tests.unit.transport.pairs import (
    of_plane,
    receive_all,
    receive_exactly,
    settle,
    trio_test,
)
from tests.unit.transport.rawpeer import RawPeer, raw_peer


class SecureConn:
    """As much of libp2p's ISecureConn as its yamux asks for; sealed as the other side expects it."""

    def __init__(self, peer: RawPeer) -> None:
        self._peer = peer
        self._opened = b""

    async def read(self, n: int | None = None) -> bytes:
        try:
            if not self._opened:
                self._opened = await self._peer.record()
        except EOFError:
            return b""
        except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
            raise IOException(str(error)) from error
        size = len(self._opened) if n is None else n
        data, self._opened = self._opened[:size], self._opened[size:]
        return data

    async def write(self, data: bytes) -> None:
        try:
            await self._peer.send(data)
        except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
            raise IOException(str(error)) from error

    async def close(self) -> None:
        await self._peer.pipe.aclose()


@contextlib.asynccontextmanager
async def with_libp2p(initiator: bool) -> AsyncIterator[tuple[Muxer, Yamux]]:
    """Our muxer, and theirs."""
    async with raw_peer(initiator=initiator) as (ours, peer), trio.open_nursery() as nursery:
        conn: Any = SecureConn(peer)
        theirs = Yamux(conn, ID(b"peer"), is_initiator=not initiator)
        nursery.start_soon(theirs.start)
        await theirs.event_started.wait()
        yield ours, theirs
        nursery.cancel_scope.cancel()


async def read_to_end(stream: IMuxedStream) -> bytes:
    data = b""
    while True:
        try:
            part = await stream.read(65536)
        except MuxedStreamEOF:
            return data
        if not part:
            return data
        data += part


async def write(stream: IMuxedStream, data: bytes) -> None:
    await stream.write(data)


@pytest.mark.parametrize("initiator", [True, False])
@trio_test
async def test_streams_of_ours(initiator: bool) -> None:
    async with with_libp2p(initiator) as (ours, theirs):
        for size in (0, 1, 65507, 1_000_000):
            data = random.Random(size).randbytes(size)
            stream = await ours.open()

            async def answer(size: int = size) -> None:
                other = await theirs.accept_stream()
                got = b""
                while len(got) < size:
                    got += await other.read(65536)
                await other.write(got)
                await other.close()

            async with trio.open_nursery() as nursery:
                nursery.start_soon(answer)
                await stream.send_all(data)
                assert await receive_all(stream) == data
            await stream.aclose()
        await settle()
        assert ours.stream_count == 0


@pytest.mark.parametrize("initiator", [True, False])
@trio_test
async def test_streams_of_theirs(initiator: bool) -> None:
    async with with_libp2p(initiator) as (ours, theirs):
        data = random.Random(1).randbytes(3_000_000)
        stream = await theirs.open_stream()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(write, stream, data)
            accepted = await ours.accept()
            assert await receive_exactly(accepted, len(data)) == data
        assert of_plane(accepted).inbox.window >= 256 * 1024
        await accepted.send_all(data[:100_000])
        await accepted.send_eof()
        assert await read_to_end(stream) == data[:100_000]
        await stream.close()
        assert await receive_all(accepted) == b""


@trio_test
async def test_their_reset_and_ours() -> None:
    async with with_libp2p(True) as (ours, theirs):
        stream = await ours.open()
        await stream.send_all(b"x")
        other = await theirs.accept_stream()
        await other.reset()
        with pytest.raises(trio.BrokenResourceError):
            await stream.receive_some()
        stream = await ours.open()
        await stream.send_all(b"x")
        other = await theirs.accept_stream()
        assert await other.read(1) == b"x"
        stream.reset()
        with pytest.raises(MuxedStreamError):
            await other.read(1)


@trio_test
async def test_eight_at_once_both_ways() -> None:
    async with with_libp2p(False) as (ours, theirs):

        async def up(number: int) -> None:
            data = random.Random(number).randbytes(400_000)
            stream = await ours.open()
            async with trio.open_nursery() as nursery:
                nursery.start_soon(stream.send_all, data)
                assert await receive_exactly(stream, len(data)) == data
            await stream.aclose()

        async def echo(stream: IMuxedStream) -> None:
            for _ in range(400_000 // 50_000):
                part = b""
                while len(part) < 50_000:
                    part += await stream.read(50_000 - len(part))
                await stream.write(part)
            await stream.close()

        async with trio.open_nursery() as nursery:
            for number in range(8):
                nursery.start_soon(up, number)
            for _ in range(8):
                nursery.start_soon(echo, await theirs.accept_stream())


@trio_test
async def test_a_stream_given_up_before_it_was_known_harms_nothing() -> None:
    """A record without bytes would be the end of the connection for it."""
    async with with_libp2p(True) as (ours, theirs):
        session = ours.tunnel.session
        for _ in range(3):
            ours.tunnel.plane.call(lambda: session.open().reset())
            await settle()
        stream = await ours.open()
        await stream.send_all(b"alive")
        other = await theirs.accept_stream()
        assert await other.read(5) == b"alive"


@trio_test
async def test_both_closings() -> None:
    async with with_libp2p(True) as (ours, theirs):
        await theirs.close()
        await ours.closed.wait()
        assert ours.close_reason
    async with with_libp2p(True) as (ours, theirs):
        stream = await ours.open()
        await stream.send_all(b"x")
        await theirs.accept_stream()
        await ours.aclose()
        with pytest.raises(Exception, match=r"(?i)closed|shut|unavail"):
            await theirs.accept_stream()

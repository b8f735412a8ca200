"""Muxers over pipes for the tests: two that talk to each other, or one and a raw peer."""

from __future__ import annotations

import contextlib
import functools
import socket
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import trio
import trio.testing

from hived.transport.limits import MuxLimits
from hived.transport.muxer import Muxer
from hived.transport.muxstream import MuxedStream

SYN, ACK, FIN, RST = 1, 2, 4, 8
DATA, WINDOW, PING, GO_AWAY = 0, 1, 2, 3
WINDOW_BYTES = 256 * 1024


def trio_test(function: Callable[..., Awaitable[None]]) -> Callable[..., None]:
    """Run an async test, with a net against those that hang."""

    @functools.wraps(function)
    def run(**arguments: Any) -> None:
        async def main() -> None:
            with trio.fail_after(60):
                await function(**arguments)

        trio.run(main)

    return run


def clocked(function: Callable[..., Awaitable[None]]) -> Callable[..., None]:
    """As ``trio_test``, with a clock that jumps to the next deadline when all tasks wait."""

    @functools.wraps(function)
    def run(**arguments: Any) -> None:
        async def main() -> None:
            await function(**arguments)

        trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))

    return run


def pipes(kind: str) -> tuple[trio.abc.Stream, trio.abc.Stream]:
    """Both ends of a pipe: ``memory`` (unbounded), ``lockstep`` (holds nothing) or ``socket``."""
    if kind == "memory":
        return trio.testing.memory_stream_pair()
    if kind == "lockstep":
        return trio.testing.lockstep_stream_pair()
    one, other = socket.socketpair()
    for end in (one, other):
        end.setblocking(False)
    return (
        trio.SocketStream(trio.socket.from_stdlib_socket(one)),
        trio.SocketStream(trio.socket.from_stdlib_socket(other)),
    )


@contextlib.asynccontextmanager
async def muxers(kind: str = "memory", **limits: Any) -> AsyncIterator[tuple[Muxer, Muxer]]:
    """Two running muxers, the first of which is the initiator."""
    one, other = pipes(kind)
    a = Muxer(one, initiator=True, limits=MuxLimits(**limits))
    b = Muxer(other, initiator=False, limits=MuxLimits(**limits))
    async with trio.open_nursery() as nursery:
        await nursery.start(a.run)
        await nursery.start(b.run)
        yield a, b
        nursery.cancel_scope.cancel()


@contextlib.asynccontextmanager
async def streams(
    kind: str = "memory", **limits: Any
) -> AsyncIterator[tuple[MuxedStream, MuxedStream, Muxer, Muxer]]:
    """A stream, seen from its opener and from the other side, and their muxers."""
    async with muxers(kind, **limits) as (a, b):
        ours = await a.open()
        yield ours, await b.accept(), a, b


class Frame:
    """One received frame, parsed with code of its own."""

    def __init__(self, head: bytes, payload: bytes) -> None:
        self.version, self.kind, self.flags, self.stream_id, self.length = struct.unpack("!BBHII", head)
        self.payload = payload

    def __repr__(self) -> str:
        return f"Frame({self.kind}, {self.flags}, {self.stream_id}, {self.length})"

    @property
    def told(self) -> tuple[int, int, int, int]:
        """What the header says."""
        return self.kind, self.flags, self.stream_id, self.length


def raw(kind: int, flags: int, stream_id: int, length: int, payload: bytes = b"", version: int = 0) -> bytes:
    """A frame as it goes over the wire, or one that never should."""
    return struct.pack("!BBHII", version, kind, flags, stream_id, length) + payload


class RawPeer:
    """The other side of a muxer, that may say what it wants."""

    def __init__(self, pipe: trio.abc.Stream) -> None:
        self.pipe = pipe
        self._buffer = b""

    async def send(self, *frames: bytes) -> None:
        await self.pipe.send_all(b"".join(frames))

    async def _exactly(self, count: int) -> bytes:
        while len(self._buffer) < count:
            data = await self.pipe.receive_some(65536)
            if not data:
                raise EOFError
            self._buffer += data
        data, self._buffer = self._buffer[:count], self._buffer[count:]
        return data

    async def any_frame(self) -> Frame:
        head = await self._exactly(12)
        length = int.from_bytes(head[8:], "big") if head[1] == DATA else 0
        return Frame(head, await self._exactly(length))

    async def frame(self) -> Frame:
        """The next frame that is not a ping; EOFError at the end."""
        while (frame := await self.any_frame()).kind == PING and frame.flags == SYN:
            with contextlib.suppress(trio.BrokenResourceError):
                await self.send(raw(PING, ACK, 0, frame.length))
        return frame

    async def until_end(self) -> list[Frame]:
        """All frames that still come."""
        found = []
        while True:
            try:
                found.append(await self.frame())
            except EOFError:
                return found

    async def settled(self, probe: int = 0xC0FFEE) -> list[Frame]:
        """What the muxer has said until it has handled all that was sent to it so far."""
        await self.send(raw(PING, SYN, 0, probe))
        found = []
        while (frame := await self.frame()).told != (PING, ACK, 0, probe):
            found.append(frame)
        # A pong goes ahead of what else waits; a second one comes behind that.
        await self.send(raw(PING, SYN, 0, probe + 1))
        while (frame := await self.frame()).told != (PING, ACK, 0, probe + 1):
            found.append(frame)
        return found


@contextlib.asynccontextmanager
async def raw_peer(
    *, initiator: bool = False, kind: str = "memory", **limits: Any
) -> AsyncIterator[tuple[Muxer, RawPeer]]:
    """A running muxer (by default the responder: the raw peer opens odd streams) and its peer."""
    one, other = pipes(kind)
    muxer = Muxer(one, initiator=initiator, limits=MuxLimits(**limits))
    async with trio.open_nursery() as nursery:
        await nursery.start(muxer.run)
        yield muxer, RawPeer(other)
        nursery.cancel_scope.cancel()


async def receive_all(stream: trio.abc.ReceiveStream) -> bytes:
    """Everything to the clean end."""
    parts = []
    while data := await stream.receive_some():
        parts.append(data)
    return b"".join(parts)


async def receive_exactly(stream: trio.abc.ReceiveStream, count: int) -> bytes:
    """``count`` bytes."""
    data = b""
    while len(data) < count:
        part = await stream.receive_some(count - len(data))
        assert part, f"the stream ended after {len(data)} bytes"
        data += part
    return data

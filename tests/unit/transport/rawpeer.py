"""The other side of a muxer that may say what it wants, frame by frame or byte by byte."""

from __future__ import annotations

import contextlib
import socket
import struct
from collections.abc import AsyncIterator
from typing import Any

import trio

from hived.transport import suites
from hived.transport.limits import MuxLimits
from hived.transport.muxer import Muxer
from hived.transport.records import Opener, Sealer
from hived.transport.suites import Suite
from tests.unit.transport.pairs import (
    ACK,
    DATA,
    KEY_BACK,
    KEY_THERE,
    PING,
    SYN,
    make_muxer,
    plane,
    sockets,
)


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
    """The other side of a muxer, that may say what it wants. ``records``: sizes of those that came, opened.

    A record holds one batch of ``send``, as far as it fits.
    """

    def __init__(self, sock: socket.socket, *, initiator: bool, suite: Suite = suites.NOISE) -> None:
        self.pipe = trio.SocketStream(trio.socket.from_stdlib_socket(sock))
        self.records: list[int] = []
        mine, theirs = (KEY_THERE, KEY_BACK) if initiator else (KEY_BACK, KEY_THERE)
        self._suite = suite
        self._sealer, self._opener = Sealer(suite, mine), Opener(suite, theirs)
        self._sealed = b""
        self._buffer = bytearray()

    def sealed(self, data: bytes) -> bytes:
        """``data`` as the records of this side."""
        out = memoryview(bytearray(len(data) + 64))
        size, made = self._suite.max_plain, bytearray()
        for start in range(0, max(len(data), 1), size):
            part = memoryview(bytearray(data[start : start + size]))
            made += out[: self._sealer.seal(part, out)]
        return bytes(made)

    async def send(self, *frames: bytes) -> None:
        await self.pipe.send_all(self.sealed(b"".join(frames)))

    async def _sealed_exactly(self, count: int) -> bytes:
        while len(self._sealed) < count:
            data = await self.pipe.receive_some(65536)
            if not data:
                raise EOFError
            self._sealed += data
        data, self._sealed = self._sealed[:count], self._sealed[count:]
        return data

    async def record(self) -> bytes:
        """The next record, opened; EOFError at the end."""
        length = int.from_bytes(await self._sealed_exactly(self._suite.prefix), "big")
        sealed = await self._sealed_exactly(length)
        plain = memoryview(bytearray(length))
        size = self._opener.open(memoryview(sealed), plain)
        self.records.append(size)
        return bytes(plain[:size])

    async def _exactly(self, count: int) -> bytes:
        while len(self._buffer) < count:
            self._buffer += await self.record()
        data = bytes(self._buffer[:count])
        del self._buffer[:count]
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
            except (EOFError, trio.BrokenResourceError):
                # A socket that is closed on unread bytes, as our last pong, is reset behind its last ones.
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
    *,
    initiator: bool = False,
    kind: str = "socket",
    suite: Suite = suites.NOISE,
    **limits: Any,
) -> AsyncIterator[tuple[Muxer, RawPeer]]:
    """A running muxer (by default the responder: the raw peer opens odd streams) and its peer."""
    one, other = sockets(kind)
    async with plane() as running, trio.open_nursery() as nursery:
        muxer = make_muxer(running, one, initiator=initiator, suite=suite, limits=MuxLimits(**limits))
        await nursery.start(muxer.run)
        peer = RawPeer(other, initiator=not initiator, suite=suite)
        yield muxer, peer
        nursery.cancel_scope.cancel()
        peer.pipe.socket.close()

"""What both ends of a stream do to each other in these tests, over anything that trio calls a stream.

A service answers, its namesake among the functions below asks; js/services.mjs and js/commands.mjs are the
same for js-libp2p.

    sink     takes all until the other side ends its own, then answers with the SHA-256 of it
    slow     as sink, but reads nothing for STALL_SECONDS first
    take     takes as many bytes as the first line says, then answers with the SHA-256 of them (for Kubo's
             forwards, which know no half-close; Python only)
    lazy     as take, but reads nothing for STALL_SECONDS behind the line
    source   sends as many random bytes as the first line says, and their SHA-256, and ends its side; then
             takes what the other side still has, and tells its SHA-256
    give     as source, but ends its side behind the other's: a forward of Kubo's whose one side has ended
             closes both, and then may reset the stream, with what is still to be read
    echo     gives back what comes
    reset    resets the stream at the first byte
    hold     answers "held" at the first byte; tells how the stream ended
"""

from __future__ import annotations

import hashlib
import math
import os
from collections.abc import Awaitable, Callable
from typing import Any

import trio

Stream = trio.abc.HalfCloseableStream
MB = 1_000_000
STALL_SECONDS = 10.0
DIGEST_CHARS = 64
# Not a power of two, so that no shift by whole frames or windows goes unnoticed.
_BLOCK = 1_000_003
_READ_BYTES = 256 * 1024


async def digest_of_all(stream: Stream) -> str:
    """SHA-256 of all that comes until the other side has ended its own."""
    digest = hashlib.sha256()
    while data := await stream.receive_some(_READ_BYTES):
        digest.update(data)
    return digest.hexdigest()


async def send_random(stream: Stream, size: int) -> str:
    """Send so many bytes; their SHA-256."""
    block, digest = os.urandom(min(size, _BLOCK)), hashlib.sha256()
    for at in range(0, size, _BLOCK):
        part = block[: size - at]
        digest.update(part)
        await stream.send_all(part)
    return digest.hexdigest()


async def everything(stream: Stream) -> bytes:
    """All that comes until the other side has ended its own."""
    found = bytearray()
    while data := await stream.receive_some(_READ_BYTES):
        found += data
    return bytes(found)


async def exactly(stream: Stream, count: int) -> bytes:
    """So many bytes."""
    found = bytearray()
    while len(found) < count:
        data = await stream.receive_some(min(count - len(found), _READ_BYTES))
        assert data, f"the stream ended after {len(found)} of {count} bytes"
        found += data
    return bytes(found)


async def line(stream: Stream) -> str:
    """What comes until a newline."""
    found = b""
    while not found.endswith(b"\n"):
        found += await exactly(stream, 1)
    return found.decode().strip()


# Who asks


async def ping(stream: Stream) -> None:
    """Three pings (libp2p specs: ping)."""
    for _ in range(3):
        sent = os.urandom(32)
        await stream.send_all(sent)
        assert await exactly(stream, len(sent)) == sent
    await stream.aclose()


async def upload(stream: Stream, size: int) -> None:
    """Send to a ``sink``: we end first, and still receive."""
    sent = await send_random(stream, size)
    await stream.send_eof()
    assert (await everything(stream)).decode() == sent
    await stream.aclose()


async def put(stream: Stream, size: int) -> None:
    """Send to a ``take`` or a ``lazy``."""
    await stream.send_all(b"%d\n" % size)
    sent = await send_random(stream, size)
    assert (await exactly(stream, DIGEST_CHARS)).decode() == sent
    await stream.aclose()


async def download(stream: Stream, size: int, after: int = 0, stall: float = 0.0) -> str:
    """Take from a ``source``, and send ``after`` bytes more behind its end; their SHA-256.

    ``stall``: nothing is read for so many seconds first.
    """
    await stream.send_all(b"%d\n" % size)
    await trio.sleep(stall)
    digest, tail = hashlib.sha256(), b""
    while data := await stream.receive_some(_READ_BYTES):
        tail += data
        digest.update(tail[:-DIGEST_CHARS])
        tail = tail[-DIGEST_CHARS:]
    assert tail.decode() == digest.hexdigest()
    sent = await send_random(stream, after)
    await stream.send_eof()
    await stream.aclose()
    return sent


async def get(stream: Stream, size: int, stall: float = 0.0) -> None:
    """Take from a ``give``; ``stall``: nothing is read for so many seconds first."""
    await stream.send_all(b"%d\n" % size)
    await trio.sleep(stall)
    digest = hashlib.sha256()
    for at in range(0, size, _BLOCK):
        digest.update(await exactly(stream, min(_BLOCK, size - at)))
    assert (await exactly(stream, DIGEST_CHARS)).decode() == digest.hexdigest()
    await stream.aclose()


async def echo(stream: Stream, size: int) -> None:
    """Send to an ``echo`` and take it back at the same time."""
    async with trio.open_nursery() as nursery:
        sent: list[str] = []

        async def send() -> None:
            sent.append(await send_random(stream, size))

        nursery.start_soon(send)
        back = hashlib.sha256(await exactly(stream, size)).hexdigest()
    assert [back] == sent
    await stream.aclose()


# Who answers


class Services:
    """The services. ``told`` receives what they tell."""

    def __init__(self) -> None:
        self._tell, self.told = trio.open_memory_channel[dict[str, str]](math.inf)

    def all(self) -> dict[str, Callable[[Any], Awaitable[None]]]:
        return {
            "sink": self.sink,
            "slow": self.slow,
            "take": self.take,
            "lazy": self.lazy,
            "source": self.source,
            "give": self.give,
            "echo": self.echo,
            "reset": self.reset,
            "hold": self.hold,
        }

    async def sink(self, stream: Stream) -> None:
        await stream.send_all((await digest_of_all(stream)).encode())
        await stream.send_eof()

    async def slow(self, stream: Stream) -> None:
        await trio.sleep(STALL_SECONDS)
        await self.sink(stream)

    async def take(self, stream: Stream, stall: float = 0.0) -> None:
        left, digest = int(await line(stream)), hashlib.sha256()
        await trio.sleep(stall)
        while left > 0:
            data = await stream.receive_some(_READ_BYTES)
            assert data, f"the stream ended {left} bytes too early"
            digest.update(data)
            left -= len(data)
        await stream.send_all(digest.hexdigest().encode())
        await stream.send_eof()

    async def lazy(self, stream: Stream) -> None:
        await self.take(stream, STALL_SECONDS)

    async def source(self, stream: Stream) -> None:
        await stream.send_all((await send_random(stream, int(await line(stream)))).encode())
        await stream.send_eof()
        await self._tell.send({"service": "source", "sha256": await digest_of_all(stream)})

    async def give(self, stream: Stream) -> None:
        await stream.send_all((await send_random(stream, int(await line(stream)))).encode())
        await digest_of_all(stream)

    async def echo(self, stream: Stream) -> None:
        while data := await stream.receive_some(_READ_BYTES):
            await stream.send_all(data)
        await stream.send_eof()

    async def reset(self, stream: Any) -> None:
        await stream.receive_some(1)
        stream.reset()

    async def hold(self, stream: Stream) -> None:
        await stream.receive_some(1)
        await stream.send_all(b"held")
        end = "reset"
        try:
            while await stream.receive_some(_READ_BYTES):
                pass
            end = "closed"
        except trio.BrokenResourceError:
            pass
        await self._tell.send({"service": "hold", "end": end})

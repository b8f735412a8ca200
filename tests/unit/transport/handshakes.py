"""Both ends of handshakes, and a man in the middle of them."""

from __future__ import annotations

import socket
from collections.abc import Awaitable, Callable

import trio
from trio.testing import MemoryReceiveStream, MemorySendStream, memory_stream_pair

from hived.overlay.identity import Identity
from hived.transport.multistream import HandshakeError

ALICE, BOB, MALLORY = (Identity.from_seed(letter * 32) for letter in (b"a", b"b", b"m"))

Pipe = trio.StapledStream[MemorySendStream, MemoryReceiveStream]
Alter = Callable[[bytes, int], bytes]
"""Is given bytes on their way and how many went before them in this direction; what goes on instead."""


def sockets() -> tuple[trio.SocketStream, trio.SocketStream]:
    """The two ends of a socket pair."""
    one, other = (trio.SocketStream(trio.socket.from_stdlib_socket(sock)) for sock in socket.socketpair())
    return one, other


def flipped(bit: int) -> Alter:
    """Turns one bit of a direction over."""

    def alter(data: bytes, before: int) -> bytes:
        at = bit // 8 - before
        if not 0 <= at < len(data):
            return data
        return data[:at] + bytes([data[at] ^ 1 << bit % 8]) + data[at + 1 :]

    return alter


def same(data: bytes, before: int) -> bytes:
    return data


async def between(
    dial: Callable[[Pipe], Awaitable[object]],
    answer: Callable[[Pipe], Awaitable[object]],
    there: Alter = same,
    back: Alter = same,
) -> tuple[object, object]:
    """What both ends came to, each its outcome or its HandshakeError, with every byte through our hands."""
    client, left = memory_stream_pair()
    right, server = memory_stream_pair()
    ends: list[object] = [None, None]

    async def side(number: int, way: Callable[[Pipe], Awaitable[object]], pipe: Pipe) -> None:
        try:
            ends[number] = await way(pipe)
        except HandshakeError as error:
            ends[number] = error
        await pipe.aclose()

    async def pump(source: Pipe, target: Pipe, alter: Alter) -> None:
        before = 0
        try:
            while data := bytes(await source.receive_some()):
                await target.send_all(alter(data, before))
                before += len(data)
            await target.send_eof()
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            await source.aclose()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(pump, left, right, there)
        nursery.start_soon(pump, right, left, back)
        nursery.start_soon(side, 0, dial, client)
        nursery.start_soon(side, 1, answer, server)
    return ends[0], ends[1]

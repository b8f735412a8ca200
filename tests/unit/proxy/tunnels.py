"""Real streams of a real connection, and real TCP connections, for the proxies' tests."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial

import trio

from hived.transport.muxer import Muxer
from hived.transport.muxstream import MuxedStream

SECONDS = 20.0
Serve = Callable[[trio.SocketStream], Awaitable[None]]


@asynccontextmanager
async def muxers() -> AsyncIterator[tuple[Muxer, Muxer]]:
    """Two ends of a connection over a socket pair."""
    ends = [trio.SocketStream(trio.socket.from_stdlib_socket(sock)) for sock in socket.socketpair()]
    one, other = Muxer(ends[0], initiator=True), Muxer(ends[1], initiator=False)
    with trio.fail_after(SECONDS):
        async with trio.open_nursery() as nursery:
            await nursery.start(one.run)
            await nursery.start(other.run)
            yield one, other
            nursery.cancel_scope.cancel()


@asynccontextmanager
async def tunnel() -> AsyncIterator[tuple[MuxedStream, MuxedStream]]:
    """The two ends of one stream."""
    async with muxers() as (one, other):
        ours = await one.open()
        yield ours, await other.accept()


async def tcp_pair() -> tuple[trio.SocketStream, trio.SocketStream]:
    """The two ends of one TCP connection on loopback."""
    (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
    async with listener:
        one = await trio.open_tcp_stream("127.0.0.1", listener.socket.getsockname()[1])
        return one, await listener.accept()


@asynccontextmanager
async def served(serve: Serve) -> AsyncIterator[int]:
    """A TCP service on loopback; its port."""
    async with trio.open_nursery() as nursery:
        (listener,) = await nursery.start(partial(trio.serve_tcp, serve, 0, host="127.0.0.1"))
        yield listener.socket.getsockname()[1]
        nursery.cancel_scope.cancel()


async def echo(stream: trio.SocketStream) -> None:
    try:
        while data := await stream.receive_some():
            await stream.send_all(data)
        await stream.send_eof()
    except trio.BrokenResourceError:
        pass


async def read_all(stream: trio.abc.ReceiveStream) -> bytes:
    data = bytearray()
    while part := await stream.receive_some():
        data += part
    return bytes(data)


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])

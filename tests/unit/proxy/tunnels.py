"""Real connections on a real data plane, and real TCP connections, for the proxies' tests."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial

import trio

Serve = Callable[[trio.SocketStream], Awaitable[None]]


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


async def read_exactly(stream: trio.abc.ReceiveStream, count: int) -> bytes:
    data = bytearray()
    while len(data) < count:
        part = await stream.receive_some(count - len(data))
        assert part, f"the stream ended after {len(data)} bytes"
        data += part
    return bytes(data)


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


async def dial(port: int) -> trio.SocketStream:
    """A TCP connection on loopback, also where it is reset before trio could have looked at it."""
    await trio.lowlevel.checkpoint()
    # Done by the kernel, as long as somebody listens; nobody is waited for.
    sock = socket.create_connection(("127.0.0.1", port))
    sock.setblocking(False)
    return trio.SocketStream(trio.socket.from_stdlib_socket(sock))

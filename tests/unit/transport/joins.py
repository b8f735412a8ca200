"""What tests of joined streams share: TCP connections, and transfers with hashes."""

from __future__ import annotations

import hashlib
import random
import socket

import trio

from hived.transport.muxstream import MuxedStream


def tcp_pair() -> tuple[trio.SocketStream, socket.socket]:
    """The client's end of a TCP connection on loopback, and the other."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        one = socket.create_connection(listener.getsockname())
        other, _ = listener.accept()
    one.setblocking(False)
    return trio.SocketStream(trio.socket.from_stdlib_socket(one)), other


async def transfer(sender: MuxedStream, receiver: MuxedStream, megabytes: int, seed: int) -> None:
    """Send so much, end, and compare hashes."""
    block = random.Random(seed).randbytes(1_000_000)
    sent, got = hashlib.sha256(), hashlib.sha256()

    async def send() -> None:
        for number in range(megabytes):
            part = block[number:] + block[:number]
            sent.update(part)
            await sender.send_all(part)
        await sender.send_eof()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(send)
        total = 0
        while data := await receiver.receive_some():
            got.update(data)
            total += len(data)
    assert total == megabytes * 1_000_000
    assert got.digest() == sent.digest()

"""A peer that a test plays itself, made of hived's own parts, for what an honest node never does."""

from __future__ import annotations

import functools
import os
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import TypeVar

import msgspec
import trio

from hived.overlay.addresses import parse
from hived.overlay.connection import Connection
from hived.overlay.exchange import BATCH, SYNC, SYNC_FIRST, Batch, Digest, Open
from hived.overlay.host import Host
from hived.overlay.identity import Identity
from hived.overlay.joinhandshake import Binding, JoinHandshake
from hived.overlay.membership import Membership
from hived.overlay.networkkeys import derive_key, network_id
from hived.overlay.records import NodeRecord, SignedRecord, sign
from hived.overlay.wire import receive, send
from hived.transport.muxstream import MuxedStream
from tests.integration.nodes import PASSWORD, Node
from tests.planes import plane

T = TypeVar("T")
ANSWER_SECONDS = 5.0
MULTISTREAM = "/multistream/1.0.0"
GONE = (trio.BrokenResourceError, trio.ClosedResourceError)

key_of = functools.cache(derive_key)


@dataclass(frozen=True)
class Door:
    """Where a node listens, and who it is."""

    address: str
    peer_id: str

    @classmethod
    def of(cls, node: Node) -> Door:
        return cls(node.listen[0], node.peer_id)


class Impatient(Membership):
    """A peer that does not hold itself back after a failed join, as hived does."""

    async def _wait(self, source: str) -> None:
        pass


@dataclass(frozen=True)
class Peer:
    """The test's own end: it dials, and joins where it knows the password."""

    host: Host
    membership: Membership

    @property
    def identity(self) -> Identity:
        return self.host.identity

    @property
    def peer_id(self) -> str:
        return self.identity.peer_id

    async def dial(self, door: Door, source: str = "127.0.0.1") -> Connection:
        """A connection that is no member of anything.

        Each ``source`` (any of 127.0.0.0/8) has a guessing budget of its own at the other end, so tests
        that share a node do not wait for each other's delays.
        """
        end = parse(door.address)
        sock = trio.socket.socket()
        await sock.bind((source, 0))
        await sock.connect((end.host, end.port))
        # Host.dial has no way to name the source.
        return await self.host._upgrade(trio.SocketStream(sock), door.peer_id, door.address, initiator=True)

    async def join(
        self, door: Door, network: str, source: str = "127.0.0.1", password: str = PASSWORD
    ) -> Connection:
        """A connection that is a member of ``network``."""
        connection = await self.dial(door, source)
        await self.also_join(connection, network, password)
        return connection

    async def also_join(self, connection: Connection, network: str, password: str = PASSWORD) -> None:
        self.membership.set_network(network, key_of(network, password))
        await self.membership.join(connection, network)

    def handshake(self, connection: Connection, network: str, key: bytes) -> JoinHandshake:
        """Our half of a join that we open on the connection."""
        binding = Binding(network_id(network), self.peer_id, connection.peer_id, connection.handshake_hash)
        return JoinHandshake(key, binding, opener=True)

    def record(self, network: str, name: str, **changes: object) -> NodeRecord:
        """A record of this peer's own, newer than all before."""
        record = NodeRecord(
            network=network_id(network),
            peer_id=self.peer_id,
            name=name,
            seq=time.time_ns() // 1000,
            issued=time.time(),
        )
        return msgspec.structs.replace(record, **changes)

    def sign(self, record: NodeRecord) -> SignedRecord:
        return sign(record, self.identity.key_pair)


@asynccontextmanager
async def peer(seed: bytes | None = None) -> AsyncIterator[Peer]:
    """A running peer; its connections close in the end."""
    async with plane() as running, trio.open_nursery() as nursery:
        host = Host(Identity.from_seed(seed or os.urandom(32)), lambda peer_id: False, running)
        membership = Impatient(host, lambda peer_id, network: False, trio.current_time)
        await nursery.start(host.run)
        yield Peer(host, membership)
        nursery.cancel_scope.cancel()


def act(scene: Callable[[], Awaitable[T]], seconds: float = 30.0) -> T:
    """Run a test's async part; what takes longer than ``seconds`` fails."""

    async def bounded() -> T:
        with trio.fail_after(seconds):
            return await scene()

    return trio.run(bounded)


# Bytes as they are on the wire


def line(text: str) -> bytes:
    """A multistream-select line: its length as a varint, the text, a newline."""
    body = text.encode() + b"\n"
    assert len(body) < 128, "a varint of one byte"
    return bytes([len(body)]) + body


async def ask(connection: Connection, protocol: str) -> tuple[str, MuxedStream]:
    """The answer to a request for a protocol, with no code of hived's in between, and its stream."""
    stream = await connection.muxer.open()
    await stream.send_all(line(MULTISTREAM) + line(protocol))
    with trio.fail_after(ANSWER_SECONDS):
        assert await _line(stream) == MULTISTREAM
        return await _line(stream), stream


async def _line(stream: MuxedStream) -> str:
    length = (await stream.receive_some(1))[0]
    body = b""
    while len(body) < length:
        part = await stream.receive_some(length - len(body))
        assert part, "the stream ended inside a line"
        body += part
    return body.decode().removesuffix("\n")


async def rest(stream: MuxedStream, seconds: float = ANSWER_SECONDS) -> bytes:
    """All that still comes, until the other end ends or resets the stream; TooSlowError when it does not."""
    received = bytearray()
    with trio.fail_after(seconds), suppress(*GONE):
        while part := await stream.receive_some(65536):
            received += part
    return bytes(received)


# Records, as a member sends and fetches them


async def push(connection: Connection, network: str, envelopes: list[bytes]) -> bool:
    """Send records as a member does; whether they were taken. The other end has dealt with them then."""
    stream = await connection.open_stream(SYNC)
    try:
        with trio.fail_after(ANSWER_SECONDS):
            await send(stream, Open(network=network_id(network)))
            parts = [envelopes[at : at + BATCH] for at in range(0, len(envelopes), BATCH)]
            for at, part in enumerate(parts, 1):
                await send(stream, Batch(records=part, more=at < len(parts)))
            await stream.send_eof()
            return await stream.receive_some(1) == b""
    except GONE:
        return False
    finally:
        stream.reset()


async def fetch(connection: Connection, network: str) -> list[bytes]:
    """All records that a node has in a network."""
    stream = await connection.open_stream(SYNC_FIRST)
    try:
        with trio.fail_after(ANSWER_SECONDS):
            await send(stream, Open(network=network_id(network), round=True))
            await send(stream, Digest())
            found, more = [], True
            while more:
                batch = await receive(stream, Batch, 2 * 1024 * 1024)
                found += batch.records
                more = batch.more
            return found
    finally:
        stream.reset()

"""A network of nodes in memory, for the simulation: the real records code over streams without sockets.

Links stand for authenticated connections on which both ends are members; streams behave as
MuxedStream does, with a latency each way, a window, half-close and reset. What is counted as
sent is the payload and, for each send, what yamux and Noise put around it.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import trio

from hived.errors import HiveError
from hived.overlay.connection import STREAM_ERRORS
from hived.overlay.exchange import Open
from hived.overlay.networkkeys import network_id
from hived.overlay.wire import ProtocolError, decode
from hived.store.records import StoredRecord
from hived.transport.multistream import NotSpokenError

NETWORK = "simulated"
# yamux header 12; Noise length 2 and tag 16.
FRAME_BYTES = 30
# multistream-select of a stream, each way: its own name and the protocol's, in one frame each.
SELECT_BYTES = 20 + 18 + 2 * FRAME_BYTES
WINDOW = 256 * 1024
# A connection: TCP, Noise, multistream, the join; and twice SPAKE2's 20 ms.
CONNECT_TRIPS = 7
SPAKE_SECONDS = 0.04

Serve = Callable[[Any, Any], Awaitable[None]]


@dataclass
class Traffic:
    """What one node has sent and received since the last :meth:`reset`."""

    bytes_out: int = 0
    bytes_in: int = 0
    sends: int = 0
    rounds: int = 0
    pushes: int = 0

    def reset(self) -> None:
        self.bytes_out = self.bytes_in = self.sends = self.rounds = self.pushes = 0

    def sent(self, size: int, to: Traffic) -> None:
        self.sends += 1
        self.bytes_out += size
        to.bytes_in += size


class Pipe:
    """One direction of a stream: chunks with the time at which they arrive; None is the end."""

    def __init__(self, latency: float) -> None:
        self.latency = latency
        self.chunks: deque[tuple[float, bytes | None]] = deque()
        self.room = WINDOW
        self.ended = False
        self.broken = False
        self.reader = trio.lowlevel.ParkingLot()
        self.writer = trio.lowlevel.ParkingLot()

    def put(self, data: bytes | None) -> None:
        self.chunks.append((trio.current_time() + self.latency, data))
        self.room -= len(data or b"")
        self.reader.unpark_all()

    def take(self, limit: int) -> bytes:
        """Up to ``limit`` bytes of the first chunk, which has arrived; b"" for the end, which stays."""
        when, data = self.chunks[0]
        if data is None:
            return b""
        if len(data) > limit:
            self.chunks[0] = (when, data[limit:])
            data = data[:limit]
        else:
            self.chunks.popleft()
        self.room += len(data)
        self.writer.unpark_all()
        return data

    def wake(self) -> None:
        self.reader.unpark_all()
        self.writer.unpark_all()


class SimStream:
    """One end of a stream, to be used as a MuxedStream."""

    def __init__(self, out: Pipe, inn: Pipe, end: SimLink) -> None:
        self._out, self._in, self._end = out, inn, end
        self._closed = False
        self._got_fin = False

    async def send_all(self, data: bytes) -> None:
        await trio.lowlevel.checkpoint()
        while True:
            self._check()
            if self._out.ended:
                raise trio.ClosedResourceError("send_eof was called")
            part, data = data[: self._out.room], data[self._out.room :]
            if part:
                self._out.put(bytes(part))
                self._end.node.traffic.sent(len(part) + FRAME_BYTES, self._end.peer.traffic)
            if not data:
                return
            await self._out.writer.park()

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        await trio.lowlevel.checkpoint()
        while True:
            self._check()
            if self._in.chunks:
                when = self._in.chunks[0][0]
                if when <= trio.current_time():
                    data = self._in.take(max_bytes or WINDOW)
                    self._got_fin = not data
                    return data
                await trio.sleep_until(when)
            else:
                await self._in.reader.park()

    def _check(self) -> None:
        if self._closed:
            raise trio.ClosedResourceError("this stream is closed")
        if self._out.broken:
            raise trio.BrokenResourceError("the peer reset the stream")

    async def send_eof(self) -> None:
        await trio.lowlevel.checkpoint()
        self._check()
        self._finish()

    def _finish(self) -> None:
        if not self._out.ended:
            self._out.ended = True
            self._out.put(None)
            self._end.node.traffic.sent(FRAME_BYTES, self._end.peer.traffic)

    async def aclose(self) -> None:
        if not self._closed:
            self._closed = True
            if not self._out.broken:
                self._finish()
            self._end.forget(self._out, self._in)
        await trio.lowlevel.checkpoint()

    def reset(self) -> None:
        if self._closed:
            return
        self._closed = True
        if not self._out.broken and not (self._got_fin and self._out.ended):
            self._end.node.traffic.sent(FRAME_BYTES, self._end.peer.traffic)
            break_pipes(self._out, self._in)
            self._end.twin.forget(self._out, self._in)
        self._end.forget(self._out, self._in)


def break_pipes(*pipes: Pipe) -> None:
    for pipe in pipes:
        pipe.broken = True
        pipe.wake()


@dataclass(eq=False)
class SimLink:
    """One node's end of a connection, to be used as a host.Connection."""

    node: SimHost
    peer: SimHost
    initiator: bool
    is_open: bool = True
    twin: SimLink = field(init=False, repr=False)
    _pipes: dict[Pipe, None] = field(default_factory=dict, repr=False)

    @property
    def peer_id(self) -> str:
        return self.peer.peer_id

    @property
    def open_streams(self) -> int:
        """Streams that either end holds open."""
        return len({*self._pipes, *self.twin._pipes}) // 2

    async def open_any(self, *protocols: str) -> tuple[SimStream, str]:
        """A stream that the peer serves; two round trips, as multistream-select takes."""
        if not self.is_open:
            raise trio.ClosedResourceError("the connection is closed")
        for one, other in ((self.node, self.peer), (self.peer, self.node)):
            one.traffic.sent(SELECT_BYTES, other.traffic)
        await trio.sleep(4 * self.node.latency)
        if not self.is_open:
            raise trio.BrokenResourceError("the connection was lost")
        protocol = next((p for p in protocols if p in self.peer.handlers), None)
        if protocol is None:
            raise NotSpokenError(f"{protocols} were not agreed")
        there, back = Pipe(self.node.latency), Pipe(self.node.latency)
        self._pipes[there] = self._pipes[back] = self.twin._pipes[there] = self.twin._pipes[back] = None
        ours = Opened(there, back, self)
        self.peer.serve(SimStream(back, there, self.twin), self.twin, protocol)
        return ours, protocol

    def forget(self, *pipes: Pipe) -> None:
        for pipe in pipes:
            self._pipes.pop(pipe, None)

    def cut(self) -> None:
        """Lose the connection: both ends and all streams."""
        for end in (self, self.twin):
            end.is_open = False
            end.node.links.pop(end.peer_id, None)
            break_pipes(*end._pipes)
            end._pipes.clear()


class Opened(SimStream):
    """The opener's end: its first message says whether this is a round or a push."""

    _said = False

    async def send_all(self, data: bytes) -> None:
        await super().send_all(data)
        if not self._said:
            self._said = True
            traffic = self._end.node.traffic
            if decode(data[4:], Open).round:
                traffic.rounds += 1
            else:
                traffic.pushes += 1


class SimHost:
    """What one node has of the network: its links, who serves streams, and its traffic.

    Stands in for Membership too: every link is a membership of the one network.
    """

    def __init__(self, peer_id: str, nursery: trio.Nursery, latency: float) -> None:
        self.peer_id = peer_id
        self.latency = latency
        self.traffic = Traffic()
        self.links: dict[str, SimLink] = {}
        self.handlers: dict[str, Serve] = {}
        self.keys: dict[str, tuple[bytes, ...]] = {NETWORK: (bytes(32),)}
        self.on_joined: list[Callable[[Any, str], None]] = []
        self.defects: list[Exception] = []
        self._nursery = nursery

    def members(self, network: str) -> list[SimLink]:
        return list(self.links.values())

    def doubles(self, connection: SimLink, network: str) -> list[SimLink]:
        return []

    def require(self, connection: SimLink, wanted: bytes, protocol: str) -> str:
        if wanted != network_id(NETWORK) or not connection.is_open:
            raise ProtocolError("not a member")
        return NETWORK

    def serve(self, stream: SimStream, link: SimLink, protocol: str) -> None:
        self._nursery.start_soon(self._serve, stream, link, protocol)

    async def _serve(self, stream: SimStream, link: SimLink, protocol: str) -> None:
        """As Host._serve_stream does."""
        try:
            await self.handlers[protocol](stream, link)
            await stream.aclose()
        except (*STREAM_ERRORS, HiveError):
            pass
        except Exception as error:
            self.defects.append(error)
        finally:
            stream.reset()


def connect(opener: SimHost, other: SimHost, *, quietly: bool = False) -> None:
    """A connection with its membership, at once. ``quietly``: nobody is told, as if it had long been so."""
    if other.peer_id in opener.links:
        return
    ours, theirs = SimLink(opener, other, True), SimLink(other, opener, False)
    ours.twin, theirs.twin = theirs, ours
    opener.links[other.peer_id], other.links[opener.peer_id] = ours, theirs
    if not quietly:
        for end in (theirs, ours):
            for callback in end.node.on_joined:
                callback(end, NETWORK)


class MemoryStore:
    """The methods of store.records.Records, in memory. ``seconds``: what a commit takes."""

    def __init__(self, seconds: float) -> None:
        self.rows: dict[tuple[str, str], StoredRecord] = {}
        self.commits: Counter[str] = Counter()
        self._gone: dict[tuple[str, str], int] = {}
        self._touches: dict[str, float] = {}
        self._seconds = seconds

    async def all(self) -> list[StoredRecord]:
        return list(self.rows.values())

    async def put(self, records: list[StoredRecord]) -> None:
        await self._commit("put")
        for row in records:
            self.rows[row.network, row.peer_id] = row
            self._gone.pop((row.network, row.peer_id), None)

    async def hide(self, peer_id: str) -> None:
        await self._commit("hide")

    async def expired(self) -> list[tuple[str, str, int]]:
        return [(network, author, seq) for (network, author), seq in self._gone.items()]

    async def expire(self, network: str, sequences: Mapping[str, int]) -> None:
        await self._commit("expire")
        for author, seq in sequences.items():
            self.rows.pop((network, author), None)
            self._gone[network, author] = seq

    async def touches(self) -> dict[str, float]:
        return dict(self._touches)

    async def save_touches(self, touches: Mapping[str, float], seen: Mapping[str, list[str]]) -> None:
        await self._commit("touches")
        self._touches.update(touches)

    async def _commit(self, what: str) -> None:
        self.commits[what] += 1
        await trio.sleep(self._seconds)

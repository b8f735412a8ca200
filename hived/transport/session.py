"""The state of one yamux connection: its streams, and what each incoming frame does to them.

It does no I/O: frames come in through ``handle``, and what has to be said goes to the
outbox. Only the waits of streams, ``open`` and ``accept`` are trio's (parking lots).
"""

from __future__ import annotations

from collections import OrderedDict

import trio

from .departed import Departed
from .frames import (
    ACK,
    DATA,
    FIN,
    GO_AWAY,
    INITIAL_WINDOW,
    MAX_LENGTH,
    MAX_STREAM_ID,
    NORMAL,
    PING,
    RST,
    SYN,
    WINDOW_UPDATE,
    Frame,
    ProtocolError,
)
from .limits import MuxLimits
from .muxstream import MuxedStream
from .outbox import Outbox


class PeerEndedError(Exception):
    """The peer ended the connection with an error code; the text says which."""


class Session:
    """Streams by ID. ``draining``: no new streams, and the end comes with the last one."""

    def __init__(self, *, initiator: bool, limits: MuxLimits, outbox: Outbox) -> None:
        self.limits = limits
        self.outbox = outbox
        self.rtt: float | None = None
        self.draining = False
        self.streams: dict[int, MuxedStream] = {}
        self.openers = trio.lowlevel.ParkingLot()
        self.acceptors = trio.lowlevel.ParkingLot()
        self._parity = 1 if initiator else 0
        self._next_id = 1 if initiator else 2
        self._ours = 0
        self._unacknowledged: set[int] = set()
        # Opened by the peer, not yet accepted.
        self._backlog: OrderedDict[int, MuxedStream] = OrderedDict()
        self._departed = Departed(outbox, limits.lingering)
        self._windows = 0
        self.answered = trio.Event()
        self._ping_value = 0
        self._pinged_at = 0.0

    # What the connection's owner does

    @property
    def may_open(self) -> bool:
        """Neither the ACK backlog (spec) nor the number of streams stands against one more."""
        return len(self._unacknowledged) < self.limits.ack_backlog and self._ours < self.limits.max_streams

    @property
    def exhausted(self) -> bool:
        """All stream IDs of our side are used."""
        return self._next_id > MAX_STREAM_ID

    @property
    def finished(self) -> bool:
        """Draining is done."""
        return self.draining and not self.streams

    @property
    def backlog(self) -> int:
        """Streams that wait to be accepted."""
        return len(self._backlog)

    def open(self) -> MuxedStream:
        """A new stream of ours (spec: "Opening a stream"); only when ``may_open``."""
        stream = self._add(self._next_id)
        self._next_id += 2
        self._ours += 1
        self._unacknowledged.add(stream.id)
        self.outbox.control(stream.lane, SYN)
        return stream

    def accept(self) -> MuxedStream:
        """The oldest stream that waits; it is acknowledged now, which is the peer's back-pressure."""
        _, stream = self._backlog.popitem(last=False)
        self.outbox.control(stream.lane, ACK)
        return stream

    def ping(self) -> None:
        """Send a ping; its answer sets ``rtt`` and ``answered``, which is a new event for each ping."""
        self._ping_value = (self._ping_value + 1) & MAX_LENGTH
        self._pinged_at = trio.current_time()
        self.answered = trio.Event()
        self.outbox.ping(self._ping_value)

    def drain(self) -> None:
        """From now on no new streams; ``finished`` when the last one has gone."""
        self.draining = True
        self.openers.unpark_all()
        self.outbox.wake()

    def fail(self, why: str) -> None:
        """The connection is over: so are its streams and the waits for new ones."""
        for stream in self.streams.values():
            stream.on_connection_lost(why)
        self.streams.clear()
        self._backlog.clear()
        self.openers.unpark_all()

    # What a stream does

    def may_grow(self, size: int) -> bool:
        """Whether a stream's window may double from ``size``; then that is accounted for."""
        if size * 2 > self.limits.max_window or self._windows + size > self.limits.max_windows:
            return False
        self._windows += size
        return True

    def finish(self, stream: MuxedStream) -> None:
        """Our side of the stream ends behind what is queued."""
        self.outbox.finish(stream.lane)
        if stream.got_fin:
            self._forget(stream)

    def linger(self, stream: MuxedStream) -> None:
        """Nobody will read the stream, on which FIN is queued: wait for the peer's FIN."""
        if self.streams.get(stream.id) is stream:
            self._remove(stream)
            for evicted in self._departed.linger(stream):
                self._acknowledged(evicted)

    def reset(self, stream: MuxedStream) -> None:
        """Send RST, and forget the stream and what waits of it."""
        if self.streams.get(stream.id) is stream:
            self.outbox.reset(stream.id, stream.lane)
            self._forget(stream)

    # What the peer does

    def handle(self, frame: Frame) -> None:
        """Do what a frame says. Raises ProtocolError or PeerEndedError."""
        if frame.kind <= WINDOW_UPDATE:
            self._on_stream_frame(frame)
        elif frame.kind == PING:
            if frame.flags & SYN:
                self.outbox.pong(frame.length)
            elif frame.length == self._ping_value and not self.answered.is_set():
                # An answer to an older ping is no measurement any more.
                self.rtt = trio.current_time() - self._pinged_at
                self.answered.set()
        elif frame.kind == GO_AWAY:
            if frame.length != NORMAL:
                raise PeerEndedError(f"the peer ended the connection, code {frame.length}")
            self.drain()

    def _on_stream_frame(self, frame: Frame) -> None:
        flags = frame.flags
        if flags & SYN:
            self._on_syn(frame)
        self._acknowledged(frame.stream_id)
        stream = self.streams.get(frame.stream_id)
        if stream is None:
            self._on_stray(frame)
            return
        if flags & RST:
            self.outbox.drop(stream.lane)
            self._forget(stream)
            stream.on_reset()
        elif frame.kind == DATA and (frame.length or frame.payload):
            if stream.got_fin:
                self.reset(stream)
                stream.on_reset("the peer sent data behind its end")
                return
            stream.on_data(frame.length, frame.payload)
        elif frame.kind == WINDOW_UPDATE and frame.length:
            stream.on_credit(frame.length)
        if flags & FIN and not flags & RST and not stream.got_fin:
            stream.on_fin()
            if stream.sent_fin:
                self._forget(stream)

    def _on_syn(self, frame: Frame) -> None:
        stream_id = frame.stream_id
        if stream_id & 1 == self._parity:
            raise ProtocolError(f"the peer opened stream {stream_id}, a number of our side")
        if stream_id in self.streams or stream_id in self._departed:
            raise ProtocolError(f"stream {stream_id} was opened twice")
        if self.outbox.pending_resets > self.limits.pending_resets:
            raise ProtocolError("the peer opens streams and does not read that they are refused")
        full = (
            len(self.streams) - self._ours >= self.limits.max_streams
            or len(self._backlog) >= self.limits.accept_backlog
        )
        if frame.flags & RST:
            self._departed.remember(stream_id)
        elif self.draining or full:
            self._refuse(stream_id)
        else:
            self._backlog[stream_id] = self._add(stream_id)
            self.acceptors.unpark()

    def _on_stray(self, frame: Frame) -> None:
        """A frame for a stream that the application does not hold."""
        stream_id = frame.stream_id
        if self._departed.on_frame(frame):
            return
        if stream_id & 1 == self._parity and stream_id >= self._next_id:
            raise ProtocolError(f"a frame on stream {stream_id}, which was never opened")
        stray = frame.kind == DATA and not frame.flags & (RST | FIN) and not frame.continues
        if stray and self.outbox.pending_resets <= self.limits.pending_resets:
            self._refuse(stream_id)

    # The table

    def _add(self, stream_id: int) -> MuxedStream:
        stream = self.streams[stream_id] = MuxedStream(stream_id, self)
        self._windows += INITIAL_WINDOW
        return stream

    def _remove(self, stream: MuxedStream) -> None:
        del self.streams[stream.id]
        self._backlog.pop(stream.id, None)
        self._windows -= stream.inbox.window
        if stream.id & 1 == self._parity:
            self._ours -= 1
            self.openers.unpark()
        if self.draining:
            self.outbox.wake()

    def _forget(self, stream: MuxedStream) -> None:
        self._remove(stream)
        self._acknowledged(stream.id)
        self._departed.remember(stream.id)

    def _refuse(self, stream_id: int) -> None:
        self.outbox.reset(stream_id)
        self._departed.remember(stream_id)

    def _acknowledged(self, stream_id: int) -> None:
        if stream_id in self._unacknowledged:
            self._unacknowledged.discard(stream_id)
            self.openers.unpark()

"""The state of one yamux connection: its streams, and what each incoming frame does to them.

It does no I/O: frames come in through ``handle``, and what has to be said goes to the outbox.
"""

from __future__ import annotations

import contextlib
import time
from collections import OrderedDict, deque
from collections.abc import Callable

from .budget import Budget
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
from .outbox import Outbox
from .stream import Stream


class PeerEndedError(Exception):
    """The peer ended the connection with an error code; the text says which."""


class NoStreamsError(Exception):
    """The connection takes no more streams; the text says why."""


class Session:
    """Streams by ID. ``draining``: no new streams, and the end comes with the last one.

    ``on_incoming`` is called with each stream that the peer opens, before its data. ``rtt``: seconds.
    """

    def __init__(
        self,
        *,
        initiator: bool,
        limits: MuxLimits,
        outbox: Outbox,
        budget: Budget,
        on_incoming: Callable[[Stream], None],
    ) -> None:
        self.limits = limits
        self.outbox = outbox
        self.budget = budget
        self.rtt: float | None = None
        self.draining = False
        self.streams: dict[int, Stream] = {}
        self.unacknowledged: set[int] = set()
        # Of those, the ones that were so when it was last looked.
        self._overdue: set[int] = set()
        # Set by the connection: send a stream's record now, if nothing else waits; whether it did.
        self.send_now: Callable[[Stream], bool] = lambda stream: False
        self._on_incoming = on_incoming
        self._parity = 1 if initiator else 0
        self._next_id = 1 if initiator else 2
        self._ours = 0
        self._waiting: deque[Callable[[], None]] = deque()
        # Opened by the peer, neither accepted nor dismissed, whether or not they live: who opens and resets
        # streams faster than they are looked at has them refused.
        self._backlog: set[int] = set()
        # Closed here, with data still to send; the oldest first.
        self._closing: OrderedDict[int, Stream] = OrderedDict()
        self._departed = Departed(outbox, limits.lingering)
        self._windows = 0
        # Bytes that have come and nobody has taken, of streams that have ended, too.
        self._held = 0
        self.ping_answered = True
        self._ping_value = 0
        self._pinged_at = 0.0

    # What the connection's owner does

    @property
    def may_open(self) -> bool:
        """Neither the ACK backlog (spec) nor the number of streams stands against one more."""
        return len(self.unacknowledged) < self.limits.ack_backlog and self._ours < self.limits.max_streams

    @property
    def finished(self) -> bool:
        """Draining is done."""
        return self.draining and not self.streams

    def open(self) -> Stream:
        """A new stream of ours (spec: "Opening a stream"); only when ``may_open``. Raises NoStreamsError."""
        if self._next_id > MAX_STREAM_ID and not self.draining:
            self.drain()
        if self.draining:
            raise NoStreamsError("the connection takes no more streams")
        stream = self._add(self._next_id)
        self._next_id += 2
        self._ours += 1
        self.unacknowledged.add(stream.id)
        self.outbox.control(stream, SYN)
        return stream

    def when_openable(self, function: Callable[[], None]) -> None:
        """Call ``function`` once there is room for one more stream, in the order of the calls."""
        self._waiting.append(function)
        self._admit()

    def give_up_opening(self, function: Callable[[], None]) -> None:
        """Whoever waits to open a stream does so no more."""
        with contextlib.suppress(ValueError):
            self._waiting.remove(function)

    def accept(self, stream: Stream) -> None:
        """Acknowledge a stream that the peer opened, which is the peer's back-pressure."""
        if stream.id in self._backlog:
            self._backlog.discard(stream.id)
            if not stream.dead:
                self.outbox.control(stream, ACK)

    def dismiss(self, stream: Stream) -> None:
        """Nobody will accept this stream: it ended before."""
        self._backlog.discard(stream.id)

    def give_up_unacknowledged(self) -> None:
        """Reset streams closed here that the peer has not acknowledged since the last call.

        A peer that never acknowledges would use up the ACK backlog with streams that nobody needs. Not
        sooner: RST may destroy in its hands the last words of a stream that it only had no time for.
        """
        overdue, self._overdue = self._overdue & self.unacknowledged, set(self.unacknowledged)
        for stream_id in overdue:
            stream = self.streams.get(stream_id)
            if stream is None:
                self._departed.give_up(stream_id)
                self._acknowledged(stream_id)
            elif stream.closing:
                self.reset(stream)

    def ping(self) -> None:
        """Send a ping; its answer sets ``rtt`` and ``ping_answered``."""
        self._ping_value = (self._ping_value + 1) & MAX_LENGTH
        self._pinged_at = time.monotonic()
        self.ping_answered = False
        self.outbox.ping(self._ping_value)

    def drain(self) -> None:
        """From now on no new streams; ``finished`` when the last one has gone."""
        self.draining = True
        self._admit()
        self.outbox.wake()

    def fail(self, why: str) -> None:
        """The connection is over: so are its streams and the waits for new ones."""
        self.draining = True
        for stream in list(self.streams.values()):
            # Told of the loss, one may end another.
            if not stream.dead:
                self._forget(stream)
                stream.on_connection_lost(why)
        self._admit()

    # What a stream does

    def may_grow(self, size: int) -> bool:
        """Whether a stream's window may double from ``size``; then that is accounted for."""
        if size * 2 > self.limits.max_window or self._windows + size > self.limits.max_windows:
            return False
        if not self.budget.allows(size):
            return False
        self._windows += size
        self.budget.windows += size
        return True

    def hold(self, count: int) -> None:
        """So many bytes more wait for readers here, or fewer."""
        self._held += count
        self.budget.buffered += count

    def may_hold(self, count: int) -> bool:
        """Whether so many bytes more may wait for readers."""
        return self._held + count <= self.limits.max_held and not self.budget.exhausted

    def shrunk(self, size: int) -> None:
        """A stream's window became so many bytes smaller."""
        self._windows -= size
        self.budget.windows -= size

    def finish(self, stream: Stream) -> None:
        """All that the stream had to send is sent: FIN."""
        stream.sent_fin = True
        self.outbox.finish(stream)
        if stream.got_fin:
            self._forget(stream, finished=True)
        elif stream.id in self._closing:
            self._linger(stream)

    def close(self, stream: Stream) -> None:
        """Nobody will read the stream: what comes is discarded; it goes once all is sent and received."""
        stream.discard()
        if self.streams.get(stream.id) is not stream:
            return
        if stream.sent_fin:
            self._linger(stream)
            return
        stream.closing = True
        self._closing[stream.id] = stream
        if len(self._closing) > self.limits.lingering:
            self.reset(next(iter(self._closing.values())))

    def _linger(self, stream: Stream) -> None:
        self._remove(stream)
        for evicted in self._departed.linger(stream):
            self._acknowledged(evicted)

    def reset(self, stream: Stream) -> None:
        """Send RST, and forget the stream and what waits of it."""
        if self.streams.get(stream.id) is stream:
            self.outbox.reset(stream.id, stream)
            self._forget(stream)

    # What the peer does

    def handle(self, frame: Frame) -> None:
        """Do what a frame says. Raises ProtocolError or PeerEndedError."""
        if frame.kind <= WINDOW_UPDATE:
            self._on_stream_frame(frame)
        elif frame.kind == PING:
            if frame.flags & SYN:
                self.outbox.pong(frame.length)
            elif frame.length == self._ping_value and not self.ping_answered:
                # An answer to an older ping is no measurement any more.
                self.rtt = time.monotonic() - self._pinged_at
                self.ping_answered = True
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
            self.outbox.drop(stream)
            self._forget(stream)
            stream.on_reset()
            return
        if frame.kind == DATA and (frame.length or frame.payload):
            if stream.got_fin:
                self.reset(stream)
                stream.on_reset("the peer sent data behind its end")
                return
            self._on_data(stream, frame)
        elif frame.kind == WINDOW_UPDATE and frame.length:
            stream.on_credit(frame.length)
        if flags & FIN and not stream.got_fin and not stream.dead:
            stream.on_fin()
            self._closing.pop(stream.id, None)
            if stream.sent_fin and not stream.dead:
                self._forget(stream, finished=True)

    def _on_data(self, stream: Stream, frame: Frame) -> None:
        if not stream.closing:
            stream.on_data(frame.length, frame.payload)
            return
        stream.inbox.announce(frame.length)
        if stream.inbox.allowed < stream.inbox.window // 2:
            # So much can have been on its way before the peer knew; this one has more to say, to nobody.
            self.reset(stream)

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
            stream = self._add(stream_id)
            self._backlog.add(stream_id)
            self._on_incoming(stream)

    def _on_stray(self, frame: Frame) -> None:
        """A frame for a stream that nobody holds here."""
        stream_id = frame.stream_id
        if self._departed.on_frame(frame):
            return
        if stream_id & 1 == self._parity and stream_id >= self._next_id:
            raise ProtocolError(f"a frame on stream {stream_id}, which was never opened")
        stray = frame.kind == DATA and not frame.flags & (RST | FIN) and not frame.continues
        if stray and self.outbox.pending_resets <= self.limits.pending_resets:
            self._refuse(stream_id)

    # The table

    def _add(self, stream_id: int) -> Stream:
        stream = self.streams[stream_id] = Stream(stream_id, self)
        self._windows += INITIAL_WINDOW
        self.budget.windows += INITIAL_WINDOW
        return stream

    def _remove(self, stream: Stream) -> None:
        del self.streams[stream.id]
        stream.dead = True
        self._closing.pop(stream.id, None)
        self.shrunk(stream.inbox.window)
        if stream.id & 1 == self._parity:
            self._ours -= 1
            self._admit()
        if self.draining:
            self.outbox.wake()

    def _forget(self, stream: Stream, *, finished: bool = False) -> None:
        self._remove(stream)
        self._acknowledged(stream.id)
        self._departed.remember(stream.id)
        if not finished:
            self.outbox.drop(stream)

    def _refuse(self, stream_id: int) -> None:
        self.outbox.reset(stream_id)
        self._departed.remember(stream_id)

    def _acknowledged(self, stream_id: int) -> None:
        if stream_id in self.unacknowledged:
            self.unacknowledged.discard(stream_id)
            self._admit()

    def _admit(self) -> None:
        """Let those go on who wait to open a stream: each takes the room, or learns that there is none."""
        while self._waiting and (self.may_open or self.draining):
            self._waiting.popleft()()

"""What waits for the connection's one writer, and which of it goes next. No I/O.

Everything here can leave at once: bytes are taken from a stream's send window before they
come here. So the writer knows of no windows, and a stream whose peer does not read
holds nothing here that others would wait for.

Order: pings, then resets and window updates, then short messages, then bulk; within a
class round-robin by frame. Short messages first is what keeps a terminal alive beside an
upload (findings/data-plane.md, "pull scheduling").
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Callable

from .bytequeue import ByteQueue
from .frames import (
    ACK,
    DATA,
    FIN,
    GO_AWAY,
    HEADER_BYTES,
    MAX_BATCH,
    MAX_PAYLOAD,
    PING,
    RST,
    SYN,
    WINDOW_UPDATE,
    header,
)

QUEUE_BYTES = 64 * 1024
SHORT_BYTES = 16 * 1024
# A peer that pings faster than we write gets the newest of its pings answered.
_MAX_PONGS = 16
# After so many batches without bulk, one starts with it: short messages come first, not only.
_PATIENCE = 4


class Lane:
    """One stream's part of the outbox. ``on_taken`` is called when bytes have left it."""

    __slots__ = ("_credit", "_fin", "_flags", "_queue", "on_taken", "stream_id")

    def __init__(self, stream_id: int, on_taken: Callable[[], None] = lambda: None) -> None:
        self.stream_id = stream_id
        self.on_taken = on_taken
        self._queue = ByteQueue()
        self._flags = 0
        self._credit = 0
        self._fin = False

    @property
    def queued(self) -> int:
        """Bytes waiting."""
        return len(self._queue)


class Outbox:
    """``wake`` is called whenever something has been added."""

    def __init__(self, max_queued: int, wake: Callable[[], None] = lambda: None) -> None:
        self.wake = wake
        self.queued = 0
        self._max_queued = max_queued
        self._pings: deque[int] = deque(maxlen=2)
        self._pongs: deque[int] = deque(maxlen=_MAX_PONGS)
        self._resets: OrderedDict[int, None] = OrderedDict()
        # Ordered and by ID, for a reset must find and remove its lane in no time.
        self._control: OrderedDict[int, Lane] = OrderedDict()
        self._short: OrderedDict[int, Lane] = OrderedDict()
        self._bulk: OrderedDict[int, Lane] = OrderedDict()
        self._without_bulk = 0
        self._go_away: int | None = None

    @property
    def pending_resets(self) -> int:
        """Resets not yet written."""
        return len(self._resets)

    def room(self, lane: Lane) -> int:
        """How many bytes ``send`` takes of this lane now."""
        cap = QUEUE_BYTES if self.queued < self._max_queued else SHORT_BYTES
        return max(0, cap - lane.queued)

    def send(self, lane: Lane, data: bytes) -> None:
        """Queue payload, which the caller has taken from the stream's window."""
        lane._queue.append(data)
        self.queued += len(data)
        if lane.queued >= SHORT_BYTES:
            self._short.pop(lane.stream_id, None)
            self._bulk.setdefault(lane.stream_id, lane)
        elif lane.stream_id not in self._bulk:
            self._short.setdefault(lane.stream_id, lane)
        self.wake()

    def finish(self, lane: Lane) -> None:
        """Queue FIN behind what is queued."""
        lane._fin = True
        if lane.stream_id not in self._bulk:
            self._short.setdefault(lane.stream_id, lane)
        self.wake()

    def control(self, lane: Lane, flags: int = 0, credit: int = 0) -> None:
        """Queue a window update; several for one stream become one frame."""
        lane._flags |= flags
        lane._credit += credit
        self._control.setdefault(lane.stream_id, lane)
        self.wake()

    def drop(self, lane: Lane) -> None:
        """Forget what waits of this lane."""
        for among in (self._control, self._short, self._bulk):
            among.pop(lane.stream_id, None)
        self.queued -= lane.queued
        lane._queue.clear()
        lane._flags = lane._credit = 0
        lane._fin = False

    def reset(self, stream_id: int, lane: Lane | None = None) -> None:
        """Queue RST in place of all that waits of the stream."""
        if lane is not None:
            unknown = lane._flags & SYN
            self.drop(lane)
            if unknown:
                return  # The peer has not heard of this stream, and now never will.
        self._resets[stream_id] = None
        self.wake()

    def ping(self, value: int) -> None:
        """Queue a ping with this opaque value."""
        self._pings.append(value)
        self.wake()

    def pong(self, value: int) -> None:
        """Queue the answer to a ping."""
        self._pongs.append(value)
        self.wake()

    def go_away(self, code: int, *, drop: bool) -> None:
        """Queue GoAway as the last frame; ``drop`` what else waits."""
        if drop:
            self._pings.clear()
            self._pongs.clear()
            self._resets.clear()
            for lane in (*self._short.values(), *self._bulk.values(), *self._control.values()):
                self.drop(lane)
        self._go_away = code
        self.wake()

    def take(self) -> bytes:
        """Whole frames to write next, at most MAX_BATCH bytes; b"" when nothing waits."""
        parts: list[bytes] = []
        room = self._take_control(parts, MAX_BATCH)
        if room > HEADER_BYTES:
            room = self._take_data(parts, room)
        if not parts and self._go_away is not None:
            code, self._go_away = self._go_away, None
            return header(GO_AWAY, 0, 0, code)
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def _take_control(self, parts: list[bytes], room: int) -> int:
        while self._pings:
            parts.append(header(PING, SYN, 0, self._pings.popleft()))
        while self._pongs:
            parts.append(header(PING, ACK, 0, self._pongs.popleft()))
        room -= HEADER_BYTES * len(parts)
        # Before any SYN: the new stream may be the one that takes the place of the reset one.
        while self._resets and room >= HEADER_BYTES:
            stream_id, _ = self._resets.popitem(last=False)
            parts.append(header(WINDOW_UPDATE, RST, stream_id, 0))
            room -= HEADER_BYTES
        while self._control and room >= HEADER_BYTES:
            _, lane = self._control.popitem(last=False)
            parts.append(header(WINDOW_UPDATE, lane._flags, lane.stream_id, lane._credit))
            lane._flags = lane._credit = 0
            room -= HEADER_BYTES
        return room

    def _take_data(self, parts: list[bytes], room: int) -> int:
        had_bulk = False
        if self._bulk and self._without_bulk >= _PATIENCE:
            room, had_bulk = self._take_frame(self._bulk, parts, room), True
        while self._short and room > HEADER_BYTES:
            room = self._take_frame(self._short, parts, room)
        # Only a good piece: cutting bulk to fill small gaps would make small frames of it.
        while self._bulk and room >= SHORT_BYTES:
            room, had_bulk = self._take_frame(self._bulk, parts, room), True
        self._without_bulk = 0 if had_bulk or not self._bulk else self._without_bulk + 1
        return room

    def _take_frame(self, among: OrderedDict[int, Lane], parts: list[bytes], room: int) -> int:
        """One frame of the lane whose turn it is, and its FIN; the room that is left."""
        stream_id, lane = among.popitem(last=False)
        size = min(lane.queued, room - HEADER_BYTES, MAX_PAYLOAD)
        if size > 0:
            parts.append(header(DATA, 0, stream_id, size))
            room -= HEADER_BYTES + size
            self.queued -= size
            while size:
                piece = lane._queue.pop(size)
                size -= len(piece)
                parts.append(piece)
            lane.on_taken()
        if lane.queued or (lane._fin and room < HEADER_BYTES):
            among.setdefault(stream_id, lane)
        elif lane._fin:
            # A frame of its own: some implementations handle the flags before the payload.
            lane._fin = False
            parts.append(header(DATA, FIN, stream_id, 0))
            room -= HEADER_BYTES
        return room

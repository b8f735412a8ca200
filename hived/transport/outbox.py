"""What waits for a connection's writer, and which of it goes next. No I/O.

Nothing of the streams' data waits here: a stream that has some is only marked as ready, and its
bytes are taken from where they are when its turn comes ("pull scheduling", findings/data-plane.md).
So a blocked connection leaves them in the kernel's socket, and memory stays flat.

Order: pings, then resets and window updates, then streams with short messages, then bulk, one
record of it at a time. Short messages first is what keeps a terminal alive beside an upload; and
since each ready stream gets one record a pass, they come first but not only.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from .frames import (
    ACK,
    DATA,
    FIN,
    GO_AWAY,
    HEADER_BYTES,
    PING,
    RST,
    SYN,
    WINDOW_UPDATE,
    header,
)

if TYPE_CHECKING:
    from .stream import Stream

# A stream whose last record was shorter is served before those that fill theirs.
SHORT_BYTES: Final = 16 * 1024
# What a bulk stream may send before the next one's turn: full records or many half full ones.
QUANTUM: Final = 128 * 1024
# A peer that pings faster than we write gets the newest of its pings answered.
_MAX_PONGS: Final = 16


class Outbox:
    """``wake`` is called whenever something has been added."""

    def __init__(self, wake: Callable[[], None] = lambda: None) -> None:
        self.wake = wake
        self.quick: deque[Stream] = deque()
        self.bulk: deque[Stream] = deque()
        self._pings: deque[int] = deque(maxlen=2)
        self._pongs: deque[int] = deque(maxlen=_MAX_PONGS)
        self._resets: OrderedDict[int, None] = OrderedDict()
        # By ID, for a reset must find and remove them in no time.
        self._control: OrderedDict[int, Stream] = OrderedDict()
        # Streams whose SYN goes with their first data; each is in ``quick`` too.
        self._opening: dict[int, Stream] = {}
        self._fins: OrderedDict[int, None] = OrderedDict()
        self._go_away: int | None = None
        self.urgent = False
        """Frames wait that go before any data."""

    @property
    def pending_resets(self) -> int:
        """Resets not yet written."""
        return len(self._resets)

    @property
    def empty(self) -> bool:
        """Nothing waits, not even GoAway."""
        return not (self.urgent or self.quick or self.bulk or self._go_away is not None)

    # Adding

    def ready(self, stream: Stream) -> None:
        """The stream has something to send, as far as it knows."""
        stream.queued = True
        if stream.bulk:
            self.bulk.append(stream)
        else:
            self.quick.append(stream)
        if stream.control_flags & SYN and stream.id in self._control:
            # The peer can deal with it at once only if it knows what it is for.
            self._opening[stream.id] = self._control.pop(stream.id)
            self._look()
        self.wake()

    def control(self, stream: Stream, flags: int = 0, credit: int = 0) -> None:
        """Queue a window update; several for one stream become one frame."""
        stream.control_flags |= flags
        stream.control_credit += credit
        if stream.id not in self._opening:
            self._control[stream.id] = stream
            self._urge()

    def finish(self, stream: Stream) -> None:
        """Queue FIN; all data of the stream has left."""
        # A frame of its own: some implementations handle the flags before the payload.
        self._fins[stream.id] = None
        self._urge()

    def drop(self, stream: Stream) -> None:
        """Forget what waits of this stream. It must not be marked ready again."""
        self._control.pop(stream.id, None)
        self._opening.pop(stream.id, None)
        self._fins.pop(stream.id, None)
        stream.control_flags = stream.control_credit = 0

    def reset(self, stream_id: int, stream: Stream | None = None) -> None:
        """Queue RST in place of all that waits of the stream."""
        if stream is not None:
            unknown = stream.control_flags & SYN
            self.drop(stream)
            if unknown:
                return  # The peer has not heard of this stream, and now never will.
        self._resets[stream_id] = None
        self._urge()

    def ping(self, value: int) -> None:
        """Queue a ping with this opaque value."""
        self._pings.append(value)
        self._urge()

    def pong(self, value: int) -> None:
        """Queue the answer to a ping."""
        self._pongs.append(value)
        self._urge()

    def go_away(self, code: int, *, drop: bool) -> None:
        """Queue GoAway as the last frame; ``drop`` what else waits."""
        if drop:
            for waiting in (
                self._pings,
                self._pongs,
                self._resets,
                self._control,
                self._opening,
                self._fins,
            ):
                waiting.clear()
            self.quick.clear()
            self.bulk.clear()
            self.urgent = False
        self._go_away = code
        self.wake()

    def _urge(self) -> None:
        self.urgent = True
        self.wake()

    def _look(self) -> None:
        self.urgent = bool(self._pings or self._pongs or self._resets or self._control or self._fins)

    # Taking

    def take_control(self, room: int) -> bytes:
        """The frames that go before any data, at most ``room`` bytes of them."""
        count = room // HEADER_BYTES
        parts: list[bytes] = []
        while self._pings and len(parts) < count:
            parts.append(header(PING, SYN, 0, self._pings.popleft()))
        while self._pongs and len(parts) < count:
            parts.append(header(PING, ACK, 0, self._pongs.popleft()))
        # Before any SYN: the new stream may be the one that takes the place of the reset one.
        while self._resets and len(parts) < count:
            parts.append(header(WINDOW_UPDATE, RST, self._resets.popitem(last=False)[0], 0))
        while self._control and len(parts) < count:
            parts.append(_window_update(self._control.popitem(last=False)[1]))
        while self._fins and len(parts) < count:
            parts.append(header(DATA, FIN, self._fins.popitem(last=False)[0], 0))
        self._look()
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def take_opening(self, stream: Stream) -> bytes:
        """The frame that opens a stream whose first record is due; b"" when that has left."""
        return _window_update(self._opening.pop(stream.id)) if stream.id in self._opening else b""

    def take_go_away(self) -> bytes:
        """GoAway, when it is what is left; else b""."""
        if self._go_away is None:
            return b""
        code, self._go_away = self._go_away, None
        return header(GO_AWAY, 0, 0, code)

    def sent(self, stream: Stream, size: int, more: bool) -> None:
        """A record of ``size`` bytes has left the stream, whose turn it was; ``more``: there may be more."""
        was_bulk = stream.bulk
        stream.bulk = size >= SHORT_BYTES
        if not more:
            return
        stream.queued = True
        if not stream.bulk:
            self.quick.append(stream)
            return
        stream.quota -= size
        if was_bulk and stream.quota > 0:
            self.bulk.appendleft(stream)
        else:
            stream.quota = QUANTUM
            self.bulk.append(stream)


def _window_update(stream: Stream) -> bytes:
    frame = header(WINDOW_UPDATE, stream.control_flags, stream.id, stream.control_credit)
    stream.control_flags = stream.control_credit = 0
    return frame

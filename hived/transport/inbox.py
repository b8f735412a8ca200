"""The receiving half of one stream: bytes for the application, and the window. No I/O.

The window is what the peer may send before we have said more (spec: "Flow control"); it bounds what
a stalled reader can make us hold. It starts with yamux's 256 KiB and doubles while the reader keeps
up, because a window smaller than rate times round trip throttles the stream.
"""

from __future__ import annotations

from collections.abc import Callable

from .bytequeue import ByteQueue
from .frames import INITIAL_WINDOW, ProtocolError

# Beside the network's round trip, two event loops take their time to turn under load; a
# window tuned to an idle loopback's 0.1 ms would never grow.
_LOOP_SECONDS = 0.005


class Inbox:
    """``window`` is the size in bytes that the window has grown to. ``now``: seconds."""

    __slots__ = ("_allowed", "_credited_at", "_queue", "_uncredited", "window")

    def __init__(self, now: float) -> None:
        self.window = INITIAL_WINDOW
        self._allowed = INITIAL_WINDOW
        self._queue = ByteQueue()
        self._uncredited = 0
        self._credited_at = now

    @property
    def buffered(self) -> int:
        """Bytes received and not yet read."""
        return len(self._queue)

    @property
    def allowed(self) -> int:
        """Bytes that the peer may still send."""
        return self._allowed

    def announce(self, length: int) -> None:
        """Take a frame of ``length`` bytes from the window. Raises ProtocolError on an overrun."""
        if length > self._allowed:
            raise ProtocolError(f"{length} bytes sent into a window of {self._allowed}")
        self._allowed -= length

    def put(self, payload: bytes) -> None:
        """Keep bytes of an announced frame."""
        self._queue.append(payload)

    def get(self, limit: int) -> bytes:
        """At most ``limit`` bytes; b"" when there are none."""
        data = self._queue.pop(limit)
        self._uncredited += len(data)
        return data

    def credit(self, now: float, rtt: float | None, may_grow: Callable[[int], bool]) -> int:
        """How many bytes to allow the peer in addition; 0 while that is not worth a frame.

        ``may_grow`` is asked whether the window may become so many bytes larger, which it is then.
        """
        # At a quarter, so that the credit arrives well before a peer at full speed runs dry.
        if self._uncredited < self.window // 4:
            return 0
        credit = self._uncredited
        # A quarter within one round trip is a window within four: as go-yamux does it.
        if now - self._credited_at < max(rtt or 0.0, _LOOP_SECONDS) and may_grow(self.window):
            credit += self.window
            self.window *= 2
        self._credited_at = now
        self._uncredited = 0
        self._allowed += credit
        return credit

    def top_up(self) -> int:
        """How many bytes to allow the peer so that it may fill half a window at least.

        For a stream that nobody reads any more: a peer whose ``send_all`` waits for
        window has to move to be told.
        """
        if self._allowed >= self.window // 2:
            return 0
        credit = self.window - self._allowed
        self._allowed = self.window
        return credit

    def clear(self) -> None:
        """Forget what nobody will read."""
        self._queue.clear()

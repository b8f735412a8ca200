"""The receiving half of one stream: bytes for the application, and the window. No I/O.

The window is what the peer may send before we have said more (spec: "Flow control"); it bounds what
a stalled reader can make us hold. It starts with yamux's 256 KiB and doubles while the reader keeps
up, because a window smaller than rate times round trip throttles the stream.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from .bytequeue import ByteQueue
from .frames import INITIAL_WINDOW, ProtocolError

# Beside the network's round trip, two event loops take their time to turn under load; a
# window tuned to an idle loopback's 0.1 ms would never grow.
_LOOP_SECONDS: Final = 0.005


class Inbox:
    """``window`` is the size in bytes that the window has grown to. ``now``: seconds.

    ``allowed``: bytes that the peer may still send; ``uncredited``: read, and not yet allowed again.
    """

    __slots__ = ("_credited_at", "allowed", "queue", "uncredited", "window")

    def __init__(self, now: float) -> None:
        self.window = INITIAL_WINDOW
        self.allowed = INITIAL_WINDOW
        self.queue = ByteQueue()
        self.uncredited = 0
        self._credited_at = now

    @property
    def buffered(self) -> int:
        """Bytes received and not yet read."""
        return self.queue.size

    def announce(self, length: int) -> None:
        """Take a frame of ``length`` bytes from the window. Raises ProtocolError on an overrun."""
        if length > self.allowed:
            raise ProtocolError(f"{length} bytes sent into a window of {self.allowed}")
        self.allowed -= length

    def put(self, payload: bytes) -> None:
        """Keep bytes of an announced frame."""
        self.queue.append(payload)

    def get(self, limit: int) -> bytes:
        """At most ``limit`` bytes; b"" when there are none."""
        data = self.queue.pop(limit)
        self.uncredited += len(data)
        return data

    def passed(self, count: int) -> None:
        """Bytes of an announced frame went to the reader at once."""
        self.uncredited += count

    def get_into(self, space: memoryview) -> int:
        """Move bytes into ``space``; how many."""
        count = self.queue.pop_into(space)
        self.uncredited += count
        return count

    def put_back(self, data: bytes) -> None:
        """What ``get`` gave was not read after all."""
        self.queue.push_front(data)
        self.uncredited -= len(data)

    def first(self) -> memoryview:
        """A view of the oldest bytes; release it before anything else is done."""
        return self.queue.first()

    def drop(self, count: int) -> None:
        """So many of the oldest bytes, all of ``first()``, have been read."""
        self.queue.drop(count)
        self.uncredited += count

    @property
    def worth_credit(self) -> bool:
        """A quarter of the window was read: soon enough that a peer at full speed does not run dry."""
        return self.uncredited >= self.window >> 2

    def shrink(self) -> int:
        """Halve a window that has grown, by giving less credit than was read; by how many bytes."""
        less = min(self.window - max(INITIAL_WINDOW, self.window // 2), self.uncredited)
        self.window -= less
        self.uncredited -= less
        return less

    def credit(self, now: float, rtt: float | None, may_grow: Callable[[int], bool]) -> int:
        """How many bytes to allow the peer in addition; 0 while that is not worth a frame.

        ``may_grow`` is asked whether the window may become so many bytes larger, which it is then.
        """
        if not self.worth_credit:
            return 0
        credit = self.uncredited
        # A quarter within one round trip is a window within four: as go-yamux does it.
        if now - self._credited_at < max(rtt or 0.0, _LOOP_SECONDS) and may_grow(self.window):
            credit += self.window
            self.window *= 2
        self._credited_at = now
        self.uncredited = 0
        self.allowed += credit
        return credit

    def top_up(self) -> int:
        """How many bytes to allow the peer so that it may fill half a window at least.

        For a stream that nobody reads any more: a peer whose ``send_all`` waits for
        window has to move to be told.
        """
        if self.allowed >= self.window // 2:
            return 0
        credit = self.window - self.allowed
        self.allowed = self.window
        return credit

    def clear(self) -> None:
        """Forget what nobody will read."""
        self.queue.clear()

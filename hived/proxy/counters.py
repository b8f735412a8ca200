"""What one proxy has had and has: connections and bytes."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

import trio

from ..transport.plane import Plane

# Changes come thousands a second; who watches them is told this often.
_TELL_SECONDS: Final = 0.05


@dataclass(frozen=True)
class Trouble:
    """What is wrong with a proxy, for people, and when that came up, epoch seconds."""

    why: str
    at: float


@dataclass(eq=False)
class Counters:
    """Live and past connections; bytes from local to tunnel (out) and back (in).

    Changed on the data plane's thread, read on any. ``on_change`` is called on trio's, now and then.
    """

    plane: Plane = field(repr=False)
    connections: int = 0
    total: int = 0
    bytes_in: int = 0
    bytes_out: int = 0
    last_error: str | None = None
    error_at: float = 0.0
    # Set while as many live as may; those that come wait in the kernel.
    full_at: int = 0
    full_since: float = 0.0
    on_change: Callable[[], None] = field(default=lambda: None, repr=False)
    _due: bool = field(default=False, repr=False)
    _changed: trio.Event = field(default_factory=trio.Event, repr=False)

    @property
    def trouble(self) -> Trouble | None:
        """What is wrong with the proxy now; None for nothing."""
        # Each read once: the data plane's thread may change it meanwhile.
        most, error = self.full_at, self.last_error
        if most:
            why = f"{most:,} connections, the most that one proxy carries; more wait until one ends"
            return Trouble(why, self.full_since)
        return Trouble(error, self.error_at) if error else None

    def failed(self, why: str) -> None:
        """A connection has failed, now. On trio's thread."""
        # In this order: an error that can be read has its time.
        self.error_at = time.time()
        self.last_error = why

    def filled(self, most: int) -> None:
        """As many live as may. On the data plane's thread."""
        if not self.full_at:
            self.full_since = time.time()
            self.full_at = most

    def begin(self) -> None:
        """A connection begins. On the data plane's thread."""
        self.connections += 1
        self.total += 1
        self._tell_soon()

    def end(self) -> None:
        """A connection has ended. On the data plane's thread."""
        self.connections -= 1
        self._tell_soon()

    def _tell_soon(self) -> None:
        if not self._due:
            self._due = True
            self.plane.after(_TELL_SECONDS, self._tell)

    def _tell(self) -> None:
        self._due = False
        self.plane.tell(self._on_told)

    def _on_told(self) -> None:
        self._changed.set()
        self._changed = trio.Event()
        self.on_change()

    async def idle(self) -> None:
        """Wait until no connection is left."""
        while self.connections:
            await self._changed.wait()

"""What one proxy has had and has: connections and bytes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

import trio

from ..transport.plane import Plane

# Changes come thousands a second; who watches them is told this often.
_TELL_SECONDS: Final = 0.05


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
    # Set while as many live as may; those that come wait in the kernel.
    full_at: int = 0
    on_change: Callable[[], None] = field(default=lambda: None, repr=False)
    _due: bool = field(default=False, repr=False)
    _changed: trio.Event = field(default_factory=trio.Event, repr=False)

    @property
    def trouble(self) -> str | None:
        """What is wrong with the proxy now, for people; None for nothing."""
        if self.full_at:
            return f"{self.full_at:,} connections, the most that one proxy carries; more wait until one ends"
        return self.last_error

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

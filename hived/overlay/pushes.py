"""Changes on their way to connected members: one queue a member, at most one push at a time.

What waits is kept once for each author, the newest; a member that does not take it costs
one stream, and the next round brings what it missed.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field

import trio

from .exchange import Copy

# Between two pushes to one member, so that a burst of changes goes together.
PACE_SECONDS = 0.05
MAX_WAITING = 10_000
PAUSE_SECONDS = 60.0
MAX_FAILURES = 3

Send = Callable[[str, list[Copy]], Awaitable[bool]]


@dataclass(eq=False)
class Pushes:
    """What is to be told to one member. ``send`` pushes copies in a network; whether that went well.

    ``paused_until``, on the trio clock: after three failures in a row the member has a rest.
    """

    send: Send
    nursery: trio.Nursery
    on_pause: Callable[[], None]
    _waiting: dict[str, dict[str, Copy]] = field(default_factory=dict)
    _running: bool = False
    _failures: int = 0
    paused_until: float = 0.0

    def offer(self, network: str, copies: dict[str, Copy], delay: float = 0.0) -> None:
        """Tell of authors' new records, by peer ID, after ``delay`` seconds; returns at once."""
        if trio.current_time() < self.paused_until:
            return
        waiting = self._waiting.setdefault(network, {})
        waiting.update(copies)
        while len(waiting) > MAX_WAITING:
            del waiting[next(iter(waiting))]
        if not self._running:
            self._running = True
            self.nursery.start_soon(self._run, delay)

    def known(self, network: str, authors: Iterable[str]) -> None:
        """The member has told of these authors itself: no need to tell it back."""
        waiting = self._waiting.get(network, {})
        for author in authors:
            waiting.pop(author, None)

    async def _run(self, delay: float) -> None:
        try:
            await trio.sleep(delay)
            while self._waiting:
                network, copies = self._waiting.popitem()
                if not copies:
                    continue
                if await self.send(network, list(copies.values())):
                    self._failures = 0
                else:
                    self._failures += 1
                if self._failures >= MAX_FAILURES:
                    self._failures = 0
                    self._waiting.clear()
                    self.paused_until = trio.current_time() + PAUSE_SECONDS
                    self.on_pause()
                    return
                await trio.sleep(PACE_SECONDS)
        finally:
            self._running = False

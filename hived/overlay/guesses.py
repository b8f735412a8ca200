"""How often somebody may try a password: growing delays for each source, and in total.

A pure table with the time passed in, so that its rules can be tested without waiting.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

FIRST_DELAY = 0.5
MAX_DELAY = 60.0
FORGET_SECONDS = 600.0
MAX_SOURCES = 10_000


@dataclass
class _Source:
    failures: int
    last: float
    open_at: float


class Guesses:
    """Failed tries by source. After the n-th failure a source waits 0.5 s * 2^(n-1), at most 60 s.

    Ten minutes without a failure and all is forgotten. Times are seconds of one clock.
    """

    def __init__(self, first_delay: float = FIRST_DELAY, max_delay: float = MAX_DELAY) -> None:
        self._sources: OrderedDict[str, _Source] = OrderedDict()
        self._first = first_delay
        self._max = max_delay

    def wait(self, source: str, now: float) -> float:
        """Seconds that ``source`` has to wait before its next try; 0 when it may try."""
        known = self._sources.get(source)
        if known is None:
            return 0.0
        if now - known.last > FORGET_SECONDS:
            del self._sources[source]
            return 0.0
        return max(0.0, known.open_at - now)

    def begin(self, source: str, now: float) -> None:
        """A try begins: until it ends, a source that failed before may not begin another."""
        known = self._sources.get(source)
        if known is not None:
            known.open_at = now + self._delay(known.failures)

    def failed(self, source: str, now: float) -> float:
        """A try failed; the delay in seconds that follows from it."""
        known = self._sources.get(source)
        failures = known.failures + 1 if known and now - known.last <= FORGET_SECONDS else 1
        delay = self._delay(failures)
        self._sources[source] = _Source(failures, now, now + delay)
        self._sources.move_to_end(source)
        while len(self._sources) > MAX_SOURCES:
            self._sources.popitem(last=False)
        return delay

    def failures(self, source: str) -> int:
        known = self._sources.get(source)
        return known.failures if known else 0

    def succeeded(self, source: str) -> None:
        """The right password: what failed before is forgiven."""
        self._sources.pop(source, None)

    def forgive(self, of: Callable[[str], bool]) -> None:
        """Forget the failures of those sources for which ``of`` is true."""
        for source in [source for source in self._sources if of(source)]:
            del self._sources[source]

    def _delay(self, failures: int) -> float:
        return float(min(self._max, self._first * 2 ** min(failures - 1, 30)))

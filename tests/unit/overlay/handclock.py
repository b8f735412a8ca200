"""A clock that a test sets by hand: the time that passes, and what the wall clock claims."""

from __future__ import annotations

from dataclasses import dataclass

from hived.overlay.clock import Clock

DAY = 86400.0
YEAR = 365.25 * DAY
NOW = 1_800_000_000.0


@dataclass
class HandClock:
    """``passed``: seconds on the monotonic clock; ``wall``: epoch seconds, right or wrong."""

    passed: float = 1000.0
    wall: float = NOW

    @property
    def clock(self) -> Clock:
        return Clock(monotonic=lambda: self.passed, wall=lambda: self.wall)

    def go(self, seconds: float) -> None:
        """Time passes, on both clocks."""
        self.passed += seconds
        self.wall += seconds

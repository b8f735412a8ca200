"""How many new authors one member may make known: itself, and 100 others an hour (DESIGN.md)."""

from __future__ import annotations

from dataclasses import dataclass, field

MAX_NEW_AUTHORS = 100
WINDOW_SECONDS = 3600.0


@dataclass
class Introductions:
    """Counts by (network, member), with the time passed in: seconds of one clock."""

    _counts: dict[tuple[str, str], tuple[float, int]] = field(default_factory=dict)

    def allow(self, network: str, member: str, author: str, now: float) -> bool:
        """Whether ``member`` may make one more ``author`` known now; counts it."""
        if author == member:
            return True
        key = (network, member)
        began, count = self._counts.get(key, (now, 0))
        if now - began > WINDOW_SECONDS:
            began, count = now, 0
            self._counts = {k: v for k, v in self._counts.items() if now - v[0] <= WINDOW_SECONDS}
        if count >= MAX_NEW_AUTHORS:
            return False
        self._counts[key] = (began, count + 1)
        return True

    def worth_a_line(self, network: str, member: str) -> bool:
        """Whether to log that ``member`` was refused: the first time within its hour."""
        key = (network, member)
        began, count = self._counts.get(key, (0.0, 0))
        if count != MAX_NEW_AUTHORS:
            return False
        self._counts[key] = (began, count + 1)
        return True

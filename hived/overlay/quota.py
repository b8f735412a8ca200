"""How much one member, or one author, may cost this node: token buckets with the time passed in.

Nothing here refuses for good. What a bucket turns away now, a later round brings.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable
from dataclasses import dataclass, field

MAX_NEW_AUTHORS = 100
# In the first hour in a network one member must be able to tell of all the others.
MAX_FIRST_AUTHORS = 10_000
HOUR = 3600.0
_MAX_KEYS = 20_000


@dataclass
class Allowance:
    """Up to ``burst`` at once and ``rate`` a second, for each key. Times are seconds of one clock."""

    burst: float
    rate: float
    _left: OrderedDict[Hashable, tuple[float, float]] = field(default_factory=OrderedDict)

    def take(self, key: Hashable, now: float, amount: float = 1.0) -> bool:
        """Whether ``key`` may have ``amount`` more now; takes it."""
        left = self.left(key, now)
        if left < amount:
            return False
        self._set(key, left - amount, now)
        return True

    def charge(self, key: Hashable, now: float, amount: float) -> None:
        """Take ``amount`` for what has been done already, below nothing too."""
        self._set(key, max(self.left(key, now) - amount, -self.burst), now)

    def left(self, key: Hashable, now: float) -> float:
        left, when = self._left.get(key, (self.burst, now))
        return min(self.burst, left + (now - when) * self.rate)

    def _set(self, key: Hashable, left: float, now: float) -> None:
        self._left[key] = (left, now)
        self._left.move_to_end(key)
        # The oldest have had the longest time to fill again.
        while len(self._left) > _MAX_KEYS:
            self._left.popitem(last=False)


@dataclass
class Introductions:
    """How many new authors one member may make known in a network: itself, and 100 others an hour.

    In this node's first hour of touch with the network as many as it may have at all: a
    newcomer knows nobody yet, and often one member only.
    """

    _later: Allowance = field(default_factory=lambda: Allowance(MAX_NEW_AUTHORS, MAX_NEW_AUTHORS / HOUR))
    _first: Allowance = field(default_factory=lambda: Allowance(MAX_FIRST_AUTHORS, MAX_FIRST_AUTHORS / HOUR))

    def allow(self, network: str, member: str, author: str, now: float, touch: float) -> bool:
        """Whether ``member`` may make ``author`` known now; ``touch``: seconds in touch with the network."""
        return author == member or self._bucket(touch).take((network, member), now)

    def left(self, network: str, member: str, now: float, touch: float) -> int:
        """How many more authors ``member`` may make known now."""
        return int(self._bucket(touch).left((network, member), now))

    def _bucket(self, touch: float) -> Allowance:
        return self._first if touch < HOUR else self._later


@dataclass
class Budgets:
    """All that members may cost in an exchange of records; keys are peer IDs, or begin with one."""

    introductions: Introductions = field(default_factory=Introductions)
    # Exchanges that a member may open.
    rounds: Allowance = field(default_factory=lambda: Allowance(burst=16, rate=0.5))
    pushes: Allowance = field(default_factory=lambda: Allowance(burst=1000, rate=50))
    # Records from it that are no news: each change reaches a node once from every neighbour.
    useless: Allowance = field(default_factory=lambda: Allowance(burst=4000, rate=50))
    # Records from it that are pushed on; the rest of a bulk goes by rounds.
    forwards: Allowance = field(default_factory=lambda: Allowance(burst=256, rate=2))
    # How often an author may say something new; the newest counts, so that nothing is lost.
    updates: Allowance = field(default_factory=lambda: Allowance(burst=30, rate=0.2))
    # What is logged of it.
    lines: Allowance = field(default_factory=lambda: Allowance(burst=20, rate=1 / 600))

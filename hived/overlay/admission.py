"""Which connections are worth a handshake, before any cryptography: a flood must not cost what members need.

A handshake is about a millisecond of CPU, a join some twenty. Addresses from which members
came lately have a share of their own, that strangers at other addresses cannot use up.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field

from .quota import Allowance

MEMBER_SECONDS = 3600.0
_MAX_SOURCES = 10_000


@dataclass
class Admission:
    """Sans-IO; times are seconds of one clock. A source is what addresses.source_of makes of an address."""

    # A new member's first dial, with all its retries, fits into each of these.
    source: Allowance = field(default_factory=lambda: Allowance(burst=20, rate=4))
    strangers: Allowance = field(default_factory=lambda: Allowance(burst=60, rate=20))
    members: Allowance = field(default_factory=lambda: Allowance(burst=120, rate=40))
    _vouched: OrderedDict[str, float] = field(default_factory=OrderedDict)

    def admit(self, source: str, now: float) -> bool:
        """Whether a connection from ``source`` may begin a handshake now; counts it."""
        if now - self._vouched.get(source, float("-inf")) < MEMBER_SECONDS:
            return self.members.take(source, now)
        # In this order: what one source may not have costs the others nothing.
        return self.source.take(source, now) and self.strangers.take("", now)

    def vouch(self, source: str, now: float) -> None:
        """A member proved itself on a connection from there."""
        self._vouched[source] = now
        self._vouched.move_to_end(source)
        while len(self._vouched) > _MAX_SOURCES:
            self._vouched.popitem(last=False)

"""Which connections are worth a handshake, before any cryptography: a flood must not cost what members need.

A handshake and a join are some two milliseconds of CPU. Addresses from which members came
lately have a share of their own, that strangers at other addresses cannot use up.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field

from .addresses import site_of
from .quota import Allowance

MEMBER_SECONDS = 30 * 86400.0
MAX_PAUSE = 60.0
_MAX_SOURCES = 10_000


@dataclass
class Turns:
    """A share of the connections that sources take turns at.

    The more they use up together, the longer each pauses after it was let in, so that who comes
    for the first time in a minute need not outrun a flood.
    """

    share: Allowance
    _admitted: OrderedDict[str, float] = field(default_factory=OrderedDict)

    def admit(self, source: str, now: float) -> bool:
        """Whether a connection from ``source`` is to go on; counts it."""
        # None while half of the share is there.
        pause = MAX_PAUSE * max(0.0, 1 - 2 * self.share.left("", now) / self.share.burst) ** 2
        if now - self._admitted.get(source, float("-inf")) < pause or not self.share.take("", now):
            return False
        _put(self._admitted, source, now)
        return True


@dataclass
class Admission:
    """Sans-IO; times are seconds of one clock. A source is what addresses.source_of makes of an address.

    A site is all of an IPv6 /48, which is one customer's: it has no more than a part of the strangers' share.
    """

    stranger: Allowance = field(default_factory=lambda: Allowance(burst=20, rate=4))
    site: Allowance = field(default_factory=lambda: Allowance(burst=30, rate=4))
    strangers: Turns = field(default_factory=lambda: Turns(Allowance(burst=60, rate=10)))
    member: Allowance = field(default_factory=lambda: Allowance(burst=120, rate=20))
    members: Turns = field(default_factory=lambda: Turns(Allowance(burst=240, rate=40)))
    _vouched: OrderedDict[str, float] = field(default_factory=OrderedDict)

    def admit(self, source: str, now: float) -> bool:
        """Whether a connection from ``source`` may begin a handshake now; counts it."""
        # In this order: what one source may not have costs the others nothing.
        if now - self._vouched.get(source, float("-inf")) < MEMBER_SECONDS:
            return self.member.take(source, now) and self.members.admit(source, now)
        return (
            self.stranger.take(source, now)
            and self.site.take(site_of(source), now)
            and self.strangers.admit(source, now)
        )

    def vouch(self, source: str, now: float) -> None:
        """A member proved itself on a connection from there, or ended one."""
        _put(self._vouched, source, now)

    def vouched(self) -> list[str]:
        """Where members came from, the latest last: kept over restarts."""
        return list(self._vouched)


def _put(table: OrderedDict[str, float], source: str, now: float) -> None:
    table[source] = now
    table.move_to_end(source)
    while len(table) > _MAX_SOURCES:
        table.popitem(last=False)

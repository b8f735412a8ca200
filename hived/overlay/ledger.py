"""What a node holds of one network's records: who is known, hidden, or expired, and since when.

Ages are counted in seconds that this node was in touch with the network (connected to a
member), never by a wall clock: a machine whose clock is wrong by years, or that was alone
for months, forgets nobody. An age travels with the record, so that copies expire together;
an expired record leaves its sequence behind, so that an old copy does not bring it back.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from .ranges import Ranges, key_of
from .records import NodeRecord, SignedRecord

EXPIRY_SECONDS = 30 * 86400.0
MAX_RECORDS = 10_000


@dataclass
class Ledger:
    """The records of one network. ``touch``: seconds in touch with it, over all restarts.

    ``came``: when a record came, on the touch clock, less its age at the sender.
    """

    touch: float = 0.0
    records: dict[str, SignedRecord] = field(default_factory=dict)
    came: dict[str, float] = field(default_factory=dict)
    hidden: set[str] = field(default_factory=set)
    expired: dict[str, int] = field(default_factory=dict)
    _buried: dict[str, int] = field(default_factory=dict)
    ranges: Ranges = field(default_factory=Ranges)

    def __len__(self) -> int:
        return len(self.records)

    def put(self, signed: SignedRecord, came: float | None = None) -> None:
        """Take a record in the place of its author's former one; it is hidden no more."""
        author = signed.record.peer_id
        self.records[author] = signed
        self.came[author] = self.touch if came is None else came
        self.hidden.discard(author)
        if self.expired.pop(author, None) is not None:
            del self._buried[key_of(author)]
        self.ranges.put(author, signed.record.seq)

    def sequence(self, author: str) -> int:
        """The highest sequence that is or was known of an author; 0 when there is none."""
        held = self.records.get(author)
        return held.record.seq if held else self.expired.get(author, 0)

    def age(self, author: str) -> float:
        """Seconds in touch with the network since an author's record was made, as far as this node knows."""
        return max(0.0, self.touch - self.came[author])

    def seen(self, author: str) -> None:
        """An author proved that it lives: its record is as good as new."""
        if author in self.came:
            self.came[author] = self.touch

    def outdated(self) -> Iterator[str]:
        """Authors whose records have been there for 30 days without a sign of life."""
        return (author for author, came in self.came.items() if self.touch - came > EXPIRY_SECONDS)

    def expire(self, author: str) -> None:
        """Drop an author's record; only a newer one brings it back."""
        self.bury(author, self.records.pop(author).record.seq)
        del self.came[author]
        self.hidden.discard(author)
        self.ranges.drop(author)

    def bury(self, author: str, sequence: int) -> None:
        """Remember the last sequence of an author who was dropped; of 10,000 at most."""
        self.expired[author] = self._buried[key_of(author)] = sequence
        while len(self.expired) > MAX_RECORDS:
            first = next(iter(self.expired))
            del self.expired[first], self._buried[key_of(first)]

    def is_buried(self, key: str, sequence: int) -> bool:
        """Whether a record with this author key and sequence was dropped, or an older one than that."""
        return sequence <= self._buried.get(key, 0)

    def get(self, author: str) -> NodeRecord | None:
        """An author's record, unless the user forgot it."""
        signed = self.records.get(author)
        return signed.record if signed and author not in self.hidden else None

    def visible(self) -> Iterator[NodeRecord]:
        """All records but those that the user forgot."""
        return (s.record for author, s in list(self.records.items()) if author not in self.hidden)

"""What two nodes know, compared by ID ranges without sending it: the core of ``/hive/sync/1.1.0``.

Authors are ordered by a hash of their peer ID, written in hexadecimal. A range is a prefix
of that; its fingerprint covers every author in it with the sequence of its record. Equal
fingerprints end a comparison at once, whatever the number of nodes; different ones are
split into 16, until a range is small enough to be listed. A range's fingerprint is a hash
over those of its parts (a Merkle tree, not a sum), so that no choice of records
makes two different sets look the same.

No I/O and no clock in here.
"""

from __future__ import annotations

import hashlib
from bisect import bisect_left, insort
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import msgspec

from .wire import Message, ProtocolError

KEY_HEX = 32
FINGERPRINT_BYTES = 16
LEAF = 24
MAX_SPLITS = 4096
MAX_LISTED = 12_000
MAX_SEQUENCE = 2**53
# Deeper than any honest set of 10,000 goes, and the most turns that a comparison takes.
MAX_DEPTH = 12
_DIGITS = "0123456789abcdef"
_EMPTY = hashlib.blake2b(b"", digest_size=FINGERPRINT_BYTES).digest()


class Compare(Message):
    """One turn: fingerprints of ranges to compare, and the whole content of small ones.

    ``splits``: prefix to fingerprint. ``lists``: prefix to author key to sequence.
    Neither: the sender has nothing left to compare.
    """

    splits: dict[str, bytes] = msgspec.field(default_factory=dict)
    lists: dict[str, dict[str, int]] = msgspec.field(default_factory=dict)


def key_of(author: str) -> str:
    """Where a peer ID stands in the order: 128 bits of its SHA-256, in hexadecimal."""
    return hashlib.sha256(author.encode()).hexdigest()[:KEY_HEX]


class Ranges:
    """A set of (author, sequence) with fingerprints of its ranges, kept up to date as it changes."""

    def __init__(self) -> None:
        self._keys: list[str] = []
        self._sequences: dict[str, int] = {}
        self._authors: dict[str, str] = {}
        self._fingerprints: dict[str, bytes] = {}

    def __len__(self) -> int:
        return len(self._keys)

    def put(self, author: str, sequence: int) -> None:
        """Add an author, or give it another sequence."""
        key = key_of(author)
        if key not in self._sequences:
            insort(self._keys, key)
        self._sequences[key] = sequence
        self._authors[key] = author
        self._touch(key)

    def drop(self, author: str) -> None:
        """Take an author out; no error when it is not there."""
        key = key_of(author)
        if self._sequences.pop(key, None) is not None:
            del self._keys[bisect_left(self._keys, key)]
            del self._authors[key]
            self._touch(key)

    def sequence(self, key: str) -> int:
        """The sequence of an author key; 0 when it is not there."""
        return self._sequences.get(key, 0)

    def author(self, key: str) -> str | None:
        return self._authors.get(key)

    def count(self, prefix: str) -> int:
        """How many authors are in a range."""
        low, high = self._bounds(prefix)
        return high - low

    def fingerprint(self, prefix: str = "") -> bytes:
        """What stands for the content of a range; equal if and only if the contents are."""
        low, high = self._bounds(prefix)
        if low == high:
            return _EMPTY
        found = self._fingerprints.get(prefix)
        if found is None:
            if high - low <= LEAF or len(prefix) >= MAX_DEPTH:
                listed = ",".join(f"{key}={self._sequences[key]}" for key in self._keys[low:high])
                parts = b"L" + listed.encode()
            else:
                parts = b"S" + b"".join(self.fingerprint(prefix + digit) for digit in _DIGITS)
            found = hashlib.blake2b(parts, digest_size=FINGERPRINT_BYTES).digest()
            self._fingerprints[prefix] = found
        return found

    def split(self, prefix: str) -> dict[str, bytes]:
        """The fingerprints of the 16 parts of a range."""
        return {prefix + digit: self.fingerprint(prefix + digit) for digit in _DIGITS}

    def list(self, prefix: str) -> dict[str, int]:
        """Author keys in a range, with their sequences."""
        low, high = self._bounds(prefix)
        return {key: self._sequences[key] for key in self._keys[low:high]}

    def _bounds(self, prefix: str) -> tuple[int, int]:
        low = bisect_left(self._keys, prefix)
        # "g" comes after every hexadecimal digit.
        return low, bisect_left(self._keys, prefix + "g", low)

    def _touch(self, key: str) -> None:
        for length in range(MAX_DEPTH + 1):
            self._fingerprints.pop(key[:length], None)


@dataclass
class Comparison:
    """One side of a comparison. Feed it what comes; send what it answers until both have nothing left.

    ``declines`` says of an author key and a sequence that it is not wanted, ``declined`` that this
    was so. ``differed``: some range did; ``lied``: the other side listed one as different that is not.
    At the end ``give`` are the authors of whom this side has newer records, ``want`` the
    author keys of whom the other has, with the sequences that it ``promised``.
    """

    ranges: Ranges
    declines: Callable[[str, int], bool] = lambda key, sequence: False
    give: list[str] = field(default_factory=list)
    want: list[str] = field(default_factory=list)
    promised: dict[str, int] = field(default_factory=dict)
    differed: bool = False
    declined: bool = False
    lied: bool = False
    _turns: int = 0
    _listed: int = 0
    _listing: bool = False
    # Ranges that are settled, and all that contain one; what this side has split, with its fingerprint.
    _settled: set[str] = field(default_factory=set)
    _above: set[str] = field(default_factory=set)
    _told: dict[str, bytes] = field(default_factory=dict)

    @property
    def settled_all(self) -> bool:
        """Whether this side compared every list, there were some, and nothing came of it.

        What this side listed is settled by the other, which need not say what came of that.
        """
        nothing = not self.give and not self.want and not self.declined
        return self.differed and not self._listing and nothing

    def open(self) -> Compare:
        """The first turn, of whoever opens: one fingerprint for all."""
        self._told[""] = self.ranges.fingerprint()
        return Compare(splits=dict(self._told))

    def answer(self, theirs: Compare) -> Compare:
        """Take a turn of the other side. Raises ProtocolError for one that no honest node sends."""
        self._turns += 1
        if self._turns > MAX_DEPTH + 2:
            raise ProtocolError("a comparison without an end")
        if len(theirs.splits) > MAX_SPLITS or len(theirs.lists) > MAX_SPLITS:
            raise ProtocolError("too many ranges in one turn")
        reply = Compare()
        for prefix, listed in theirs.lists.items():
            self._once(prefix)
            self._compare(prefix, listed)
        for prefix, fingerprint in theirs.splits.items():
            _check(prefix)
            if self.ranges.fingerprint(prefix) == fingerprint:
                continue
            if self.ranges.count(prefix) <= LEAF or len(prefix) >= MAX_DEPTH:
                self._once(prefix)
                reply.lists[prefix] = self.ranges.list(prefix)
                self._listing = True
            else:
                reply.splits.update(self.ranges.split(prefix))
        if len(reply.splits) > MAX_SPLITS:
            # Too many for one message: the next round finds the rest.
            reply.splits = dict(list(reply.splits.items())[:MAX_SPLITS])
        if reply.splits.keys() & self._told.keys():
            raise ProtocolError("a range compared twice")
        self._told.update(reply.splits)
        self.differed |= bool(theirs.lists or reply.splits or reply.lists)
        return reply

    def _once(self, prefix: str) -> None:
        """Settle a range; one that overlaps another that is settled costs work twice."""
        _check(prefix)
        above = [prefix[:length] for length in range(len(prefix) + 1)]
        if prefix in self._above or any(part in self._settled for part in above):
            raise ProtocolError("a range settled twice")
        self._settled.add(prefix)
        self._above.update(above)

    def _compare(self, prefix: str, theirs: Mapping[str, int]) -> None:
        """Compare a range that the other side listed, and keep who has what newer."""
        self._listed += len(theirs)
        if self._listed > MAX_LISTED:
            raise ProtocolError("more authors than a network may have")
        ours = self.ranges.list(prefix)
        # It lists because its fingerprint differed from the one that it was told, at the same moment.
        self.lied |= ours == theirs and self._told.get(prefix) == self.ranges.fingerprint(prefix)
        for key, sequence in theirs.items():
            if len(key) != KEY_HEX or not key.startswith(prefix) or not 0 < sequence < MAX_SEQUENCE:
                raise ProtocolError("an author outside its range")
            if sequence > ours.get(key, 0):
                if self.declines(key, sequence):
                    self.declined = True
                else:
                    self.want.append(key)
                    self.promised[key] = sequence
        for key, sequence in ours.items():
            if sequence > theirs.get(key, 0):
                author = self.ranges.author(key)
                assert author is not None
                self.give.append(author)


def _check(prefix: str) -> None:
    if len(prefix) > MAX_DEPTH or not set(prefix) <= set(_DIGITS):
        raise ProtocolError("not a range")

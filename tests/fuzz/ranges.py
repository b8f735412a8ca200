"""The comparison by ID ranges: two honest sides find exactly what differs, a hostile one gets an end.

First byte: two sets that differ and are compared; turns of a hostile side; or changes of one set, whose
fingerprint must be that of a set made anew.
"""

from __future__ import annotations

import functools

import msgspec

from hived.overlay.ranges import MAX_DEPTH, MAX_SPLITS, Compare, Comparison, Ranges, key_of
from hived.overlay.wire import ProtocolError, decode

from .target import Script, Target

AUTHORS = [f"author-{number}" for number in range(2048)]
HELD = 400
"""How many authors the side has that a hostile one talks to."""
TURNS = 2 * MAX_DEPTH + 8


def made(sequences: dict[str, int]) -> Ranges:
    found = Ranges()
    for author, sequence in sequences.items():
        found.put(author, sequence)
    return found


def changes(script: Script) -> list[tuple[str, int, int]]:
    """(author, sequence or 0 for none, side): each step is about a run of authors."""
    found: list[tuple[str, int, int]] = []
    while script and len(found) < 4096:
        first, count, what = script.number(), script.byte() + 1, script.byte()
        for at in range(first, first + count):
            found.append((AUTHORS[at % len(AUTHORS)], what >> 2, what & 3))
    return found


def compare(script: Script) -> None:
    """Both sides hold what is for both (sides 0 and 3), and each what is for it alone."""
    ours: dict[str, int] = {}
    theirs: dict[str, int] = {}
    for author, sequence, side in changes(script):
        for known, wanted in ((ours, side != 2), (theirs, side != 1)):
            if wanted and sequence:
                known[author] = sequence
            elif wanted:
                known.pop(author, None)
    one, other = Comparison(made(ours)), Comparison(made(theirs))
    speaker, listener, said = one, other, one.open()
    for _ in range(TURNS):
        speaker, listener, said = listener, speaker, listener.answer(said)
        if not said.splits and not said.lists:
            break
    else:
        raise AssertionError("the comparison does not end")
    newer_here = {a for a, sequence in ours.items() if sequence > theirs.get(a, 0)}
    newer_there = {a for a, sequence in theirs.items() if sequence > ours.get(a, 0)}
    keys = {key_of(a): a for a in (*ours, *theirs)}
    assert sorted([*one.give, *(keys[key] for key in other.want)]) == sorted(newer_here)
    assert sorted([*other.give, *(keys[key] for key in one.want)]) == sorted(newer_there)
    assert (made(ours).fingerprint() == made(theirs).fingerprint()) == (ours == theirs)


@functools.cache
def held() -> Ranges:
    return made({author: 1000 + number for number, author in enumerate(AUTHORS[:HELD])})


def hostile(script: Script) -> None:
    """What is answered is bounded, and nothing is given twice, whatever comes."""
    side = Comparison(held())
    fingerprint = side.ranges.fingerprint()
    listed = 0
    for _ in range(TURNS):
        try:
            turn = decode(script.piece(), Compare)
            listed += sum(map(len, turn.lists.values()))
            reply = side.answer(turn)
        except ProtocolError:
            break
        assert len(reply.splits) <= MAX_SPLITS
        assert len(reply.lists) <= len(turn.splits)
        assert all(len(prefix) <= MAX_DEPTH + 1 for prefix in (*reply.splits, *reply.lists))
        assert len(side.want) <= listed
    else:
        raise AssertionError("the comparison does not end")
    assert len(side.give) == len(set(side.give)), "one record would be sent several times"
    assert side.ranges.fingerprint() == fingerprint


def change(script: Script) -> None:
    """A set that changes has the fingerprints of one made anew; others differ."""
    known: dict[str, int] = {}
    ranges = Ranges()
    for number, (author, sequence, side) in enumerate(changes(script)):
        if sequence:
            known[author] = sequence
            ranges.put(author, sequence)
        else:
            known.pop(author, None)
            ranges.drop(author)
        if side == 3 or not number:
            ranges.fingerprint()
    assert len(ranges) == len(known)
    fresh = made(known)
    assert ranges.fingerprint() == fresh.fingerprint()
    assert ranges.split("") == fresh.split("")
    assert ranges.list("") == {key_of(author): sequence for author, sequence in known.items()}
    if known:
        author = min(known)
        fresh.put(author, known[author] + 1)
        assert ranges.fingerprint() != fresh.fingerprint()


def run(data: bytes) -> None:
    script = Script(data)
    (compare, hostile, change)[script.byte() % 3](script)


def seeds() -> list[bytes]:
    def step(first: int, count: int, sequence: int, side: int) -> bytes:
        return first.to_bytes(2, "big") + bytes([count - 1, sequence << 2 | side])

    sets = [
        b"",
        step(0, 20, 1, 0) + step(5, 1, 2, 1),
        step(0, 256, 1, 0) + step(300, 200, 1, 1) + step(700, 30, 1, 2) + step(9, 3, 2, 2),
        b"".join(step(n * 256, 256, 1, 0) for n in range(8)) + step(77, 1, 5, 1) + step(1077, 2, 6, 2),
        step(0, 256, 1, 1),
        step(0, 256, 1, 3) + step(0, 255, 0, 3) + step(3, 9, 0, 0),
    ]
    key = key_of(AUTHORS[0])
    turns = [
        [Compare()],
        [Compare(splits={"": b"x" * 16})],
        [Compare(splits={"": b""})] * (TURNS + 1),
        [Compare(splits={"0": b"", "f": b"", "0123456789ab": b""}, lists={"": {}})],
        [Compare(lists={key[:2]: {key: 7, key[:2] + "0" * 30: 5}})],
        [Compare(lists={"": {"0" * 32: 0}}), Compare(splits={"g": b""})],
        [Compare(lists={key_of(AUTHORS[1])[:12]: {}})] * 3,
        [Compare(splits={"0123456789abc": b""})],
    ]
    spoken = [
        b"".join(len(body).to_bytes(2, "big") + body for body in map(msgspec.msgpack.encode, several))
        for several in turns
    ]
    return [b"\0" + s for s in sets] + [b"\1" + s for s in spoken] + [b"\2" + s for s in sets]


TARGET = Target("ranges", run, seeds)

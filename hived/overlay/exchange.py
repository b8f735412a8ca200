"""The messages of ``/hive/sync`` and the order they come in: a push, or a round, on one stream.

1.1.0: the opener says Open; for a push Batches follow. In a round both sides take turns with
Compare until one has nothing left to compare; then Batches go from the opener, back, and
once more from the opener where the answerer wants some. 1.0.0, of the first release, tells
whole digests instead.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import msgspec
import trio

from ..transport.muxstream import MuxedStream
from .ranges import MAX_LISTED, Compare, Comparison
from .wire import Message, ProtocolError, receive, send

SYNC = "/hive/sync/1.1.0"
SYNC_FIRST = "/hive/sync/1.0.0"
BATCH = 64
MAX_BATCHES = 10_000 // BATCH + 1
# A message that takes longer is no slow line, but a peer that holds us up; a whole exchange may be long.
MESSAGE_SECONDS = 20.0
EXCHANGE_SECONDS = 300.0
_MAX_DIGEST = 1024 * 1024
_MAX_RECORDS_BYTES = 2 * 1024 * 1024

T = TypeVar("T")


class Open(Message):
    """The opener's first message: which network, and whether it wants a round or just pushes."""

    network: bytes
    round: bool = False


class Digest(Message):
    """1.0.0: the highest sequence known of each author."""

    have: dict[str, int] = msgspec.field(default_factory=dict)


class Batch(Message):
    """Envelopes, and of whom the sender would like to have newer ones; ``more`` follow.

    ``ages``: seconds since each record was made, as the sender knows (1.1.0); ``want``:
    author keys, in 1.0.0 peer IDs.
    """

    records: list[bytes] = msgspec.field(default_factory=list)
    want: list[str] = msgspec.field(default_factory=list)
    more: bool = False
    ages: list[float] = msgspec.field(default_factory=list)


@dataclass(frozen=True)
class Copy:
    """A record on its way: its envelope and its age in seconds at the sender."""

    envelope: bytes
    age: float = 0.0


Take = Callable[[list[Copy]], Awaitable[None]]
Find = Callable[[Iterable[str]], list[Copy]]


async def push(stream: MuxedStream, copies: Sequence[Copy]) -> None:
    """Send records; returns when the other side has dealt with them."""
    await send_batches(stream, copies)
    await _until_done(stream)


async def open_round(stream: MuxedStream, comparison: Comparison, find: Find, take: Take) -> None:
    """The opener's side of a round: compare, give, take. ``find`` gives copies of authors."""
    ours = comparison.open()
    first = True
    while True:
        await say(stream, ours)
        theirs = await _hear(stream, Compare, _MAX_DIGEST)
        if not theirs.splits and not theirs.lists:
            break
        first = False
        ours = comparison.answer(theirs)
        if not ours.splits and not ours.lists:
            await say(stream, ours)
            break
    if not first:
        await send_batches(stream, find(comparison.give), comparison.want)
        wanted = await receive_batches(stream, take)
        if wanted:
            await send_batches(stream, _wanted(comparison, find, wanted))
    await _until_done(stream)


async def answer_round(stream: MuxedStream, comparison: Comparison, find: Find, take: Take) -> None:
    """The answerer's side of a round."""
    first = True
    while True:
        theirs = await _hear(stream, Compare, _MAX_DIGEST)
        if not theirs.splits and not theirs.lists:
            break
        ours = comparison.answer(theirs)
        await say(stream, ours)
        if not ours.splits and not ours.lists:
            if first:
                return
            break
        first = False
    wanted = await receive_batches(stream, take)
    await send_batches(stream, [*find(comparison.give), *_wanted(comparison, find, wanted)], comparison.want)
    if comparison.want:
        await receive_batches(stream, take)


def _wanted(comparison: Comparison, find: Find, keys: list[str]) -> list[Copy]:
    if len(keys) > MAX_LISTED:
        raise ProtocolError("more authors than a network may have")
    return find(author for key in dict.fromkeys(keys) if (author := comparison.ranges.author(key)))


async def open_first(stream: MuxedStream, have: dict[str, int], find: Find, take: Take) -> None:
    """The opener's side of a 1.0.0 round."""
    await say(stream, Digest(have=have))
    wanted = await receive_batches(stream, take)
    await send_batches(stream, find(dict.fromkeys(wanted)))
    await _until_done(stream)


async def answer_first(stream: MuxedStream, have: dict[str, int], find: Find, take: Take) -> None:
    """The answerer's side of a 1.0.0 round."""
    theirs = (await _hear(stream, Digest, _MAX_DIGEST)).have
    newer = [author for author, seq in have.items() if seq > theirs.get(author, 0)]
    want = [author for author, seq in theirs.items() if seq > have.get(author, 0)]
    await send_batches(stream, find(newer), want[:MAX_LISTED])
    await receive_batches(stream, take)


async def receive_open(stream: MuxedStream) -> Open:
    return await _hear(stream, Open, 1024)


async def send_batches(stream: MuxedStream, copies: Sequence[Copy], want: Sequence[str] = ()) -> None:
    parts = [copies[i : i + BATCH] for i in range(0, len(copies), BATCH)] or [[]]
    for index, part in enumerate(parts):
        last = index == len(parts) - 1
        batch = Batch(
            records=[copy.envelope for copy in part],
            ages=[copy.age for copy in part],
            want=list(want) if last else [],
            more=not last,
        )
        await say(stream, batch)


async def receive_batches(stream: MuxedStream, take: Take) -> list[str]:
    """Take batches until the last; what its sender wants. Raises ProtocolError."""
    for _ in range(MAX_BATCHES):
        batch = await _hear(stream, Batch, _MAX_RECORDS_BYTES)
        if len(batch.records) > BATCH:
            raise ProtocolError(f"a batch of {len(batch.records)} records")
        ages = batch.ages or [0.0] * len(batch.records)
        if len(ages) != len(batch.records) or not all(0 <= age < 2**40 for age in ages):
            raise ProtocolError("a batch with malformed ages")
        await take([Copy(envelope, age) for envelope, age in zip(batch.records, ages, strict=True)])
        if not batch.more:
            return batch.want
    raise ProtocolError("too many batches")


async def _until_done(stream: MuxedStream) -> None:
    await stream.send_eof()
    with trio.fail_after(MESSAGE_SECONDS):
        await stream.receive_some(1)


async def say(stream: MuxedStream, message: Message) -> None:
    with trio.fail_after(MESSAGE_SECONDS):
        await send(stream, message)


async def _hear(stream: MuxedStream, kind: type[T], limit: int) -> T:
    with trio.fail_after(MESSAGE_SECONDS):
        return await receive(stream, kind, limit)

"""Pushes and rounds on one stream: both sides end with the same, and none costs more than its share."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field

import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st
from trio.testing import MockClock, trio_test

from hived.overlay import exchange
from hived.overlay.exchange import BATCH, MAX_BATCHES, MESSAGE_SECONDS, Batch, Copy, Digest, Open
from hived.overlay.ranges import KEY_HEX, MAX_DEPTH, Compare, Comparison, Ranges, key_of
from hived.overlay.wire import ProtocolError, encode, send
from hived.transport.muxstream import MuxedStream
from tests.unit.overlay.wires import wire


@dataclass(eq=False)
class Side:
    """What one side knows: author to sequence. Its envelopes say just that."""

    known: dict[str, int] = field(default_factory=dict)
    received: int = 0
    sent: int = 0

    def comparison(self) -> Comparison:
        ranges = Ranges()
        for author, sequence in self.known.items():
            ranges.put(author, sequence)
        return Comparison(ranges)

    def find(self, authors: Iterable[str]) -> list[Copy]:
        found = [Copy(f"{a}={self.known[a]}".encode()) for a in authors if a in self.known]
        self.sent += len(found)
        return found

    async def take(self, copies: list[Copy]) -> None:
        for copy in copies:
            self.received += 1
            author, _, sequence = copy.envelope.decode().partition("=")
            self.known[author] = max(self.known.get(author, 0), int(sequence))


def many(count: int, sequence: int = 1) -> dict[str, int]:
    return {f"peer-{number}": sequence for number in range(count)}


async def talk(opener: Side, answerer: Side, version: str) -> None:
    """A whole round between two honest sides."""
    async with wire() as (near, far), trio.open_nursery() as nursery:

        async def answer() -> None:
            if version == "1.1.0":
                await exchange.answer_round(far, answerer.comparison(), answerer.find, answerer.take)
            else:
                await exchange.answer_first(far, answerer.known, answerer.find, answerer.take)
            await far.aclose()

        nursery.start_soon(answer)
        if version == "1.1.0":
            await exchange.open_round(near, opener.comparison(), opener.find, opener.take)
        else:
            await exchange.open_first(near, opener.known, opener.find, opener.take)


contents = st.dictionaries(st.integers(0, 300).map("peer-{}".format), st.integers(1, 3), max_size=200)


@pytest.mark.parametrize("version", ["1.1.0", "1.0.0"])
@settings(max_examples=40, deadline=None)
@given(one=contents, other=contents)
def test_both_sides_end_with_the_newest_of_both(
    version: str, one: dict[str, int], other: dict[str, int]
) -> None:
    newest = {author: max(one.get(author, 0), other.get(author, 0)) for author in one | other}
    differences = sum(one.get(author, 0) != other.get(author, 0) for author in newest)
    opener, answerer = Side(dict(one)), Side(dict(other))
    trio.run(talk, opener, answerer, version)
    assert opener.known == answerer.known == newest
    assert opener.sent + answerer.sent == differences


@pytest.mark.parametrize("count", [0, 1, BATCH, BATCH + 1, 3 * BATCH])
@trio_test
async def test_a_push_is_taken_whole_and_in_batches(count: int) -> None:
    sender, receiver, wanted = Side(many(count)), Side(), list[list[str]]()
    async with wire() as (near, far), trio.open_nursery() as nursery:

        async def answer() -> None:
            wanted.append(await exchange.receive_batches(far, receiver.take))
            await far.aclose()

        nursery.start_soon(answer)
        await exchange.push(near, sender.find(sender.known))
        assert receiver.known == sender.known
    assert wanted == [[]]


# What another side may not do. Each side is served as gossip does, over a whole exchange.


@asynccontextmanager
async def serving(side: Side) -> AsyncIterator[tuple[MuxedStream, list[BaseException]]]:
    """The stream to a side that answers a round, and what it ended with."""
    ended: list[BaseException] = []
    async with wire() as (near, far), trio.open_nursery() as nursery:

        async def answer() -> None:
            try:
                await exchange.answer_round(far, side.comparison(), side.find, side.take)
            except Exception as error:
                ended.append(error)
            finally:
                far.reset()

        nursery.start_soon(answer)
        yield near, ended
        nursery.cancel_scope.cancel()


async def refuse(act: Callable[[MuxedStream], Awaitable[None]], side: Side) -> BaseException | None:
    """Do something to an answering side, and read all that it says; what it ended with."""
    async with serving(side) as (near, ended):
        async with trio.open_nursery() as nursery:

            async def read() -> None:
                try:
                    while await near.receive_some(65536):
                        pass
                except trio.BrokenResourceError:
                    pass

            nursery.start_soon(read)
            with suppress(trio.BrokenResourceError):
                await act(near)
        return ended[0] if ended else None


@trio_test
async def test_lists_that_overlap_are_answered_once() -> None:
    """Whoever says fourteen times that it knows nothing is given each record once."""
    side = Side(many(1000))

    async def act(near: MuxedStream) -> None:
        for _ in range(MAX_DEPTH):
            await send(near, Compare(splits={"": b"x"}, lists={"": {}}))
        await send(near, Compare())
        await send(near, Batch())

    await refuse(act, side)
    assert side.sent <= 1000


@trio_test
async def test_nested_lists_are_answered_once() -> None:
    side = Side(many(1000))
    # Each list is inside one before it.
    nested = sorted({key_of(author)[:length] for author in side.known for length in range(3)}, key=len)

    async def act(near: MuxedStream) -> None:
        await send(near, Compare(splits={"": b"x"}, lists={prefix: {} for prefix in nested}))
        await send(near, Compare())
        await send(near, Batch())

    await refuse(act, side)
    assert side.sent <= 1000


@trio_test
async def test_what_is_wanted_many_times_is_given_once() -> None:
    side = Side(many(100))

    async def act(near: MuxedStream) -> None:
        await send(near, Compare(splits={"": b"x"}))
        await send(near, Compare())
        await send(near, Batch(want=[key_of("peer-7")] * 10_000))

    await refuse(act, side)
    assert side.sent <= 1


@trio_test
async def test_what_is_wanted_many_times_is_given_once_in_the_first_version_too() -> None:
    side = Side({})
    opener = Side({"peer-7": 1})
    async with wire() as (near, far), trio.open_nursery() as nursery:

        async def answer() -> None:
            await send(far, Batch(want=["peer-7"] * 10_000))
            try:
                await exchange.receive_batches(far, side.take)
            finally:
                await far.aclose()

        nursery.start_soon(answer)
        await exchange.open_first(near, opener.known, opener.find, opener.take)
    assert opener.sent == 1


@trio_test
async def test_always_other_fingerprints_end_after_a_few_turns() -> None:
    async def act(near: MuxedStream) -> None:
        for turn in range(1000):
            await send(near, Compare(splits={"": turn.to_bytes(16, "big")}))

    assert isinstance(await refuse(act, Side(many(100))), ProtocolError)


@pytest.mark.parametrize(
    ("batches", "why"),
    [
        ([Batch(records=[b"peer-1=1"] * (BATCH + 1))], "a batch of"),
        ([Batch(records=[b"peer-1=1"], more=True)] * (MAX_BATCHES + 1), "too many batches"),
        ([Batch(records=[b"peer-1=1"], ages=[0.0, 1.0])], "ages"),
        ([Batch(records=[b"peer-1=1"], ages=[-1.0])], "ages"),
        ([Batch(records=[b"peer-1=1"], ages=[float("nan")])], "ages"),
        ([Batch(records=[b"peer-1=1"], ages=[float("inf")])], "ages"),
        ([Batch(want=[f"{number:032x}" for number in range(12_001)])], "more authors"),
    ],
    ids=["too many", "without an end", "more ages", "below nothing", "no number", "for ever", "wants all"],
)
@trio_test
async def test_batches_that_no_honest_node_sends(batches: list[Batch], why: str) -> None:
    side = Side()

    async def act(near: MuxedStream) -> None:
        await send(near, Compare(splits={"": b"x"}))
        await send(near, Compare())
        for batch in batches:
            await send(near, batch)
        await near.send_eof()

    ended = await refuse(act, side)
    assert isinstance(ended, ProtocolError)
    assert why in str(ended)
    assert side.received <= MAX_BATCHES * BATCH


@pytest.mark.parametrize("limit", [1024 * 1024 + 1, 2**31])
@trio_test
async def test_a_message_that_is_too_long_is_not_awaited(limit: int) -> None:
    """Its length alone is enough."""

    async def act(near: MuxedStream) -> None:
        await near.send_all(limit.to_bytes(4, "big"))

    assert isinstance(await refuse(act, Side()), ProtocolError)


@trio_test
async def test_a_side_that_says_nothing_is_let_go(quick_clock: MockClock) -> None:
    async def act(near: MuxedStream) -> None:
        await trio.sleep(MESSAGE_SECONDS + 1)

    assert isinstance(await refuse(act, Side()), trio.TooSlowError)
    assert trio.current_time() < 2 * MESSAGE_SECONDS


@trio_test
async def test_a_byte_a_second_is_let_go(quick_clock: MockClock) -> None:
    async def act(near: MuxedStream) -> None:
        for byte in encode(Compare(splits={"": b"x" * 16})) * 100:
            await near.send_all(bytes([byte]))
            await trio.sleep(1)

    assert isinstance(await refuse(act, Side()), trio.TooSlowError)
    assert trio.current_time() < 2 * MESSAGE_SECONDS


@trio_test
async def test_a_side_that_never_reads_is_let_go(quick_clock: MockClock) -> None:
    """It asks for megabytes and takes none: what waits for it is a window, and not for long."""
    side = Side({f"{number:05}" + "x" * 4000: 1 for number in range(2000)})
    async with serving(side) as (near, ended):
        await send(near, Compare(splits={"": b"x"}, lists={"": {}}))
        await send(near, Compare())
        await send(near, Batch())
        await trio.sleep(MESSAGE_SECONDS * 3)
        assert [type(error) for error in ended] == [trio.TooSlowError]


@trio_test
async def test_an_opener_is_not_held_up_either(quick_clock: MockClock) -> None:
    """By one that answers nothing, to a push and to a round in both versions."""
    side = Side(many(10))
    starts: list[Callable[[MuxedStream], Awaitable[None]]] = [
        lambda near: exchange.push(near, side.find(side.known)),
        lambda near: exchange.open_round(near, side.comparison(), side.find, side.take),
        lambda near: exchange.open_first(near, side.known, side.find, side.take),
    ]
    for start in starts:
        before = trio.current_time()
        async with wire() as (near, _):
            with pytest.raises(trio.TooSlowError):
                await start(near)
        assert trio.current_time() - before < 2 * MESSAGE_SECONDS


@trio_test
async def test_sequences_that_nobody_has_are_asked_for_once(quick_clock: MockClock) -> None:
    """The other side says that it knows newer ones and sends none: the round ends, nothing is believed."""
    opener = Side(many(20))
    comparison = opener.comparison()
    async with wire() as (near, far), trio.open_nursery() as nursery:

        async def lie() -> None:
            await exchange._hear(far, Compare, 2**20)
            await send(far, Compare(lists={"": {key_of(author): 2**52 for author in opener.known}}))
            await exchange._hear(far, Compare, 2**20)
            asked = await exchange._hear(far, Batch, 2**20)
            assert len(asked.want) == 20
            await send(far, Batch())
            await far.aclose()

        nursery.start_soon(lie)
        await exchange.open_round(near, comparison, opener.find, opener.take)
    assert opener.known == many(20)
    assert (len(comparison.want), opener.received) == (20, 0)


@settings(max_examples=150, deadline=None)
@given(
    st.lists(
        st.builds(
            Compare,
            splits=st.dictionaries(
                st.text("0123456789abcdefg", max_size=14), st.binary(max_size=16), max_size=5
            ),
            lists=st.dictionaries(
                st.text("0123456789abcdef", max_size=3),
                st.dictionaries(
                    st.text("0123456789abcdef", min_size=KEY_HEX, max_size=KEY_HEX), st.integers(0, 2**53)
                ),
                max_size=3,
            ),
        ),
        max_size=8,
    )
)
def test_nothing_that_is_said_makes_a_side_want_or_give_more_than_there_is(turns: list[Compare]) -> None:
    side = Side(many(50)).comparison()
    said = {key for turn in turns for listed in turn.lists.values() for key in listed}
    try:
        for turn in turns:
            side.answer(turn)
    except ProtocolError:
        return
    assert len(side.give) <= 50
    assert len(side.want) <= len(said)


@trio_test
async def test_an_open_that_is_none() -> None:
    for junk in (b"\x00\x00\x00\x02\xc1\xc1", b"\x00\x00\x08\x00", encode(Digest(have={"x": 1}))):
        async with wire() as (near, far):
            await near.send_all(junk)
            await near.send_eof()
            with pytest.raises(ProtocolError):
                await exchange.receive_open(far)
    async with wire() as (near, far):
        await send(near, Open(network=b"n" * 32, round=True))
        assert (await exchange.receive_open(far)).round

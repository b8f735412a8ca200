"""Sets compared by ranges: the differences are found, all of them, in few turns and few bytes."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hived.overlay.ranges import KEY_HEX, LEAF, MAX_DEPTH, MAX_SPLITS, Compare, Comparison, Ranges, key_of
from hived.overlay.wire import ProtocolError, encode


def ranges(content: dict[str, int]) -> Ranges:
    made = Ranges()
    for author, sequence in content.items():
        made.put(author, sequence)
    return made


def compared(one: dict[str, int], other: dict[str, int]) -> tuple[Comparison, Comparison, int, int]:
    """A whole comparison: both sides, the turns, and the bytes of all messages."""
    opener, answerer = Comparison(ranges(one)), Comparison(ranges(other))
    turn, sides, size = opener.open(), [answerer, opener], len(encode(opener.open()))
    turns = 1
    while turn.splits or turn.lists:
        turn = sides[0].answer(turn)
        size += len(encode(turn))
        turns += 1
        sides.reverse()
    return opener, answerer, turns, size


def many(count: int) -> dict[str, int]:
    return {f"peer-{number}": number + 1 for number in range(count)}


contents = st.dictionaries(st.integers(0, 400).map("peer-{}".format), st.integers(1, 3), max_size=300)


@settings(max_examples=150, deadline=None)
@given(contents, contents)
def test_every_difference_is_found_by_one_side(one: dict[str, int], other: dict[str, int]) -> None:
    opener, answerer, turns, _ = compared(one, other)
    newer_here = {a for a, s in one.items() if s > other.get(a, 0)}
    newer_there = {a for a, s in other.items() if s > one.get(a, 0)}
    assert {key_of(a) for a in opener.give} | set(answerer.want) == {key_of(a) for a in newer_here}
    assert {key_of(a) for a in answerer.give} | set(opener.want) == {key_of(a) for a in newer_there}
    # No difference is settled twice.
    settled = [*map(key_of, opener.give + answerer.give), *opener.want, *answerer.want]
    assert len(settled) == len(set(settled))
    assert turns <= MAX_DEPTH + 2


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 60), st.integers(0, 3)), max_size=200))
def test_a_fingerprint_depends_on_the_content_only(steps: list[tuple[int, int]]) -> None:
    """However it came to be: put, overwritten, dropped, asked in between."""
    made, content = Ranges(), dict[str, int]()
    for number, sequence in steps:
        author = f"peer-{number}"
        if sequence:
            made.put(author, sequence)
            content[author] = sequence
        else:
            made.drop(author)
            content.pop(author, None)
        made.fingerprint()
    assert made.fingerprint() == ranges(content).fingerprint()
    assert len(made) == len(content) == made.count("")


@pytest.mark.parametrize("count", [10, 1_000, 10_000])
def test_equal_sets_cost_the_same_at_any_size(count: int) -> None:
    _, _, turns, size = compared(many(count), many(count))
    assert turns == 2
    assert size < 100


def test_one_change_among_ten_thousand_is_cheap() -> None:
    content = many(10_000)
    opener, answerer, turns, size = compared(content, content | {"peer-77": 9_999})
    assert (opener.want, answerer.give) == ([key_of("peer-77")], []) or answerer.give == ["peer-77"]
    assert turns <= 6
    assert size < 4_000


def test_a_newcomer_finds_all() -> None:
    content = many(10_000)
    _, answerer, turns, _ = compared({}, content)
    assert turns <= 4
    assert len(answerer.give) == 10_000
    opener, _, turns, _ = compared(content, {})
    assert turns <= 4
    assert len(opener.give) == 10_000


def test_small_and_large_fingerprints_differ() -> None:
    """A list and a split never hash the same bytes."""
    assert ranges(many(LEAF)).fingerprint() != ranges(many(LEAF + 1)).fingerprint()
    assert Ranges().fingerprint() != ranges({"a": 1}).fingerprint()


@pytest.mark.parametrize(
    "bad",
    [
        Compare(splits={"xyz": b""}),
        Compare(splits={"a" * (MAX_DEPTH + 1): b""}),
        Compare(splits={f"{number:06x}": b"" for number in range(MAX_SPLITS + 1)}),
        Compare(lists={"G": {}}),
        Compare(lists={"a": {"b" * KEY_HEX: 1}}),
        Compare(lists={"": {"b" * (KEY_HEX - 1): 1}}),
        Compare(lists={"": {"b" * KEY_HEX: 0}}),
        Compare(lists={"": {"b" * KEY_HEX: 2**53}}),
        Compare(lists={"": {f"{number:032x}": 1 for number in range(12_001)}}),
    ],
)
def test_what_no_honest_node_sends(bad: Compare) -> None:
    with pytest.raises(ProtocolError):
        Comparison(ranges(many(100))).answer(bad)


def test_a_comparison_ends() -> None:
    """A side that answers every turn with other fingerprints is cut off."""
    side = Comparison(ranges(many(5_000)))
    rng = random.Random(1)
    with pytest.raises(ProtocolError, match=r"without an end|twice"):
        for _ in range(100):
            side.answer(Compare(splits={rng.choice("0123456789abcdef"): rng.randbytes(16)}))


def test_an_answer_is_bounded() -> None:
    content = many(10_000)
    side = Comparison(ranges(content))
    answer = side.answer(Compare(splits={f"{number:03x}": b"" for number in range(4096)}))
    assert len(answer.splits) <= MAX_SPLITS
    assert sum(map(len, answer.lists.values())) <= 10_000

"""The byte queue: what goes in comes out, and small pieces cost no objects."""

from __future__ import annotations

import random

from hypothesis import given
from hypothesis import strategies as st

from hived.transport.bytequeue import ByteQueue

ACTIONS = st.tuples(
    st.sampled_from(["append", "push_front", "pop", "pop_into", "first and drop"]), st.integers(0, 5000)
)


@given(st.lists(ACTIONS))
def test_what_goes_in_comes_out(steps: list[tuple[str, int]]) -> None:
    queue, model, noise = ByteQueue(), b"", random.Random(1)
    for action, size in steps:
        if action == "append":
            data = noise.randbytes(size)
            queue.append(data)
            model += data
        elif action == "push_front":
            data = noise.randbytes(size)
            queue.push_front(data)
            model = data + model
        elif action == "pop" and size:
            data = queue.pop(size)
            assert len(data) <= size
            assert bool(data) == bool(model)
            assert type(data) is bytes
            assert model.startswith(data)
            model = model[len(data) :]
        elif action == "pop_into":
            space = bytearray(size)
            filled = queue.pop_into(memoryview(space))
            assert filled == min(size, len(model)), "all of it, over chunks"
            assert bytes(space) == model[:filled] + bytes(size - filled)
            model = model[filled:]
        elif action == "first and drop":
            with queue.first() as view:
                assert bool(view) == bool(model)
                assert model.startswith(bytes(view))
                part = min(size, len(view))
            queue.drop(part)
            model = model[part:]
        assert len(queue) == len(model)
    space = bytearray(len(model))
    queue.pop_into(memoryview(space))
    assert bytes(space) == model


def test_what_was_taken_too_early_comes_first_again() -> None:
    queue = ByteQueue()
    queue.append(b"abcdef")
    taken = queue.pop(4)
    queue.append(b"ghi")
    queue.push_front(taken)
    queue.push_front(b"")
    assert b"".join(queue.pop(99) for _ in range(3)) == b"abcdefghi"


def test_dropping_part_of_what_is_still_being_gathered() -> None:
    """The rest of a chunk is a view of it; what comes next must not need it to grow."""
    queue = ByteQueue()
    queue.append(b"abc")
    queue.drop(1)
    queue.append(b"def")
    with queue.first() as view:
        assert bytes(view) == b"bc"
    space = bytearray(9)
    assert queue.pop_into(memoryview(space)) == 5
    assert space[:5] == b"bcdef"


def test_an_empty_queue_keeps_nothing() -> None:
    queue = ByteQueue()
    assert queue.pop_into(memoryview(bytearray(9))) == 0
    assert len(queue.first()) == 0
    queue.drop(0)
    queue.append(b"")
    assert queue._chunks is None
    queue.append(b"a")
    queue.drop(1)
    assert queue._chunks is None


def test_single_bytes_are_gathered() -> None:
    queue = ByteQueue()
    for _ in range(10_000):
        queue.append(b"x")
    assert len(queue._chunks or ()) == 1
    assert queue.pop(65536) == b"x" * 10_000
    assert queue.pop(65536) == b""


def test_a_large_piece_is_not_copied() -> None:
    queue, data = ByteQueue(), bytes(65507)
    queue.append(data)
    assert queue.pop(65536) is data


def test_cutting_the_head_leaves_room_to_append() -> None:
    queue = ByteQueue()
    queue.append(b"abc")
    assert queue.pop(1) == b"a"
    queue.append(b"def")
    assert queue.pop(9) + queue.pop(9) == b"bcdef"


def test_clear() -> None:
    queue = ByteQueue()
    queue.append(b"abc")
    queue.clear()
    assert len(queue) == 0
    assert queue.pop(1) == b""

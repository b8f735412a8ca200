"""The byte queue: what goes in comes out, and small pieces cost no objects."""

from __future__ import annotations

import random

from hypothesis import given
from hypothesis import strategies as st

from hived.transport.bytequeue import ByteQueue


@given(st.lists(st.one_of(st.integers(0, 5000), st.tuples(st.integers(1, 5000)))))
def test_what_goes_in_comes_out(steps: list[int | tuple[int]]) -> None:
    queue, model, noise = ByteQueue(), b"", random.Random(1)
    for step in steps:
        if isinstance(step, int):
            data = noise.randbytes(step)
            queue.append(data)
            model += data
        else:
            data = queue.pop(step[0])
            assert len(data) <= step[0]
            assert bool(data) == bool(model)
            assert type(data) is bytes
            assert model.startswith(data)
            model = model[len(data) :]
        assert len(queue) == len(model)


def test_single_bytes_are_gathered() -> None:
    queue = ByteQueue()
    for _ in range(10_000):
        queue.append(b"x")
    assert len(queue._chunks) == 1
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

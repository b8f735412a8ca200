"""The fuzz targets over their kept corpora, without atheris: no failure, no hang, bounded memory."""

from __future__ import annotations

import gc
import hashlib
import logging
import tracemalloc
from collections.abc import Iterator
from contextlib import suppress

import pytest
import trio

from hived.overlay.ranges import Compare, Comparison, Ranges
from hived.overlay.wire import ProtocolError
from tests.fuzz.minimise import MOST
from tests.fuzz.target import HangError, Script, Target, alarm, at_once
from tests.fuzz.targets import TARGETS

PEAK_MIB = 24
GROWTH_MIB = 4

each = pytest.mark.parametrize("target", TARGETS.values(), ids=TARGETS)


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    """Refusals by the hundred are no news; what has a traceback still reaches the targets."""
    log = logging.getLogger("hived")
    before, propagated = log.level, log.propagate
    log.setLevel(logging.ERROR)
    yield
    log.setLevel(before)
    log.propagate = propagated


@each
def test_corpus(target: Target) -> None:
    """Every kept input, and those to begin with, hold what the target promises, each in its time."""
    files = target.corpus()
    assert 5 <= len(files) <= MOST
    kept = [path.read_bytes() for path in files]
    assert [path.name for path in files] == [hashlib.sha256(data).hexdigest()[:16] for data in kept]
    for data in (*kept, *target.seeds()):
        assert len(data) <= target.most_bytes
        try:
            with alarm():
                target.run(data)
        except BaseException as error:
            error.add_note(f"input: {data!r}")
            raise


@each
def test_memory(target: Target) -> None:
    """No input takes much memory, and all of them once more leave nothing behind."""
    inputs = [path.read_bytes() for path in target.corpus()]
    for data in inputs:
        target.run(data)
    tracemalloc.start()
    try:
        for data in inputs:
            tracemalloc.reset_peak()
            before = tracemalloc.get_traced_memory()[0]
            target.run(data)
            assert tracemalloc.get_traced_memory()[1] - before < PEAK_MIB << 20, data
        gc.collect()
        assert tracemalloc.get_traced_memory()[0] < GROWTH_MIB << 20
    finally:
        tracemalloc.stop()


@each
def test_empty_and_short(target: Target) -> None:
    """Where an input ends does not matter to the target itself."""
    longest = max(target.seeds(), key=len)
    for length in (0, 1, 2, 3, len(longest) // 2):
        with alarm():
            target.run(longest[:length])


def test_a_range_listed_again_gives_nothing_twice() -> None:
    """Found by `make fuzz`: a member listed one empty range in every turn, and again within a wider one."""
    ranges = Ranges()
    for number in range(100):
        ranges.put(f"author-{number}", 1)
    side = Comparison(ranges)
    with suppress(ProtocolError):
        for _ in range(3):
            side.answer(Compare(lists={"": {}, "0": {}}))
    assert len(side.give) == 100


def test_alarm_ends_a_hang() -> None:
    with pytest.raises(HangError), alarm(0.05):
        while True:
            pass


def test_script_reads_zeros_behind_its_end() -> None:
    script = Script(b"\x01\x00\x02ab")
    assert (script.byte(), script.piece(), bool(script)) == (1, b"ab", False)
    assert (script.byte(), script.number(), script.piece(), script.rest()) == (0, 0, b"", b"")


def test_at_once_refuses_to_wait() -> None:
    with pytest.raises(AssertionError, match="it waits"):
        at_once(trio.lowlevel.cancel_shielded_checkpoint())  # noqa: ASYNC105 - stepped by hand

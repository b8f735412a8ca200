"""What a proxy counts, and who is told of it."""

from __future__ import annotations

import time

import trio

from hived.proxy.counters import Counters
from tests.unit.transport.pairs import (
    plane,
    settle,
    trio_test,
)


@trio_test
async def test_counters_say_when_all_have_ended() -> None:
    async with plane() as running:
        counters = Counters(running)
        await counters.idle()
        running.call(counters.begin)
        running.call(counters.begin)
        await settle()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(counters.idle)
            await settle()
            running.call(counters.end)
            await trio.sleep(0.2)
            await settle()
            assert len(nursery.child_tasks) == 1
            running.call(counters.end)
        assert (counters.connections, counters.total) == (0, 2)


@trio_test
async def test_trouble_says_what_and_when() -> None:
    async with plane() as running:
        counters = Counters(running)
        assert counters.trouble is None
        before = time.time()
        counters.failed("it broke")
        trouble = counters.trouble
        assert trouble is not None
        assert (trouble.why, before <= trouble.at <= time.time()) == ("it broke", True)
        counters.failed("it broke")
        assert counters.trouble is not None
        assert counters.trouble.at >= trouble.at
        # Full is what holds now, and says since when, however often more come.
        counters.filled(8)
        counters.filled(8)
        full = counters.trouble
        assert "8 connections" in full.why
        assert full.at >= trouble.at
        counters.filled(8)
        assert counters.trouble == full
        counters.full_at = 0
        assert counters.trouble.why == "it broke"
        counters.last_error = None
        assert counters.trouble is None


@trio_test
async def test_who_watches_is_told_of_the_last_change_but_not_of_each() -> None:
    async with plane() as running:
        told: list[int] = []
        last = trio.Event()

        def changed() -> None:
            told.append(counters.total)
            if counters.total == 1000 and not counters.connections:
                last.set()

        counters = Counters(running, on_change=changed)
        for _ in range(1000):
            running.call(counters.begin)
            running.call(counters.end)
        await last.wait()
        assert len(told) < 100

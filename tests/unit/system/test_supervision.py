"""The status line and the watchdog's pings."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import pytest
import trio
from trio.testing import trio_test

from hived import logs
from hived.system.notify import Notifier
from hived.system.supervision import ping_watchdog, tell_status
from tests.unit.system.manager import service_manager


class _Lookout(io.StringIO):
    """A log that calls somebody when a word is in it."""

    def __init__(self, word: str, seen: Callable[[], None]) -> None:
        super().__init__()
        self._word = word
        self._seen = seen

    def write(self, text: str) -> int:
        written = super().write(text)
        if self._word in self.getvalue():
            self._seen()
        return written


@trio_test
async def test_pings_come_while_every_part_answers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with service_manager(tmp_path, monkeypatch, watchdog=0.3) as manager:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(ping_watchdog, Notifier(), {"loop": trio.lowlevel.checkpoint})
            for _ in range(3):
                said = await trio.to_thread.run_sync(manager.hears)
                assert said == ("WATCHDOG=1", [])
            nursery.cancel_scope.cancel()


@trio_test
async def test_a_part_that_hangs_ends_the_pings_and_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    named = trio.Event()
    logs.setup("info", "text", _Lookout("part=store", named.set))
    hanging = trio.Event()
    asked = trio.Event()

    async def part() -> None:
        asked.set()
        await hanging.wait()

    with service_manager(tmp_path, monkeypatch, watchdog=0.3) as manager:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(ping_watchdog, Notifier(), {"store": part})
            await asked.wait()
            with trio.fail_after(10):
                await named.wait()
            assert manager.heard_nothing()
            # It was only slow.
            hanging.set()
            assert (await trio.to_thread.run_sync(manager.hears))[0] == "WATCHDOG=1"
            nursery.cancel_scope.cancel()


@trio_test
async def test_the_status_line_follows_changes_and_is_not_repeated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    line = "peers: 0"
    changes, changed = trio.open_memory_channel[None](1)
    with service_manager(tmp_path, monkeypatch) as manager:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(tell_status, Notifier(), lambda: line, changed.receive)
            assert (await trio.to_thread.run_sync(manager.hears))[0] == "STATUS=peers: 0"
            await changes.send(None)
            # A change that changes no word of it says nothing.
            await changes.send(None)
            line = "peers: 1"
            await changes.send(None)
            assert (await trio.to_thread.run_sync(manager.hears))[0] == "STATUS=peers: 1"
            nursery.cancel_scope.cancel()


@trio_test
async def test_without_a_manager_there_is_nothing_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    with trio.fail_after(5):
        await ping_watchdog(Notifier(), {})
        await tell_status(Notifier(), lambda: "", trio.sleep_forever)

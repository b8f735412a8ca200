"""Address changes are an event: one for a burst, none for none. In a network namespace of its own."""

from __future__ import annotations

import subprocess
import sys

import pytest

WATCH = """
import subprocess, sys, trio
from hived.system import netlink

def ip(*words):
    subprocess.run(["ip", *words], check=True)

async def main():
    calls, fired = [], trio.Event()

    async def changed():
        nonlocal fired
        calls.append(trio.current_time())
        fired.set()
        fired = trio.Event()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(netlink.watch_addresses, changed)
        await trio.testing.wait_all_tasks_blocked()
        for step in (
            lambda: ip("link", "set", "lo", "up"),
            lambda: [ip("addr", "add", f"10.1.1.{n}/32", "dev", "lo") for n in range(1, 6)],
            lambda: ip("addr", "del", "10.1.1.1/32", "dev", "lo"),
        ):
            waiter = fired
            step()
            with trio.fail_after(10):
                await waiter.wait()
        # Nothing changes: nothing is told.
        with trio.move_on_after(1):
            await fired.wait()
        print(len(calls))
        nursery.cancel_scope.cancel()

import trio.testing
trio.run(main)
"""


@pytest.mark.requires("netns")
def test_changes_fire_once_a_burst() -> None:
    done = subprocess.run(
        ["unshare", "--net", sys.executable, "-c", WATCH],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.stdout.strip(), done.stderr) == ("3", "")

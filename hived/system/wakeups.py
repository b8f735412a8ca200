"""Notices that this machine, or this process, was asleep: an alarm that rings long after it was due.

CLOCK_BOOTTIME counts while the machine sleeps, CLOCK_MONOTONIC does not (clock_gettime(2)); for a process
that was stopped both go on.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable

import trio

from ..logs import Log

log = Log("hived.system.wakeups")

STEP_SECONDS = 5.0
# Later than this is no busy machine any more.
LATE_SECONDS = 10.0


async def watch_sleep(woken: Callable[[], Awaitable[None]]) -> None:
    """Call ``woken`` after the machine has slept, or the process was stopped, for a while.

    Until cancelled.
    """
    while True:
        began = time.clock_gettime(time.CLOCK_BOOTTIME)
        await trio.sleep(STEP_SECONDS)
        late = time.clock_gettime(time.CLOCK_BOOTTIME) - began - STEP_SECONDS
        if late > LATE_SECONDS:
            log.info("awake again", asleep=f"{late:.0f} s")
            await woken()

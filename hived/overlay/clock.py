"""The two clocks of a node, handed in so that days can pass in a test or a simulation."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass


def _boottime() -> float:
    return time.clock_gettime(time.CLOCK_BOOTTIME)


@dataclass(frozen=True)
class Clock:
    """``monotonic`` for every duration; ``wall`` (epoch seconds) may jump, and be wrong by years.

    ``boottime`` is as steady as ``monotonic``, but goes on while the machine sleeps.
    """

    monotonic: Callable[[], float] = time.monotonic
    wall: Callable[[], float] = time.time
    boottime: Callable[[], float] = _boottime

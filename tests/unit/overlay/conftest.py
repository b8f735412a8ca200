"""Fixtures of the overlay's tests."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest
from trio.testing import MockClock

from tests.unit.overlay.parties import Logged


@pytest.fixture
def logged() -> Iterator[Logged]:
    """What hived logs; a defect (a traceback) fails the test."""
    handler, log = Logged(), logging.getLogger("hived")
    before = log.level
    log.addHandler(handler)
    log.setLevel(logging.DEBUG)
    yield handler
    log.removeHandler(handler)
    log.setLevel(before)
    assert handler.defects == []


@pytest.fixture
def autojump_clock() -> MockClock:
    """Time that passes at once while everybody waits: for tests without threads and sockets."""
    return MockClock(autojump_threshold=0)


@pytest.fixture
def quick_clock() -> MockClock:
    """A second takes 50 ms: for waits of many seconds beside the data plane's thread."""
    return MockClock(rate=20)

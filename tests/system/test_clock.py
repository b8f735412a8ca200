"""A machine whose clock is set, by years, while hived runs."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.system.hive import drop_in, join, peer_id, shown, started
from tests.system.machine import Machine
from tests.system.rack import Rack

pytestmark = [pytest.mark.requires("machines"), pytest.mark.full]
CLOCK = "/etc/hive/clock"
WATCHDOG_SECONDS = 6


@pytest.fixture(scope="module")
def machine(rack: Rack, layers: Sequence[Path]) -> Machine:
    """hived's clock is a file's; the machine's own cannot be set, for it is the one of all machines here."""
    made = started(rack, "home", layers)
    join(made)
    library = made.run("ls /usr/lib/*/faketime/libfaketimeMT.so.1").out.strip()
    made.put(CLOCK, "+0d\n")
    drop_in(
        made,
        "Service",
        f"Environment=LD_PRELOAD={library} FAKETIME_TIMESTAMP_FILE={CLOCK}",
        # It looks at the file once a second. It could at each question for the time, but that takes hived
        # longer than all else, and a watchdog might take it for one that hangs.
        "Environment=FAKETIME_CACHE_DURATION=1 FAKETIME_DONT_FAKE_MONOTONIC=1",
        f"WatchdogSec={WATCHDOG_SECONDS}s",
    )
    # Of each ping there is a line then.
    made.run("systemd-analyze log-level debug; systemctl restart hived")
    return made


def year(machine: Machine) -> int:
    """By hived's clock: that of this node's own record, which it has just signed."""
    machine.run(f"hivectl rename home-{time.monotonic_ns()}")
    (row,) = [row for row in shown(machine, "nodes") if row["path"] == "self"]
    return int(row["latest_contact"][:4])


def set_clock(machine: Machine, years: int) -> None:
    """Have hived's clock go wrong by so much, as it is when this returns."""
    machine.put(CLOCK, f"{round(years * 365.25):+d}d\n")
    deadline = time.monotonic() + 30
    while abs(year(machine) - int(machine.run("date +%Y").out) - years) > 1:
        assert time.monotonic() < deadline, "hived's clock does not change: this test shows nothing"


def test_the_clock_jumps(machine: Machine) -> None:
    identity, (pid, restarts) = peer_id(machine), machine.show("hived", "MainPID", "NRestarts")
    for years in (10, -10, 0):
        set_clock(machine, years)
        assert 0 <= shown(machine)["uptime"] < 600
        # The watchdog's pings come as they should, by the clock that is now.
        for _ in range(4):
            machine.await_line("hived", "(WATCHDOG=1", WATCHDOG_SECONDS * 4, machine.cursor())
        assert machine.show("hived", "MainPID", "NRestarts") == [pid, restarts]
    assert peer_id(machine) == identity


@pytest.mark.parametrize("years", [10, -10])
def test_a_start_with_a_wrong_clock(machine: Machine, years: int) -> None:
    """As on a board without a battery, before the time came from the network."""
    identity = peer_id(machine)
    set_clock(machine, years)
    machine.run("systemctl restart hived")
    assert peer_id(machine) == identity
    assert abs(year(machine) - int(machine.run("date +%Y").out) - years) <= 1
    set_clock(machine, 0)
    assert "active (running)" in machine.run("hivectl status").out
    machine.run("systemctl restart hived")
    assert peer_id(machine) == identity

"""A machine whose clock is set, by years, while hived runs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.system.hive import drop_in, join, peer_id, shown, started
from tests.system.machine import Machine
from tests.system.rack import Rack

pytestmark = [pytest.mark.requires("machines"), pytest.mark.full]
CLOCK = "/etc/hive/clock"
WATCHDOG_SECONDS = 4
YEARS = 3653


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
        f"Environment=LD_PRELOAD={library} FAKETIME_TIMESTAMP_FILE={CLOCK} FAKETIME_NO_CACHE=1",
        "Environment=FAKETIME_DONT_FAKE_MONOTONIC=1",
        f"WatchdogSec={WATCHDOG_SECONDS}s",
    )
    made.run("systemctl restart hived")
    return made


def year(machine: Machine) -> int:
    """By hived's clock: that of this node's own record, which it has just signed."""
    machine.run(f"hivectl rename home-{machine.run('date +%N').out.strip()}")
    (row,) = [row for row in shown(machine, "nodes") if row["path"] == "self"]
    return int(row["latest_contact"][:4])


def test_the_clock_jumps(machine: Machine) -> None:
    identity, now, (pid,) = peer_id(machine), year(machine), machine.show("hived", "MainPID")
    for days, years in ((YEARS, 10), (-YEARS, -10), (0, 0)):
        machine.put(CLOCK, f"{days:+d}d\n")
        # Else this test shows nothing.
        assert abs(year(machine) - now - years) <= 1
        assert 0 <= shown(machine)["uptime"] < 600
        # Two times the watchdog's patience, with the clock as it is now.
        machine.run(f"sleep {2 * WATCHDOG_SECONDS}")
        assert machine.show("hived", "MainPID", "NRestarts") == [pid, "0"]
        assert machine.run("hivectl status").code == 0
    assert peer_id(machine) == identity


@pytest.mark.parametrize("days", [YEARS, -YEARS])
def test_a_start_with_a_wrong_clock(machine: Machine, days: int) -> None:
    """As on a board without a battery, before the time came from the network."""
    identity = peer_id(machine)
    machine.put(CLOCK, f"{days:+d}d\n")
    machine.run("systemctl restart hived")
    assert peer_id(machine) == identity
    machine.put(CLOCK, "+0d\n")
    assert "active (running)" in machine.run("hivectl status").out
    machine.run("systemctl restart hived")
    assert peer_id(machine) == identity

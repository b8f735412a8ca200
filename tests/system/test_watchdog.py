"""A hived that hangs, in whichever part, is ended by systemd and started anew."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.system.hive import drop_in, peer_id, shown, started
from tests.system.machine import Machine
from tests.system.rack import Rack
from tests.system.threads import hung, threads

pytestmark = pytest.mark.requires("machines")
WATCHDOG_SECONDS = 4
# What systemd's own timers and a start may take on a busy machine; a hang for ever is what is to be seen.
LATE_SECONDS = 60


@pytest.fixture(scope="module")
def machine(rack: Rack, layers: Sequence[Path]) -> Machine:
    made = started(rack, "home", layers)
    drop_in(made, "Service", f"WatchdogSec={WATCHDOG_SECONDS}s")
    made.run("systemctl restart hived")
    return made


@pytest.mark.parametrize(
    ("thread", "part"), [("", ""), ("hive-plane", "data plane"), ("hive-store", "store")]
)
def test_a_part_that_hangs(machine: Machine, thread: str, part: str) -> None:
    before, (pid, restarts) = peer_id(machine), machine.show("hived", "MainPID", "NRestarts")
    outside, after = machine.host_pid(int(pid)), machine.cursor()
    with hung(threads(outside)[thread]):
        machine.await_line("hived", f"Watchdog timeout (limit {WATCHDOG_SECONDS}s)", LATE_SECONDS, after)
        machine.await_line("hived", "Started hived.service", LATE_SECONDS, after)
    said = machine.run(f"journalctl -q -u hived -o cat --after-cursor='{after}'").out
    assert "status=6/ABRT" in said
    if part:
        assert f'a part of hived does not answer part="{part}"' in said or f"part={part}" in said
    # Where each thread was is in the journal, for whoever has to mend it.
    assert "Fatal Python error: Aborted" in said
    assert machine.show("hived", "NRestarts") == [str(int(restarts) + 1)]
    assert peer_id(machine) == before
    assert shown(machine)["service"]["unit"]["restarts"] == int(restarts) + 1
    assert f"restarted {int(restarts) + 1} time" in machine.run("hivectl status").out


def test_a_hived_that_does_not_hang_is_left_alone(machine: Machine) -> None:
    """Though three times the watchdog's time passes with much to do."""
    pid, restarts = machine.show("hived", "MainPID", "NRestarts")
    machine.run(
        f"end=$((SECONDS + {3 * WATCHDOG_SECONDS})); while ((SECONDS < end)); do hivectl status; done"
    )
    assert machine.show("hived", "MainPID", "NRestarts") == [pid, restarts]

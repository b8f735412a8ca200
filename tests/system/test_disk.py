"""A disk that is full, or cannot be written to any more."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.system.hive import NETWORK, STRANGER, booted, join, peer_id, shown
from tests.system.machine import Machine
from tests.system.rack import Rack

pytestmark = [pytest.mark.requires("machines"), pytest.mark.full]
STATE = "/var/lib/hive"
# So many proxies one after the other need more room than the database has taken before.
ADD = f"for port in $(seq 9001 9200); do hivectl proxy add egress $port {STRANGER}:1 >/dev/null || exit; done"


@pytest.fixture(scope="module")
def machine(rack: Rack, layers: Sequence[Path]) -> Machine:
    """The state is on a small disk of its own, in memory."""
    mount = f"mount -t tmpfs -o size=4m,mode=0700,uid=hive,gid=hive small {STATE}"
    made = booted(rack, "home", layers, mount, "systemctl enable --now hived")
    join(made)
    return made


def fill(machine: Machine) -> None:
    """Again where hived, whose own write has failed meanwhile, gave back some room."""
    full = f'[ "$(df --output=avail {STATE} | tail -1)" -eq 0 ]'
    machine.run(f"until {full}; do head -c 100M /dev/zero >>{STATE}/ballast || true; done")


def ports(machine: Machine) -> list[int]:
    return sorted(row["port"] for row in shown(machine, "proxy"))


def works(machine: Machine, port: int) -> None:
    before = ports(machine)
    machine.run(f"hivectl proxy add egress {port} {STRANGER}:1")
    assert ports(machine) == sorted([*before, port])
    assert [row["name"] for row in shown(machine)["networks"]] == [NETWORK]


def test_a_full_disk(machine: Machine) -> None:
    (pid,) = machine.show("hived", "MainPID")
    fill(machine)
    try:
        failed = machine.run(ADD, check=False, seconds=120)
        # One line says why. What could not be kept does not run either, and what only reads works.
        assert (failed.code, failed.out) == (1, "")
        said = failed.err.splitlines()[-1]
        assert re.fullmatch(r"hivectl: using .* failed: the disk is full. Make room: .*", said)
        kept = ports(machine)
        assert kept == list(range(9001, 9001 + len(kept)))
        assert f":{9001 + len(kept)} " not in machine.run("ss -Hlnt").out
    finally:
        machine.run(f"rm {STATE}/ballast")
    # It goes on by itself: nobody has to restart it.
    works(machine, 9300)
    assert machine.show("hived", "MainPID", "NRestarts") == [pid, "0"]


@pytest.mark.parametrize("what", ["full", "read-only"])
def test_a_start_on_such_a_disk_is_tried_until_it_works(machine: Machine, what: str) -> None:
    """Read-only: as the kernel makes it after an error of the disk."""
    identity = peer_id(machine)
    machine.run("systemctl stop hived")
    if what == "full":
        fill(machine)
    else:
        machine.run(f"mount -o remount,ro {STATE}")
    after = machine.cursor()
    try:
        assert machine.run("systemctl start hived", check=False).code == 1
        # One line, of the priority of errors, which names the disk.
        reason = machine.await_line("hived", "hived: using ", 60, after)
        assert re.search("the disk is full" if what == "full" else "[Rr]ead-only", reason), reason
        assert "Traceback" not in machine.run(f"journalctl -u hived --after-cursor='{after}'").out
    finally:
        machine.run(f"rm {STATE}/ballast" if what == "full" else f"mount -o remount,rw {STATE}")
    machine.await_line("hived", "Started hived.service", 60, after)
    assert peer_id(machine) == identity
    works(machine, 9301 if what == "full" else 9302)

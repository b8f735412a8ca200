"""A node whose machine reboots, or loses its power: nothing is typed, and all is as it was."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.system.hive import NETWORK, STRANGER, join, peer_id, shown, started
from tests.system.machine import Machine
from tests.system.rack import Rack

pytestmark = pytest.mark.requires("machines")


@pytest.fixture(scope="module")
def machine(rack: Rack, layers: Sequence[Path]) -> Machine:
    made = started(rack, "home", layers)
    join(made)
    return made


def proxies(machine: Machine) -> list[tuple[str, int, str, str]]:
    rows = shown(machine, "proxy")
    return [(row["direction"], row["port"], row["peer_id"], row["state"]) for row in rows]


@pytest.mark.parametrize("event", ["reboot", "power cut"])
def test_the_node_comes_back_by_itself(machine: Machine, event: str) -> None:
    before, port = peer_id(machine), 8084 if event == "reboot" else 8085
    machine.run(f"hivectl proxy add egress {port} {STRANGER}:1984")
    # Of what a command has reported as done, nothing is lost.
    if event == "reboot":
        machine.reboot()
    else:
        machine.power_cut()
        machine.boot()
    assert machine.run("systemctl is-system-running", check=False).out == "running\n"
    assert machine.run("systemctl is-active hived").out == "active\n"
    assert peer_id(machine) == before
    assert [row["name"] for row in shown(machine)["networks"]] == [NETWORK]
    assert ("egress", port, STRANGER, "listening") in proxies(machine)
    assert f":{port} " in machine.run("ss -Hlnt").out

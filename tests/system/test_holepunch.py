"""Two machines behind NATs, with the package as it is installed, punch a hole to each other."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.netns.host import Host
from tests.netns.lab import Lab
from tests.system.hive import NETWORK, PASSWORD, join, peer_id, shown
from tests.system.machine import Machine

pytestmark = pytest.mark.requires("machines")
PUNCHED_SECONDS = 60.0


def _on(host: Host, directory: Path, layers: Sequence[Path]) -> Machine:
    """A machine in the place of a host of the lab, booted, with hived enabled and in the network."""
    machine = Machine(directory, host.name, host.namespace, layers, host.address)
    machine.boot()
    machine.run("systemctl enable --now hived")
    join(machine)
    return machine


def _await_path(machine: Machine, other: str, path: str) -> None:
    """Wait until `hivectl nodes` says that the other one is reached so."""
    deadline = time.monotonic() + PUNCHED_SECONDS
    while True:
        rows = [row for row in shown(machine, "nodes") if row["peer_id"] == other]
        if rows and rows[0]["path"] == path:
            return
        assert time.monotonic() < deadline, machine.run("hivectl nodes").out
        time.sleep(0.2)


def test_the_packaged_unit_punches_holes(tmp_path: Path, layers: Sequence[Path]) -> None:
    """With all that the unit takes from hived; and again after a restart, on listeners that systemd kept."""
    with Lab(tmp_path) as lab:
        publics = lab.nodes(lab.public("pub1"), lab.public("pub2"))
        for node in publics:
            node.create(NETWORK, PASSWORD)
        publics[1].register(publics[0])
        machines: list[Machine] = []
        try:
            machines = [_on(lab.lan(name).host(f"{name}-host"), tmp_path, layers) for name in ("one", "two")]
            for machine in machines:
                for node in publics:
                    machine.run(f"hivectl register {node.identity}")
            one, two = machines
            _await_path(one, peer_id(two), "direct")
            _await_path(two, peer_id(one), "direct")
            two.run("python3 -m http.server 8000 --bind 127.0.0.1 >/dev/null 2>&1 & sleep 0")
            two.run(f"hivectl proxy add ingress {peer_id(one)}:8084 8000")
            one.run(f"hivectl proxy add egress 8084 {peer_id(two)}:8000")
            one.run("curl --silent --fail --max-time 30 --output /dev/null http://127.0.0.1:8084/")
            two.run("systemctl restart hived")
            _await_path(one, peer_id(two), "direct")
            one.run("curl --silent --fail --max-time 30 --output /dev/null http://127.0.0.1:8084/")
        finally:
            for machine in machines:
                machine.close()

"""Hive on machines, for tests that begin where it runs already."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tests.system.machine import Machine
from tests.system.rack import Rack

NETWORK, PASSWORD = "red", "correct-horse-battery-staple"
# A node that exists nowhere.
STRANGER = "12D3KooWQbkCECFiDmGfZCYWRr93DHvX2yprxRDJkinJMi7oEYm3"


def booted(rack: Rack, name: str, layers: Sequence[Path], *lines: str) -> Machine:
    """A machine that has booted, and on which root has typed these lines."""
    machine = rack.machine(name, *layers)
    machine.boot()
    for line in lines:
        machine.run(line)
    return machine


def started(rack: Rack, name: str, layers: Sequence[Path]) -> Machine:
    """A machine that has booted, on which hived is enabled and runs."""
    return booted(rack, name, layers, "systemctl enable --now hived")


def join(machine: Machine) -> None:
    """Have the node in the network that all tests use."""
    machine.run(f"hivectl networks create {NETWORK} --password-stdin", stdin=PASSWORD + "\n")


def shown(machine: Machine, *what: str) -> Any:
    """What hivectl shows, as the document that scripts get: of ``status`` unless told."""
    return machine.run(f"hivectl {' '.join(what or ('status',))} --json").json()


def peer_id(machine: Machine) -> str:
    return str(shown(machine, "id")["peer_id"])


def drop_in(machine: Machine, section: str, *lines: str, unit: str = "hived.service") -> None:
    """As `systemctl edit` does it."""
    machine.put(f"/etc/systemd/system/{unit}.d/override.conf", "\n".join([f"[{section}]", *lines, ""]))
    machine.run("systemctl daemon-reload")

"""A node of an ordinary user's own, under that user's systemd."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.system.hive import NETWORK, PASSWORD, booted, peer_id
from tests.system.machine import Machine
from tests.system.rack import Rack

pytestmark = [pytest.mark.requires("machines"), pytest.mark.full]
USER = "ann"


@pytest.fixture(scope="module")
def machine(rack: Rack, layers: Sequence[Path]) -> Machine:
    user = f"useradd --create-home --shell /bin/bash {USER} && loginctl enable-linger {USER}"
    made = booted(rack, "shared", layers, user)
    made.run("systemctl --user enable --now hived", USER)
    return made


def test_its_owner_is_its_admin(machine: Machine) -> None:
    shown = machine.run("hivectl status", USER).out
    assert "hived.service: active (running), enabled" in shown
    assert f"user {USER}" in shown
    assert re.search(r"^socket +/run/user/1000/hive/control.sock$", shown, re.MULTILINE)
    assert re.search(rf"^data +/home/{USER}/.local/state/hive$", shown, re.MULTILINE)
    machine.run(f"hivectl networks create {NETWORK} --password-stdin", USER, stdin=PASSWORD + "\n")


def test_it_runs_while_nobody_is_logged_in(machine: Machine) -> None:
    before = machine.run("hivectl id --json", USER).json()["peer_id"]
    machine.reboot()
    # Its systemd is started at the boot, and for itself: what waits for the machine does not wait for it.
    assert machine.run("systemctl --user is-system-running --wait", USER).out == "running\n"
    assert machine.run("hivectl id --json", USER).json()["peer_id"] == before
    machine.run("systemctl --user restart hived", USER)
    assert NETWORK in machine.run("hivectl networks", USER).out


def test_beside_the_machines_own(machine: Machine, rack: Rack) -> None:
    """Each has its state, its socket and its port; hivectl means the machine's, if it may open that."""
    machine.run("systemctl enable --now hived")
    machines, users = peer_id(machine), machine.run("hivectl id --json", USER).json()["peer_id"]
    assert machines != users
    machine.run(f"usermod -aG hive {USER}")
    assert machine.run("hivectl id --json", USER).json()["peer_id"] == machines
    own = "hivectl --socket $XDG_RUNTIME_DIR/hive/control.sock id --json"
    assert machine.run(own, USER).json()["peer_id"] == users
    ports = machine.run("ss -Hlntp").out
    assert len(re.findall(r"0.0.0.0:(\d+) ", ports)) == 2


def test_reload_is_a_signal_where_the_socket_is_elsewhere(machine: Machine) -> None:
    file = f"/home/{USER}/.config/hive/hived.toml"
    machine.run(f"mkdir -p ~/.config/hive && echo 'socket = \"/home/{USER}/own.sock\"' >{file}", USER)
    machine.run("systemctl --user restart hived", USER)
    machine.run(f"echo 'log_level = \"debug\"' >>{file} && systemctl --user reload hived", USER)
    said = machine.run(f"hivectl --socket /home/{USER}/own.sock reload", USER)
    assert (said.out, said.err) == (f"The configuration is read: {file}\n", "")
    machine.run(f"echo nonsense >>{file}", USER)
    assert machine.run("systemctl --user is-active hived", USER).out == "active\n"

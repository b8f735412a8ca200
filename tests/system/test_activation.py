"""The control socket is systemd's: whoever types hivectl starts hived, if it does not run."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.system.hive import booted, drop_in, peer_id
from tests.system.machine import Machine
from tests.system.rack import Rack

pytestmark = pytest.mark.requires("machines")


@pytest.fixture(scope="module")
def machine(rack: Rack, layers: Sequence[Path]) -> Machine:
    """Only the socket is enabled."""
    user = "useradd --create-home --shell /bin/bash --groups hive ann"
    return booted(rack, "home", layers, user, "systemctl enable --now hived.socket")


def running(machine: Machine) -> str:
    return machine.run("systemctl is-active hived", check=False).out.strip()


def cannot_start(machine: Machine, why: str) -> None:
    """Whoever asks has hived started, and hears why it does not."""
    failed = machine.run("hivectl status", check=False)
    assert (failed.code, failed.out) == (3, "")
    assert re.fullmatch(rf"hivectl: hived cannot start: {why}\n", failed.err)


def test_the_first_command_starts_hived(machine: Machine) -> None:
    assert running(machine) == "inactive"
    assert "hived.service: active (running)" in machine.run("hivectl status").out
    assert running(machine) == "active"


def test_a_stopped_hived_is_started_again(machine: Machine) -> None:
    before = peer_id(machine)
    machine.run("systemctl stop hived")
    assert running(machine) == "inactive"
    # Anybody who may open the socket, that is.
    asked = machine.run("hivectl status", "ann", check=False)
    assert asked.code == 4
    assert re.fullmatch(r"hivectl: .*hivectl login.*\n", asked.err)
    assert running(machine) == "active"
    assert peer_id(machine) == before


def test_a_key_of_the_keyboard_does_not(machine: Machine) -> None:
    """A shell that completes a line asks hived where it runs, and leaves it alone where it does not."""
    machine.run("hivectl networks create lab")
    press = "COMP_WORDS='hivectl networks leave ' COMP_CWORD=3 _HIVECTL_COMPLETE=bash_complete hivectl"
    assert machine.run(press).out == "plain,lab\n"
    machine.run("systemctl stop hived")
    pressed = machine.run(press)
    assert (pressed.out.strip(), pressed.err) == ("", "")
    assert running(machine) == "inactive"
    machine.run("hivectl networks leave lab")


def test_after_a_boot_it_waits_for_a_command(machine: Machine) -> None:
    before = peer_id(machine)
    machine.reboot()
    assert machine.run("systemctl is-active hived hived.socket", check=False).out == "inactive\nactive\n"
    assert peer_id(machine) == before


def test_a_command_to_a_hived_that_cannot_start_ends_with_the_reason(machine: Machine) -> None:
    machine.run("systemctl stop hived")
    machine.put("/etc/hive/hived.toml", 'log_level = "unheard of"\n')
    try:
        # As often as somebody asks: the socket has not failed meanwhile.
        for _ in range(12):
            cannot_start(machine, r".*unheard of.*")
        assert "unheard of" in machine.journal("hived", "-o cat -p err")
    finally:
        machine.put("/etc/hive/hived.toml", "")
    machine.run("systemctl is-active hived.socket && systemctl restart hived")
    assert "active (running)" in machine.run("hivectl status").out


def test_a_state_that_cannot_be_read_is_told_too(machine: Machine) -> None:
    machine.run("systemctl stop hived; mv /var/lib/hive/hive.db /root && mkdir /var/lib/hive/hive.db")
    try:
        cannot_start(machine, r".*hive\.db.*")
    finally:
        machine.run("systemctl stop hived; rmdir /var/lib/hive/hive.db && mv /root/hive.db /var/lib/hive")
    assert "active (running)" in machine.run("hivectl status").out


def test_a_flag_that_is_none_is_told_too(machine: Machine) -> None:
    machine.run("systemctl stop hived")
    drop_in(machine, "Service", "ExecStart=", "ExecStart=/usr/bin/hived run --no-such-flag")
    try:
        cannot_start(machine, r".*--no-such-flag.*")
    finally:
        machine.run("rm -r /etc/systemd/system/hived.service.d && systemctl daemon-reload")
    machine.run("systemctl restart hived")
    assert "active (running)" in machine.run("hivectl status").out


def test_a_hived_that_cannot_say_why_is_not_started_for_ever(machine: Machine) -> None:
    """Though the command's connection waits in the socket."""
    machine.run("systemctl stop hived")
    drop_in(machine, "Service", "ExecStart=", "ExecStart=/bin/false", "Restart=no")
    try:
        failed = machine.run("hivectl status", check=False, seconds=120)
        assert (failed.code, failed.out) == (3, "")
        # Behind the note that it waits still.
        assert re.fullmatch(r"hivectl: .*journalctl -u hived.*", failed.err.splitlines()[-1])
        machine.await_line("hived.socket", "Trigger limit hit", 60)
    finally:
        machine.run("rm -r /etc/systemd/system/hived.service.d && systemctl daemon-reload")
    machine.run("systemctl restart hived")
    assert "active (running)" in machine.run("hivectl status").out

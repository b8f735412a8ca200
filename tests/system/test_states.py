"""What systemd hears of hived, and what it does when hived cannot start."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.system.hive import booted, drop_in, shown
from tests.system.machine import Machine
from tests.system.rack import Rack

pytestmark = [pytest.mark.requires("machines"), pytest.mark.full]
SECONDS = 60


@pytest.fixture(scope="module")
def machine(rack: Rack, layers: Sequence[Path]) -> Machine:
    """systemd says in its journal what it is told."""
    return booted(rack, "home", layers, "systemd-analyze log-level debug", "systemctl enable --now hived")


def told(machine: Machine, after: str, what: str) -> str:
    return machine.await_line("hived", f"({what}", SECONDS, after)


def test_each_state_is_told(machine: Machine) -> None:
    machine.await_line("hived", "(READY=1", SECONDS)
    after = machine.cursor()
    machine.run("systemctl reload hived")
    # RELOADING with its time: else systemd cannot tell one reload from the next (sd_notify(3)).
    assert "MONOTONIC_USEC=" in told(machine, after, "RELOADING=1")
    told(machine, after, "READY=1")
    after = machine.cursor()
    machine.run("systemctl restart hived")
    told(machine, after, "STOPPING=1")
    told(machine, after, "READY=1")
    told(machine, after, "STATUS=networks: 0")


def test_pings_come_well_before_the_watchdogs_time(machine: Machine) -> None:
    drop_in(machine, "Service", "WatchdogSec=3s")
    machine.run("systemctl restart hived")
    after = machine.cursor()
    for _ in range(5):
        told(machine, after, "WATCHDOG=1")
        after = machine.cursor()
    assert machine.show("hived", "NRestarts") == ["0"]


def test_a_wrong_configuration_is_not_tried_again(machine: Machine) -> None:
    machine.put("/etc/hive/hived.toml", 'log_level = "unheard of"\n')
    failed = machine.run("systemctl restart hived", check=False)
    assert failed.code == 1
    assert "journalctl -xeu hived.service" in failed.err
    assert machine.show("hived", "ActiveState", "NRestarts", "ExecMainStatus") == ["failed", "0", "2"]
    checked = machine.run("hived check", check=False)
    assert checked.code == 2
    assert "unheard of" in checked.err
    assert len(checked.err.splitlines()) == 1
    machine.put("/etc/hive/hived.toml", "")
    machine.run("systemctl restart hived")
    assert shown(machine)["service"]["unit"]["state"] == "active (running)"


@pytest.mark.parametrize(
    ("setting", "why", "cure"),
    [
        ('listen = "/ip4/0.0.0.0/tcp/443"', "may not use ports below 1024", "--listen"),
        ('listen = "/ip6/2001:db8::1/tcp/4483"', "does not have that address", "--listen /ip6/::/tcp/4483"),
        ('data_dir = "/srv/hive"', "Read-only file system", "ReadWritePaths="),
        ('data_dir = "/home/hive"', "Permission denied", "ReadWritePaths="),
    ],
)
def test_what_the_unit_does_not_allow_names_its_cure(
    machine: Machine, setting: str, why: str, cure: str
) -> None:
    machine.put("/etc/hive/hived.toml", f"{setting}\n")
    after = machine.cursor()
    assert machine.run("systemctl restart hived", check=False).code == 1
    assert cure in machine.await_line("hived", why, SECONDS, after)
    machine.put("/etc/hive/hived.toml", "")
    machine.run("systemctl restart hived")


def test_anything_else_is_tried_until_it_works(machine: Machine) -> None:
    """As often as it takes: here more often than systemd's own limit of five in ten seconds."""
    drop_in(machine, "Service", "RestartSec=100ms")
    machine.run("systemctl stop hived")
    machine.run("mv /var/lib/hive/hive.db /root/hive.db && mkdir /var/lib/hive/hive.db")
    after = machine.cursor()
    assert machine.run("systemctl start hived", check=False).code == 1
    machine.await_line("hived", "restart counter is at 8", SECONDS, after)
    machine.run("rmdir /var/lib/hive/hive.db && mv /root/hive.db /var/lib/hive/hive.db")
    machine.await_line("hived", "Started hived.service", SECONDS, machine.cursor())
    assert shown(machine)["service"]["unit"]["state"] == "active (running)"

"""From one version to the next with apt, back only on purpose, off and on again."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.system import package
from tests.system.hive import NETWORK, STRANGER, join, peer_id, shown
from tests.system.machine import Machine
from tests.system.rack import Rack

pytestmark = [pytest.mark.requires("machines"), pytest.mark.full]
OLD = "0.0.9"


@pytest.fixture(scope="module")
def old_deb() -> Path:
    return package.build(OLD)


@pytest.fixture(scope="module")
def machine(rack: Rack, base: Path, old_deb: Path) -> Machine:
    """An older version is installed, set up and runs."""
    made = rack.machine("home", base)
    made.boot()
    made.install(old_deb)
    made.put("/etc/hive/hived.toml", 'log_level = "debug"\n')
    made.run("systemctl enable --now hived")
    join(made)
    made.run(f"hivectl proxy add egress 8084 {STRANGER}:1984")
    return made


def state(machine: Machine) -> list[object]:
    """What a node must not lose."""
    status = shown(machine)
    proxies = [(row["port"], row["peer_id"], row["state"]) for row in status["proxies"]]
    return [status["peer_id"], [row["name"] for row in status["networks"]], proxies]


def test_an_upgrade_keeps_all_and_restarts_what_ran(machine: Machine, deb: Path) -> None:
    before = state(machine)
    assert before[1:] == [[NETWORK], [(8084, STRANGER, "listening")]]
    assert shown(machine)["version"] == OLD
    machine.install(deb)
    # Nothing more is typed.
    assert state(machine) == before
    assert shown(machine)["version"] != OLD
    assert machine.run("systemctl is-active hived hived.socket").out == "active\nactive\n"
    assert machine.run("systemctl is-enabled hived hived.socket").out == "enabled\nenabled\n"
    # A configuration that somebody has changed is theirs.
    assert machine.get("/etc/hive/hived.toml") == 'log_level = "debug"\n'
    assert machine.run("ls /usr/lib/hive/releases").out.split() == [shown(machine)["version"]]
    machine.reboot()
    assert state(machine) == before


def test_a_downgrade_is_refused_with_its_reason(machine: Machine, old_deb: Path) -> None:
    before, version = state(machine), shown(machine)["version"]
    (pid,) = machine.show("hived", "MainPID")
    machine.put(f"/root/{old_deb.name}", old_deb.read_bytes())
    refused = machine.run(f"apt-get install -y --allow-downgrades ./{old_deb.name}", check=False, seconds=300)
    assert refused.code == 100
    assert f"hive: downgrading from {version} to {OLD} is refused" in refused.out + refused.err
    # Nothing was touched, and apt is not stuck.
    assert machine.show("hived", "MainPID") == [pid]
    assert (state(machine), shown(machine)["version"]) == (before, version)
    machine.run("dpkg --audit && apt-get check")


def test_an_upgrade_starts_nothing_that_was_stopped(rack: Rack, base: Path, deb: Path, old_deb: Path) -> None:
    machine = rack.machine("stopped", base)
    machine.boot()
    machine.install(old_deb)
    machine.install(deb)
    assert machine.run("systemctl is-active hived hived.socket", check=False).out == "inactive\ninactive\n"
    machine.poweroff()


def test_remove_keeps_the_state_and_purge_does_not(machine: Machine, deb: Path) -> None:
    """The last of the module: in the end it is another node."""
    before = state(machine)
    machine.run("apt-get remove -y hive")
    assert machine.run("systemctl is-active hived hived.socket", check=False).out == "inactive\ninactive\n"
    assert machine.run("test -e /run/hive/control.sock || command -v hivectl", check=False).code != 0
    machine.run("test -s /var/lib/hive/hive.db && test -e /etc/hive/hived.toml")
    assert machine.run("systemctl is-system-running").out == "running\n"
    assert "enabled, but not running" in machine.install(deb).out
    machine.run("systemctl enable --now hived")
    assert state(machine) == before
    secret = "/etc/credstore/hived.network"
    machine.run(f"mkdir -p /etc/credstore /var/log/hive && touch {secret} /var/log/hive/hived.log")
    said = machine.run("apt-get purge -y hive").out
    left = machine.run(
        "ls -d /var/lib/hive /etc/hive /run/hive /var/log/hive /usr/lib/hive /etc/systemd/system/*/hived*"
        " 2>/dev/null",
        check=False,
    )
    assert left.out == ""
    # What hived did not make is its owner's.
    assert f"{secret} is yours, and stays" in said
    machine.run(f"rm {secret}")
    assert machine.run("getent passwd hive; getent group hive", check=False).out == ""
    machine.install(deb)
    machine.run("systemctl enable --now hived")
    assert peer_id(machine) != before[0]
    assert state(machine)[1:] == [[], []]

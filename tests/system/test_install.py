"""Hive as a person installs it: apt, systemctl and hivectl on a machine that has never seen it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.system.hive import PASSWORD, peer_id
from tests.system.machine import Machine
from tests.system.rack import Rack

pytestmark = pytest.mark.requires("machines")


@pytest.fixture(scope="module")
def machine(rack: Rack, base: Path, deb: Path) -> Machine:
    """Hive is installed with apt and started; two people have accounts."""
    made = rack.machine("home", base)
    made.boot()
    for user in ("ann", "bob"):
        made.run(f"useradd --create-home --shell /bin/bash {user}")
    said = made.install(deb)
    assert "systemctl enable --now hived" in said.out
    # Nothing runs that nobody has started.
    assert made.run("systemctl is-active hived hived.socket", check=False).out == "inactive\ninactive\n"
    made.run("systemctl enable --now hived")
    made.run("adduser --quiet ann hive")
    return made


def test_root_sees_the_node_at_a_glance(machine: Machine) -> None:
    shown = machine.run("hivectl status").out
    assert re.search(r"^peer_id +12D3KooW\w+$", shown, re.MULTILINE)
    assert re.search(r"^name +home$", shown, re.MULTILINE)
    assert re.search(r"^data +/var/lib/hive$", shown, re.MULTILINE)
    assert re.search(r"^socket +/run/hive/control.sock$", shown, re.MULTILINE)
    service = next(line for line in shown.splitlines() if line.startswith("service"))
    for words in (
        "hived.service: active (running), enabled",
        "user hive",
        "restarted 0 times",
        "watchdog 1 min",
    ):
        assert words in service
    assert not machine.run("hivectl status").err


def test_a_member_of_the_group_is_asked_to_log_in(machine: Machine) -> None:
    asked = machine.run("hivectl status", "ann", check=False)
    assert (asked.code, asked.out) == (4, "")
    assert re.fullmatch(r"hivectl: .*hivectl login.*\n", asked.err)
    machine.run("hivectl admin set ann --password-stdin", stdin=PASSWORD + "\n")
    machine.run("hivectl login --user ann --password-stdin", "ann", stdin=PASSWORD + "\n")
    assert "peer_id" in machine.run("hivectl status", "ann").out
    machine.run("hivectl logout", "ann")
    assert machine.run("hivectl status", "ann", check=False).code == 4


def test_anybody_else_is_told_whom_to_ask(machine: Machine) -> None:
    refused = machine.run("hivectl status", "bob", check=False)
    assert (refused.code, refused.out) == (4, "")
    assert re.fullmatch(
        r"hivectl: .*you may not open /run/hive/control.sock. Use sudo, or join its group.*\n", refused.err
    )


def test_systemd_knows_how_it_goes(machine: Machine) -> None:
    assert machine.show("hived", "ActiveState", "SubState", "UnitFileState", "NRestarts") == [
        *("active", "running", "enabled", "0")
    ]
    assert (
        'Status: "networks: 0, peers connected: 0, proxies: 0"' in machine.run("systemctl status hived").out
    )
    assert machine.run("systemctl is-system-running").out == "running\n"


def test_lines_in_the_journal_have_priorities(machine: Machine) -> None:
    assert "hived: ready" in machine.journal("hived", "-o cat -p info")
    assert machine.journal("hived", "-o cat -p warning") == ""
    machine.put("/etc/hive/hived.toml", 'log_level = "unheard of"\n')
    try:
        after = machine.cursor()
        assert machine.run("systemctl reload hived", check=False).code == 1
        machine.await_line("hived", "the configuration was not taken over", 10, after)
        assert "unheard of" in machine.journal("hived", "-o cat -p err")
        # What hivectl said of it, too.
        machine.await_line("hived", "hivectl: checking the configuration failed: ", 10, after)
        assert machine.show("hived", "ActiveState", "NRestarts") == ["active", "0"]
        # The priority is the journal's, and no part of the line.
        assert "<3>" not in machine.journal("hived", "-o cat")
    finally:
        machine.put("/etc/hive/hived.toml", "")
        machine.run("systemctl reload hived")


def test_reload_takes_a_setting_over_and_keeps_the_process(machine: Machine) -> None:
    (before,) = machine.show("hived", "MainPID")
    machine.put("/etc/hive/hived.toml", 'log_level = "debug"\n')
    after = machine.cursor()
    machine.run("systemctl reload hived")
    machine.await_line("hived", "configuration read", 10, after)
    assert machine.show("hived", "ActiveState", "SubState", "MainPID") == ["active", "running", before]
    machine.put("/etc/hive/hived.toml", "")
    machine.run("systemctl reload hived")
    machine.run("mv /etc/hive/hived.toml /root")
    gone = machine.run("hivectl reload", check=False)
    assert (gone.code, gone.out) == (2, "")
    assert "it is gone" in gone.err
    machine.run("mv /root/hived.toml /etc/hive && hivectl reload")


def test_restart_and_stop(machine: Machine) -> None:
    identity = peer_id(machine)
    (before,) = machine.show("hived", "MainPID")
    machine.run("systemctl restart hived")
    assert peer_id(machine) == identity
    (after,) = machine.show("hived", "MainPID")
    assert after != before
    machine.run("systemctl stop hived hived.socket")
    assert machine.show("hived", "ActiveState", "Result", "ExecMainStatus") == ["inactive", "success", "0"]
    gone = machine.run("hivectl status", check=False)
    assert gone.code == 3
    assert re.fullmatch(r"hivectl: .*systemctl start hived.*\n", gone.err)
    machine.run("systemctl start hived")
    assert peer_id(machine) == identity


def test_the_files_are_whose_they_should_be(machine: Machine) -> None:
    listed = machine.run("stat -c '%A %U %G %n' /etc/hive /var/lib/hive /run/hive/control.sock").out
    assert listed.splitlines() == [
        "drwxr-x--- root hive /etc/hive",
        "drwx------ hive hive /var/lib/hive",
        "srw-rw---- hive hive /run/hive/control.sock",
    ]
    others = machine.run("find /var/lib/hive -type f -perm /077").out
    assert others == ""


def test_without_systemd_as_the_documentation_says(machine: Machine) -> None:
    """From a directory that the user may not enter, too."""
    before = peer_id(machine)
    machine.run("systemctl stop hived hived.socket")
    command = "hived --daemonize --data-dir /var/lib/hive --config /etc/hive/hived.toml"
    machine.run(f"cd /root && runuser -u hive -- {command}")
    here = "hivectl --socket /var/lib/hive/control.sock id --json"
    assert machine.run(here).json()["peer_id"] == before
    machine.run(
        "kill $(cat /var/lib/hive/hived.pid); while [ -e /var/lib/hive/hived.pid ]; do sleep .1; done"
    )
    machine.run("rm /var/lib/hive/hived.log; systemctl start hived.socket hived")
    assert peer_id(machine) == before


@pytest.mark.parametrize("manager", ["system", "user"])
def test_systemd_understands_every_line_of_the_units(machine: Machine, manager: str) -> None:
    """It only warns of a key that it does not know, and goes on without."""
    units = machine.run(f"dpkg -L hive | grep /systemd/{manager}/.*[.]").out.split()
    assert len(units) == (3 if manager == "system" else 1)
    # Left alone, it looks for the manual pages too, with a program that few servers have.
    verify = f"systemd-analyze verify --{manager} --man=no {' '.join(units)}"
    checked = machine.run(verify, "root" if manager == "system" else "ann")
    assert checked.out + checked.err == ""


def test_the_service_may_do_little(machine: Machine) -> None:
    """Exposure, of 10, as systemd counts it; the threshold is in tenths."""
    machine.run("systemd-analyze security --offline=yes --threshold=18 --no-pager hived.service")

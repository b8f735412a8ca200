"""Secrets that systemd hands to hived: no file of them is readable for anybody but root."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.system.hive import NETWORK, PASSWORD, drop_in, join, peer_id, shown, started
from tests.system.machine import Machine
from tests.system.rack import Rack

pytestmark = [pytest.mark.requires("machines"), pytest.mark.full]
ADMIN = "ann"


def networks(machine: Machine) -> list[str]:
    return [row["name"] for row in shown(machine)["networks"]]


def test_a_node_set_up_by_files_alone(rack: Rack, layers: Sequence[Path]) -> None:
    machine = rack.machine("home", *layers)
    machine.boot()
    machine.run(f"useradd --create-home --shell /bin/bash --groups hive {ADMIN}")
    machine.run("mkdir -m 700 /etc/credstore")
    machine.put("/etc/credstore/hived.network", f"{NETWORK}:{PASSWORD}\n", 0o600)
    machine.put("/etc/credstore/hived.admin", f"{ADMIN}:{PASSWORD}\n", 0o600)
    key = os.urandom(32)
    machine.put("/etc/credstore/hived.state-key", key, 0o600)
    machine.run("systemctl enable --now hived")
    assert networks(machine) == [NETWORK]
    machine.run(f"hivectl login --user {ADMIN} --password-stdin", ADMIN, stdin=PASSWORD + "\n")
    assert machine.run("hivectl networks", ADMIN).out.count(NETWORK)
    # The key is nowhere in the state, so that a copy of the state alone opens nothing.
    assert machine.run("ls /var/lib/hive/state.key", check=False).code != 0
    identity = peer_id(machine)
    machine.reboot()
    assert (peer_id(machine), networks(machine)) == (identity, [NETWORK])
    # With another key it says so, and does not begin anew as somebody else.
    machine.run("systemctl stop hived")
    machine.put("/etc/credstore/hived.state-key", os.urandom(32), 0o600)
    assert machine.run("systemctl start hived", check=False).code != 0
    assert "state key" in machine.journal("hived", "-o cat -p err")
    machine.put("/etc/credstore/hived.state-key", key[1:], 0o600)
    assert "31 bytes instead of 32" in machine.run("hived check", check=False).err
    machine.put("/etc/credstore/hived.state-key", key, 0o600)
    machine.run("systemctl restart hived")
    assert peer_id(machine) == identity
    # root can read all of them: hived check says what user hive cannot.
    machine.put("/etc/hive/passwords", f"# mine\n{NETWORK}:{PASSWORD}\n", 0o600)
    machine.put("/etc/hive/hived.toml", 'network_file = "/etc/hive/passwords"\n')
    machine.run("mv /etc/credstore/hived.network /root")
    checked = machine.run("hived check", check=False)
    assert checked.code == 1
    assert checked.err.startswith(
        "hived: reading /etc/hive/passwords failed: Permission denied, as user hive. "
    )
    machine.run("chown hive /etc/hive/passwords && hived check")
    machine.put("/etc/credstore/hived.network", NETWORK, 0o600)
    checked = machine.run("hived check", check=False)
    assert checked.code == 2
    assert checked.err.startswith("hived: reading /etc/credstore/hived.network, line 1, failed: ")
    machine.poweroff()


def test_an_encrypted_credential(rack: Rack, layers: Sequence[Path]) -> None:
    machine = rack.machine("sealed", *layers)
    machine.boot()
    machine.run("mkdir -m 700 /etc/credstore.encrypted")
    machine.run(
        "systemd-creds encrypt --name=network - /etc/credstore.encrypted/hived.network",
        stdin=f"{NETWORK}:{PASSWORD}\n",
    )
    drop_in(machine, "Service", "LoadCredentialEncrypted=network:/etc/credstore.encrypted/hived.network")
    machine.run("systemctl enable --now hived")
    assert networks(machine) == [NETWORK]
    machine.poweroff()


def test_the_state_key_of_a_node_that_exists_moves_out(rack: Rack, layers: Sequence[Path]) -> None:
    """As docs/service.md says it."""
    machine = started(rack, "older", layers)
    join(machine)
    identity = peer_id(machine)
    machine.run("systemctl stop hived && mkdir -m 700 -p /etc/credstore")
    machine.run("mv /var/lib/hive/state.key /etc/credstore/hived.state-key")
    machine.run("chown root:root /etc/credstore/hived.state-key && systemctl start hived")
    assert (peer_id(machine), networks(machine)) == (identity, [NETWORK])
    assert machine.run("ls /var/lib/hive/state.key", check=False).code != 0
    machine.poweroff()

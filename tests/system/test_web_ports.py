"""Ports below 1024, which only root opens: hived has two of them from a socket unit."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.netns.namespace import Namespace
from tests.system.hive import STRANGER, join, shown, started
from tests.system.machine import Machine
from tests.system.rack import Rack
from tests.system.web import serve

pytestmark = [pytest.mark.requires("machines"), pytest.mark.full]


@pytest.fixture(scope="module")
def machine(rack: Rack, layers: Sequence[Path]) -> Machine:
    made = started(rack, "public", layers)
    join(made)
    return made


@pytest.fixture(scope="module")
def elsewhere(rack: Rack) -> Namespace:
    return rack.plug("elsewhere")[0]


def states(machine: Machine) -> dict[int, str]:
    return {row["port"]: row["state"] for row in shown(machine, "proxy")}


def connect(namespace: Namespace, machine: Machine, port: int) -> None:
    with namespace.socket() as client:
        client.settimeout(30)
        # Accepted it is; where the proxy leads there is nobody.
        with contextlib.suppress(ConnectionResetError):
            client.connect((machine.address, port))


def test_without_the_unit_a_proxy_says_what_to_type(machine: Machine, elsewhere: Namespace) -> None:
    refused = machine.run(f"hivectl proxy add egress 80 {STRANGER}:80", check=False)
    assert (refused.code, refused.out) == (1, "")
    assert re.fullmatch(
        r"hivectl: .*systemctl enable hived-web.socket && systemctl restart hived.*\n", refused.err
    )
    assert states(machine) == {}
    with pytest.raises(ConnectionRefusedError):
        connect(elsewhere, machine, 80)


def test_with_the_unit_a_proxy_has_the_port(machine: Machine, elsewhere: Namespace) -> None:
    machine.run("systemctl enable hived-web.socket && systemctl restart hived")
    # No proxy has it yet: nobody is left waiting.
    with elsewhere.socket() as client, contextlib.suppress(ConnectionResetError):
        client.settimeout(10)
        client.connect((machine.address, 80))
        assert client.recv(1) == b""
    (warning,) = shown(machine)["warnings"]
    assert "ports 80, 443" in warning
    assert "no proxy listens" in warning
    # A forward listens on loopback, where the unit does not.
    refused = machine.run(f"hivectl forward {STRANGER}:80 80", check=False)
    assert (refused.code, refused.out) == (1, "")
    assert re.fullmatch(r"hivectl: .* on all addresses, not on 127.0.0.1. Add --bind ::.\n", refused.err)
    for port in (80, 443):
        machine.run(f"hivectl proxy add egress {port} {STRANGER}:{port}")
    assert states(machine) == {80: "listening", 443: "listening"}
    assert not any("no proxy listens" in line for line in shown(machine)["warnings"])
    ids = [row["id"] for row in shown(machine, "proxy")]
    machine.run("; ".join(f"hivectl proxy disable {proxy_id}" for proxy_id in ids))
    assert any(f"hivectl proxy enable {ids[0]}" in line for line in shown(machine)["warnings"])
    machine.run("; ".join(f"hivectl proxy enable {proxy_id}" for proxy_id in ids))
    for port in (80, 443):
        connect(elsewhere, machine, port)
    assert machine.show("hived", "User", "CapabilityBoundingSet") == ["hive", ""]


def test_it_stays_over_a_reboot(machine: Machine, elsewhere: Namespace) -> None:
    machine.reboot()
    assert states(machine) == {80: "listening", 443: "listening"}
    connect(elsewhere, machine, 443)


def test_a_visitor_does_not_have_a_wrong_hived_started_for_ever(
    machine: Machine, elsewhere: Namespace
) -> None:
    machine.put("/etc/hive/hived.toml", 'log_level = "unheard of"\n')
    try:
        assert machine.run("systemctl restart hived", check=False).code == 1
        after = machine.cursor()
        with elsewhere.socket() as visitor:
            visitor.settimeout(30)
            with contextlib.suppress(ConnectionResetError):
                visitor.connect((machine.address, 80))
                assert visitor.recv(1) == b""
        machine.await_line("hived", "Failed with result", 30, after)
        machine.run("systemctl is-active hived-web.socket")
        assert machine.journal("hived", f"-o cat --after-cursor '{after}'").count("unheard of") == 1
    finally:
        machine.put("/etc/hive/hived.toml", "")
    machine.run("systemctl restart hived")


def test_given_back_the_ports_are_free_for_another_server(machine: Machine) -> None:
    machine.run(
        "systemctl disable hived-web.socket; systemctl stop hived-web.socket; systemctl restart hived"
    )
    assert set(states(machine).values()) == {"error"}
    machine.run("python3 -c 'import socket; socket.create_server((\"0.0.0.0\", 80))'")


def test_a_port_that_another_server_has_is_said(machine: Machine) -> None:
    serve(machine, 443, "another server", "0.0.0.0")
    machine.run("systemctl enable hived-web.socket && systemctl restart hived")
    (warning,) = (line for line in shown(machine)["warnings"] if "socket" in line)
    assert warning.startswith("hived-web.socket has failed")
    machine.run("systemctl disable --now web && systemctl restart hived")
    assert not [line for line in shown(machine)["warnings"] if "socket" in line]
    assert states(machine) == {80: "listening", 443: "listening"}

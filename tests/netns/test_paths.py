"""Each pair of NATs finds its best path, and each node knows how it is reached."""

from __future__ import annotations

import itertools
import subprocess
import sys
from pathlib import Path

import pytest

from tests.integration.nodes import proxy
from tests.netns.lab import Lab
from tests.netns.meshes import await_path, await_state, mesh
from tests.netns.nat import Mode
from tests.netns.test_hived import fetch, web

pytestmark = pytest.mark.requires("natlab")

# LANs by name, and what status says of a node there.
LANS: dict[str, Mode] = {"prc1": "prc", "prc2": "prc", "full": "full", "remap1": "remap", "remap2": "remap"}
SYMMETRIC: dict[str, Mode] = {"sym1": "sym", "sym2": "sym"}
STATES = {"prc": "cone", "remap": "cone", "full": "public", "sym": "symmetric"}
# Those between which no hole can be punched.
RELAYED = {("sym", "prc"), ("prc", "sym"), ("sym", "remap"), ("remap", "sym"), ("sym", "sym")}
SECONDS = 60


@pytest.mark.timeout(240)
def test_every_pair_of_nats(lab: Lab) -> None:
    """Two public members, and a node behind each NAT: nothing is configured anywhere."""
    modes = {**LANS, **SYMMETRIC}
    publics = [lab.public("pub1"), lab.public("pub2")]
    hosts = [lab.lan(name, mode).host(f"{name}-host") for name, mode in modes.items()]
    nodes = mesh(lab, *publics, *hosts, first=2)
    behind = dict(zip(modes, nodes[2:], strict=True))
    for node in nodes[:2]:
        await_state(node, SECONDS, "public")
    for name, node in behind.items():
        await_state(node, SECONDS, STATES[modes[name]])
    for (one, a), (other, b) in itertools.combinations(behind.items(), 2):
        best = "relayed" if (modes[one], modes[other]) in RELAYED else "direct"
        await_path(a, b, SECONDS, best)
        await_path(b, a, SECONDS, best)
    # Relayed is usable, and the table says through whom.
    sym1, sym2 = behind["sym1"], behind["sym2"]
    near, far = hosts[-2], hosts[-1]
    row = sym1.row(sym2)
    assert row is not None
    # The one behind a full cone can be dialled, so it relays as well.
    relays = {node.peer_id: node.name for node in (*nodes[:2], behind["full"])}
    assert row["relay"] in relays
    assert f"relayed via {relays[row['relay']]}" in sym1.ctl("nodes").out
    shown = sym1.json("nodes", "show", sym2.peer_id)
    assert shown["relay_name"] in relays.values()
    assert "hole punching" in shown["why"]
    with web(far) as port:
        door = proxy(sym1, sym2, port)
        assert fetch(near, f"http://127.0.0.1:{door}/page") == "you asked for /page"
    pinged = sym1.json("ping", sym2.peer_id, "-c", "1")
    assert pinged["path"] == "relayed"
    assert pinged["relay_name"] in relays.values()
    check = sym1.json("netcheck")
    assert (check["nat"], check["hole_punching"]) == ("symmetric", "unlikely")
    reserved = {relay["name"] for relay in check["relays"] if relay["reserved"]}
    assert reserved <= set(relays.values())
    assert len(reserved) >= 2
    check = behind["prc1"].json("netcheck")
    assert (check["nat"], check["hole_punching"], check["asked"]) == ("cone", "likely", 4)


def test_routers_that_answer_with_resets(lab: Lab) -> None:
    """What strangers get is RST: a refused dial is tried again until the other side's SYN has left."""
    pub1, pub2 = lab.public("pub1"), lab.public("pub2")
    hosts = [
        lab.lan(name, "prc", reject="rst", delay_ms=10).host(f"{name}-host") for name in ("home", "office")
    ]
    _, _, a, b = mesh(lab, pub1, pub2, *hosts, first=2)
    await_path(a, b, SECONDS, "direct")
    await_path(b, a, SECONDS, "direct")
    await_state(a, SECONDS, "cone")


def test_symmetric_nats_are_no_matter_where_both_have_ipv6(lab: Lab) -> None:
    """Only a firewall is between them there, and a hole is punched through it."""
    pub1, pub2 = lab.public("pub1", ipv6=True), lab.public("pub2", ipv6=True)
    hosts = [lab.lan(name, "sym", ipv6=True).host(f"{name}-host") for name in ("home", "office")]
    _, _, a, b = mesh(lab, pub1, pub2, *hosts, first=2)
    await_path(a, b, SECONDS, "direct")
    await_path(b, a, SECONDS, "direct")
    row = a.row(b)
    assert row is not None
    assert hosts[1].address6 is not None
    assert a.json("ping", b.peer_id, "-c", "1")["path"] == "direct"
    with web(hosts[1]) as port:
        assert fetch(hosts[0], f"http://127.0.0.1:{proxy(a, b, port)}/x") == "you asked for /x"


def test_new_connections_take_the_direct_path_and_old_ones_end_where_they_are(
    lab: Lab, tmp_path: Path
) -> None:
    """A transfer that began on the relay goes on there, untouched, while new ones do not need it."""
    pub1, pub2 = lab.public("pub1"), lab.public("pub2")
    near, far = lab.lan("home", "prc").host("near"), lab.lan("office", "prc").host("far")
    go = tmp_path / "go"
    near.block(far.public)
    _, _, a, b = mesh(lab, pub1, pub2, near, far, first=2)
    await_path(a, b, SECONDS, "relayed")
    with web(far) as port:
        door = proxy(a, b, port)
        slow = near.popen([sys.executable, "-c", SLOW_READER, str(door), str(go)], stdout=subprocess.PIPE)
        assert slow.stdout is not None
        assert slow.stdout.readline() == "begun\n"
        near.unblock()
        await_path(a, b, SECONDS, "direct")
        assert fetch(near, f"http://127.0.0.1:{door}/new") == "you asked for /new"
        go.touch()
        assert slow.stdout.readline() == "you asked for /slow\n"
        assert slow.wait(30) == 0
    await_path(a, b, SECONDS, "direct")


# Asks slowly; what began on the relay stays there.
SLOW_READER = """
import os, socket, sys, time
with socket.create_connection(("127.0.0.1", int(sys.argv[1]))) as sock:
    sock.sendall(b"GET /slow")
    print("begun", flush=True)
    while not os.path.exists(sys.argv[2]):
        time.sleep(0.1)
    sock.sendall(b" HTTP/1.0\\r\\n\\r\\n")
    data = b""
    while part := sock.recv(1):
        data += part
print(data.split(b"\\r\\n\\r\\n")[1].decode(), flush=True)
"""

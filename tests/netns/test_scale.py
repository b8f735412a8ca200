"""Fifty nodes behind NATs in one network with three relays, of which one dies."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from itertools import islice

import pytest

from tests.integration.nodes import Node, proxy
from tests.netns.host import Host
from tests.netns.lab import Lab
from tests.netns.meshes import NETWORK, await_path
from tests.netns.nat import Mode
from tests.netns.test_hived import fetch, web
from tests.netns.test_relays import REPLACED

pytestmark = pytest.mark.requires("natlab")

MODES: tuple[Mode, ...] = ("sym", "prc", "remap", "sym", "prc")
LANS, HOSTS = 25, 2
# So many start at a time: all at once, each would wait a minute for its turn on the processors.
BATCH = 5
PATIENCE = 120.0


def batches(nodes: Sequence[Node]) -> Iterator[list[Node]]:
    left = iter(nodes)
    while batch := list(islice(left, BATCH)):
        yield batch


def reserved(node: Node) -> set[str]:
    """The relays that a node says it holds, by the last line of its log that tells of them."""
    for line in reversed(node.log.lines):
        if "overlay.reservations: relays held=" in line:
            return set(line.partition("peers=")[2].strip().strip('"').split())
    return set()


def await_reserved(nodes: Sequence[Node], wanted: set[str], seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while left := {node.name: reserved(node) for node in nodes if reserved(node) != wanted}:
        assert time.monotonic() < deadline, f"after {seconds:.0f} s: {left}, not {wanted}"
        time.sleep(0.2)


def served(host: Host, url: str) -> bool:
    """Whether the page comes; a reset, or half of it, is none."""
    try:
        return fetch(host, url).startswith("you asked for /")
    except OSError:
        return False


@pytest.mark.alone
@pytest.mark.timeout(900)
def test_fifty_nodes_and_three_relays_of_which_one_dies(lab: Lab) -> None:
    """Each keeps a reservation on all three, then on the two that are left; nobody types anything."""
    publics = [lab.public(f"pub{number}") for number in range(3)]
    lans = [lab.lan(f"lan{number}", MODES[number % len(MODES)]) for number in range(LANS)]
    hosts = [lan.host(f"{lan.name}-{number}") for lan in lans for number in range(HOSTS)]
    relays = lab.nodes(*publics)
    nodes = [lab.node(host) for host in hosts]
    for relay in relays:
        relay.create(NETWORK)
    for relay in relays[1:]:
        relay.register(relays[0], NETWORK)
    for batch in batches(nodes):
        for node in batch:
            node.start(wait=False)
        for node in batch:
            node.ready()
            node.create(NETWORK)
        for node in batch:
            # One member is enough: it learns of the others.
            node.register(relays[0], NETWORK)
    await_reserved(nodes, {relay.peer_id for relay in relays}, PATIENCE)
    # Between LANs behind symmetric NATs there is no other way than a relay.
    symmetric = [n for n, node in enumerate(nodes) if lans[n // HOSTS].router.nat.mode == "sym"]
    pairs = list(zip(symmetric[::2], symmetric[2::2], strict=False))[:6]
    with web(hosts[pairs[0][1]]) as port:
        near, far = pairs[0]
        door = proxy(nodes[near], nodes[far], port)
        for one, other in pairs:
            await_path(nodes[one], nodes[other], PATIENCE, "relayed")
        assert served(hosts[near], f"http://127.0.0.1:{door}/before")
        row = nodes[near].row(nodes[far])
        assert row is not None
        dead = next(relay for relay in relays if relay.peer_id == row["relay"])
        dead.kill()
        killed = time.monotonic()
        await_reserved(nodes, {relay.peer_id for relay in relays if relay is not dead}, REPLACED)
        print(f"scale: all {len(nodes)} know what they have left after {time.monotonic() - killed:.1f} s")
        # Until there is another path a new connection is reset.
        while not served(hosts[near], f"http://127.0.0.1:{door}/after"):
            assert time.monotonic() - killed < REPLACED, nodes[near].ctl("proxy").out
            time.sleep(0.2)
        print(f"scale: a page comes over another relay after {time.monotonic() - killed:.1f} s")
    for one, other in pairs:
        await_path(nodes[one], nodes[other], REPLACED, "relayed")
        row = nodes[one].row(nodes[other])
        assert row is not None
        assert row["relay"] != dead.peer_id

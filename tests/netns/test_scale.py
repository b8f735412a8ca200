"""Fifty nodes behind NATs, three relays, of which one dies."""

from __future__ import annotations

import itertools
import random
import time

import pytest

from tests.integration.nodes import Node
from tests.netns.lab import Lab
from tests.netns.meshes import NETWORK, await_relays
from tests.netns.nat import Mode

pytestmark = pytest.mark.requires("natlab")

MODES: tuple[Mode, ...] = ("prc", "sym", "remap", "prc", "sym")
LANS, HOSTS = 10, 5
# Started at once: more would only wait for each other.
AT_ONCE = 6


def reach(rng: random.Random, nodes: list[Node], pairs: int) -> None:
    """So many random pairs answer each other's pings."""
    for one, other in (rng.sample(nodes, 2) for _ in range(pairs)):
        assert one.json("ping", other.peer_id, "-c", "1")["path"] in ("direct", "relayed")


@pytest.mark.full
@pytest.mark.timeout(900)
def test_fifty_nodes_behind_nats(lab: Lab) -> None:
    rng = random.Random(5)
    relays: list[Node] = [lab.node(lab.public(f"pub{number}")) for number in range(3)]
    behind: list[Node] = []
    for number, mode in zip(range(LANS), itertools.cycle(MODES), strict=False):
        lan = lab.lan(f"lan{number}", mode)
        behind += [lab.node(lan.host(f"h{number}-{place}")) for place in range(HOSTS)]
    everybody = [*relays, *behind]
    for start in range(0, len(everybody), AT_ONCE):
        some = everybody[start : start + AT_ONCE]
        for node in some:
            node.start(wait=False)
        for node in some:
            node.ready()
            node.create(NETWORK)
            if node is not relays[0]:
                node.register(relays[0], NETWORK)
    # The first relay knows all of them, and through whom they are reached.
    for node in behind:
        await_relays(relays[0], node, 120, lambda found: len(found) >= 1)
    reach(rng, behind, 10)
    relays[2].kill()
    began = time.monotonic()
    for node in behind:
        # Itself it does not count; the dead one is gone.
        left = {relays[1].peer_id}
        await_relays(relays[0], node, max(1.0, 30 - (time.monotonic() - began)), left.__eq__)
    reach(rng, behind, 10)

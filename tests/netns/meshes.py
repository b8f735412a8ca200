"""hived on machines of a lab, all in one network, and the paths between them."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from tests.integration.nodes import Node
from tests.netns.host import Host
from tests.netns.lab import Lab
from tests.netns.node import PlacedNode

NETWORK = "my-network"


def mesh(lab: Lab, *hosts: Host, first: int = 1) -> list[PlacedNode]:
    """A hived on each machine, all in one network; all but the ``first`` ones know these alone at first."""
    nodes = lab.nodes(*hosts)
    for node in nodes:
        node.create(NETWORK)
    for node in nodes[first:]:
        for known in nodes[:first]:
            node.register(known, NETWORK)
    for known in nodes[1:first]:
        known.register(nodes[0], NETWORK)
    return nodes


def is_path(*paths: str) -> Callable[[dict[str, Any]], bool]:
    return lambda row: row["path"] in paths


def await_path(node: Node, other: Node, seconds: float, *paths: str) -> None:
    """Wait until a node reaches another by one of these paths, as it says itself."""
    node.await_row(other, is_path(*paths), seconds)


def await_state(node: Node, seconds: float, *states: str) -> None:
    """Wait until ``status`` says one of these of how a node is reached."""
    node.watch(["status", "--watch", "--json"], lambda status: status["reachability"] in states, seconds)


def relays_of(node: Node, other: Node) -> set[str]:
    """The relays that a node knows for another, by peer ID."""
    rows = node.json("nodes", "show", other.peer_id)["addresses"]
    return {row["address"].split("/")[2] for row in rows if row["address"].endswith("/p2p-circuit")}


def await_relays(node: Node, other: Node, seconds: float, fits: Callable[[set[str]], bool]) -> set[str]:
    """Wait until a node knows relays for another that fit."""
    deadline = time.monotonic() + seconds
    while not fits(found := relays_of(node, other)):
        # A watch of ``nodes`` does not show them.
        assert time.monotonic() < deadline, f"relays of {other.name}, as {node.name} knows them: {found}"
        time.sleep(0.2)
    return found

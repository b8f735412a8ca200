"""Nodes in network namespaces of their own, on two switches with one cable between that a test can pull."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from tests.netns.keeper import Keeper
from tests.netns.link import End
from tests.netns.namespace import Namespace
from tests.netns.node import PlacedNode
from tests.netns.switch import BRIDGE, Switch


class Switches:
    """Two switches and a cable between them; nodes are plugged into either. ``keeper`` keeps all of it."""

    def __init__(self, keeper: Keeper) -> None:
        self._keeper = keeper
        self.left, self.right = (Switch(Namespace(name, keeper)) for name in ("left", "right"))
        self._cable = self.left.plug(End(self.right.namespace, "cable"), "cable")
        self.right.namespace.ip(f"link set dev cable master {BRIDGE}")

    def plug(self, directory: Path, name: str, switch: Switch, number: int) -> PlacedNode:
        """A node with the address 10.77.0.``number``, not started yet, on one of the two sides."""
        namespace = Namespace(name, self._keeper)
        switch.plug(End(namespace, "eth0"), name)
        namespace.ip(f"address add 10.77.0.{number}/24 dev eth0")
        return PlacedNode(directory, name, namespace, listen=(f"/ip4/10.77.0.{number}/tcp/4001",))

    def cut(self) -> None:
        """Pull the cable: packets vanish, nobody is told."""
        self._cable.down()

    def mend(self) -> None:
        self._cable.up()


@contextlib.contextmanager
def two_sides(directory: Path) -> Iterator[tuple[Switches, list[PlacedNode]]]:
    """Four started nodes in no network: alpha and beta on the left, gamma and delta on the right."""
    nodes: list[PlacedNode] = []
    keeper = Keeper()
    try:
        switches = Switches(keeper)
        for number, name in enumerate(("alpha", "beta", "gamma", "delta"), 1):
            side = switches.left if number < 3 else switches.right
            nodes.append(switches.plug(directory, name, side, number))
        for node in nodes:
            node.start(wait=False)
        for node in nodes:
            node.ready()
        yield switches, nodes
    finally:
        for node in nodes:
            node.close()
        keeper.close()

"""Nodes in network namespaces of their own, on two switches with one cable between that a test can pull."""

from __future__ import annotations

import contextlib
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

from tests.integration.nodes import Node
from tests.needs import program

LEFT, RIGHT = "left", "right"
_CABLE = "cable"


def ip(*arguments: str) -> None:
    """Run ip(8); its failure is the test's."""
    command = [program("ip") or "ip", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"ip {' '.join(arguments)}: {done.stderr}"


class PlacedNode(Node):
    """A node in a namespace of its own, with the address 10.77.0.``number``."""

    def __init__(self, directory: Path, name: str, namespace: str, number: int) -> None:
        super().__init__(directory, name)
        self.namespace = namespace
        self.listen = (f"/ip4/10.77.0.{number}/tcp/4001",)

    def command(self, *extra: str) -> list[str]:
        return [program("ip") or "ip", "netns", "exec", self.namespace, *super().command(*extra)]


class Switches:
    """Two bridges in a namespace, a cable between them; nodes are plugged into either."""

    def __init__(self) -> None:
        self._prefix = f"hive{os.getpid()}"
        self._hub = f"{self._prefix}-hub"
        self._made: list[str] = []

    def __enter__(self) -> Switches:
        try:
            self._build()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        for namespace in reversed(self._made):
            with contextlib.suppress(AssertionError):
                ip("netns", "delete", namespace)

    def _build(self) -> None:
        self._add(self._hub)
        for bridge in (LEFT, RIGHT):
            ip("-n", self._hub, "link", "add", bridge, "type", "bridge")
            ip("-n", self._hub, "link", "set", bridge, "up")
        ip("-n", self._hub, "link", "add", _CABLE, "type", "veth", "peer", "name", f"{_CABLE}2")
        for end, bridge in ((_CABLE, LEFT), (f"{_CABLE}2", RIGHT)):
            ip("-n", self._hub, "link", "set", end, "master", bridge, "up")

    def _add(self, namespace: str) -> None:
        ip("netns", "add", namespace)
        self._made.append(namespace)

    def plug(self, directory: Path, name: str, bridge: str, number: int) -> PlacedNode:
        """A node, not started yet, on one of the two sides."""
        namespace = f"{self._prefix}-{name}"
        self._add(namespace)
        ip("-n", self._hub, "link", "add", name, "type", "veth", "peer", "name", "eth0", "netns", namespace)
        ip("-n", self._hub, "link", "set", name, "master", bridge, "up")
        ip("-n", namespace, "address", "add", f"10.77.0.{number}/24", "dev", "eth0")
        for device in ("lo", "eth0"):
            ip("-n", namespace, "link", "set", device, "up")
        return PlacedNode(directory, name, namespace, number)

    def cut(self) -> None:
        """Pull the cable: packets vanish, nobody is told."""
        ip("-n", self._hub, "link", "set", _CABLE, "down")

    def mend(self) -> None:
        ip("-n", self._hub, "link", "set", _CABLE, "up")


@contextlib.contextmanager
def two_sides(directory: Path) -> Iterator[tuple[Switches, list[PlacedNode]]]:
    """Four started nodes in no network: alpha and beta on the left, gamma and delta on the right."""
    nodes: list[PlacedNode] = []
    with Switches() as switches:
        try:
            for number, name in enumerate(("alpha", "beta", "gamma", "delta"), 1):
                nodes.append(switches.plug(directory, name, LEFT if number < 3 else RIGHT, number))
            for node in nodes:
                node.start(wait=False)
            for node in nodes:
                node.ready()
            yield switches, nodes
        finally:
            for node in nodes:
                node.close()

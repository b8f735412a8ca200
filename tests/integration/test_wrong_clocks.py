"""Nodes whose wall clocks are wrong by years, or jump while they run: they join, sync and proxy."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.integration.nodes import Node, join, proxy
from tests.integration.services import connect, echo, receive_exactly, service
from tests.needs import faketime

pytestmark = pytest.mark.requires("faketime")
NETWORK = "red"
CHANGE_SECONDS = 5.0
YEARS = 3653


class ShiftedNode(Node):
    """A node whose wall clock is days off; :meth:`shift` sets it anew while it runs."""

    def __init__(self, directory: Path, name: str, days: int) -> None:
        super().__init__(directory, name)
        self._file = self.directory / "faketime"
        self.shift(days)
        self._plain = dict(self.env)
        self._shifted = {
            **self.env,
            "LD_PRELOAD": str(faketime()),
            "FAKETIME_TIMESTAMP_FILE": str(self._file),
            # The shift counts with the next look at the clock.
            "FAKETIME_NO_CACHE": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        }

    def shift(self, days: int) -> None:
        self._file.write_text(f"{days:+d}d\n")

    def start(self, *extra: str, wait: bool = True) -> Node:
        # hivectl, which tests run with the same environment, needs no other clock.
        self.env = self._shifted
        try:
            return super().start(*extra, wait=wait)
        finally:
            self.env = self._plain


@pytest.fixture(scope="module")
def three(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Node]]:
    """One node is ten years ahead, one ten years behind; all in one network."""
    directory = tmp_path_factory.mktemp("clocks")
    nodes = [
        Node(directory, "now"),
        ShiftedNode(directory, "ahead", YEARS),
        ShiftedNode(directory, "behind", -YEARS),
    ]
    try:
        for node in nodes:
            node.start(wait=False)
        for node in nodes:
            node.ready()
        join(NETWORK, *nodes)
        yield nodes
    finally:
        for node in nodes:
            node.close()


def named(name: str) -> Any:
    return lambda row: row["name"] == name


def renamed_everywhere(nodes: list[Node], suffix: str) -> None:
    """Each node changes its name, and all others see it in the promised time."""
    for node in nodes:
        node.ctl("rename", f"{node.name}-{suffix}")
        for other in nodes:
            if other is not node:
                other.await_row(node, named(f"{node.name}-{suffix}"), CHANGE_SECONDS)


def year(node: Node) -> int:
    """The year that a node's clock shows now: in the line that it logs of a change."""
    seen = len(node.log.lines)
    node.ctl("rename", f"{node.name}-asked")
    return int(node.log.wait_for("changed", CHANGE_SECONDS, after=seen)[:4])


def test_the_clocks_are_wrong(three: list[Node]) -> None:
    """Else this module shows nothing."""
    now, ahead, behind = three
    assert year(ahead) - year(now) >= 9
    assert year(now) - year(behind) >= 9


def test_they_sync(three: list[Node]) -> None:
    renamed_everywhere(three, "two")


def test_they_proxy(three: list[Node]) -> None:
    now, ahead, behind = three
    with service(echo) as target:
        for client, server in ((ahead, behind), (behind, now)):
            with connect(proxy(client, server, target.port)) as stream:
                stream.sendall(b"hello")
                assert receive_exactly(stream, 5) == b"hello"


def test_they_jump(three: list[Node]) -> None:
    """Ahead falls behind, behind runs ahead, while both run; then they restart."""
    _, ahead, behind = three
    assert isinstance(ahead, ShiftedNode)
    assert isinstance(behind, ShiftedNode)
    ahead.shift(-YEARS)
    behind.shift(2 * YEARS)
    renamed_everywhere(three, "three")
    assert year(behind) - year(ahead) >= 11
    ahead.stop()
    ahead.start()
    renamed_everywhere(three, "four")
    for node in three:
        assert len(node.json("nodes")) == 3
        assert not any("another hived runs" in line for line in node.log.lines)

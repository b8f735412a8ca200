"""A network that falls apart and heals: what changed on either side is known to all, without a command."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.integration.nets import two_sides
from tests.integration.nodes import connected, join

NETWORK = "red"
# A silent connection is dead after 25 s.
NOTICED_SECONDS = 40.0
HEALED_SECONDS = 60.0


@pytest.mark.requires("netns")
def test_a_partition_heals(tmp_path: Path) -> None:
    with two_sides(tmp_path) as (switches, nodes):
        alpha, beta, gamma, delta = nodes
        join(NETWORK, *nodes)
        switches.cut()
        # Changes on both sides, the first before anybody has noticed.
        alpha.ctl("rename", "alpha-two")
        beta.await_row(alpha, lambda row: row["name"] == "alpha-two", 5)
        for here, there in ((alpha, gamma), (beta, delta), (gamma, beta), (delta, alpha)):
            here.await_row(there, lambda row: not connected(row), NOTICED_SECONDS)
        gamma.ctl("rename", "gamma-two")
        delta.await_row(gamma, lambda row: row["name"] == "gamma-two", 5)
        assert (row := delta.row(alpha)) is not None
        assert row["name"] == "alpha"
        switches.mend()
        names = {"alpha-two", "beta", "gamma-two", "delta"}
        for node in nodes:
            node.watch(
                ["nodes", "ls", "--watch", "--json"],
                lambda rows: {row["name"] for row in rows} == names,
                HEALED_SECONDS,
            )
        for node in nodes:
            for other in nodes:
                if other is not node:
                    node.await_row(other, connected, HEALED_SECONDS)

"""A relay that is not ours: Kubo serves two hived nodes that have nobody else."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.integration.nodes import proxy
from tests.interop.stock import kubo
from tests.netns.lab import Lab
from tests.netns.meshes import NETWORK, await_path
from tests.netns.nat import Mode
from tests.netns.test_hived import fetch, web

pytestmark = pytest.mark.requires("natlab", "kubo")


@pytest.mark.parametrize(("office", "path"), [("sym", "relayed"), ("prc", "direct")])
def test_kubo_relays_for_two_nodes(lab: Lab, tmp_path: Path, office: Mode, path: str) -> None:
    """It is named on both; the identity string of one is enough for the other. A hole is punched, too."""
    pub = lab.public("pub")
    near, far = lab.lan("home", "prc").host("near"), lab.lan("office", office).host("far")
    directory = tmp_path / "kubo"
    directory.mkdir()
    with kubo(directory, host=pub.address, inside=pub.inside) as relay:
        address = f"{relay.address}/p2p/{relay.peer_id}"
        a, b = (lab.node(host, "--use-relay", address) for host in (near, far))
        for node in (a, b):
            node.start(wait=False)
        for node in (a, b):
            node.ready()
            node.create(NETWORK)
        b.log.wait_for("relays held=1", 30)
        assert f"{address}/p2p-circuit" in b.json("id")["addresses"]
        a.register(b, NETWORK)
        await_path(a, b, 40, path)
        with web(far) as port:
            door = proxy(a, b, port)
            assert fetch(near, f"http://127.0.0.1:{door}/page") == "you asked for /page"

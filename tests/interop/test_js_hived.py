"""hived beside js-libp2p: each dials the other, and is pinged and identified by js-libp2p then."""

from __future__ import annotations

import pytest

from hived import __version__
from tests.integration.nodes import Node
from tests.interop.stock import Stock

pytestmark = pytest.mark.requires("js-libp2p")

TO_STRANGERS = {"/ipfs/id/1.0.0", "/ipfs/ping/1.0.0"}


def _look(js: Stock, node: Node) -> None:
    """Both protocols, as js-libp2p's own services speak them, on the connection that there is."""
    for _ in range(2):
        assert js.call("ping", peer=node.peer_id) >= 0
    found = js.call("identify", peer=node.peer_id)
    assert found["peer"] == node.peer_id
    assert found["agent"] == f"hived/{__version__}"
    assert node.listen[0] in found["addresses"]
    assert set(found["protocols"]) >= TO_STRANGERS
    assert not [name for name in found["protocols"] if "proxy" in name or "sync" in name]
    assert found["observed"].startswith("/ip4/127.0.0.1/tcp/")


def test_js_dials_hived(js: Stock, one: Node) -> None:
    assert js.call("dial", address=f"{one.listen[0]}/p2p/{one.peer_id}") == one.peer_id
    _look(js, one)
    js.call("hangup", peer=one.peer_id)


def test_hived_dials_js(js: Stock, one: Node) -> None:
    """The identity string that hivectl takes is a signed record of js-libp2p's own making."""
    one.create("my-network")
    one.ctl("register", js.hello["identity"], check=False)
    js.call("dialled", peer=one.peer_id)
    _look(js, one)
    row = one.row(js.peer_id)
    assert row is not None
    js.call("hangup", peer=one.peer_id)

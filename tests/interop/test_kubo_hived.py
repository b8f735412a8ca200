"""hived beside Kubo (go-libp2p): each dials the other, and Kubo identifies hived."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from hived.overlay.identity import Identity
from tests.integration.nodes import Node, free_port
from tests.interop.stock import Stock, kubo

pytestmark = pytest.mark.requires("kubo")

NOT_SPOKEN = "/x/hive-test/not-spoken/1.0.0"


def _look(go: Stock, node: Node) -> None:
    """Kubo opens a stream: that waits for identify, and is refused then. Now Kubo knows what hived said."""
    assert node.peer_id in go.call("peers")
    port = free_port()
    assert go.call("forward", protocol=NOT_SPOKEN, port=port, peer=node.peer_id) == 1
    with socket.create_connection(("127.0.0.1", port), 10) as asked:
        assert asked.recv(1) == b""
    assert node.listen[0] in go.call("addresses", peer=node.peer_id)
    assert node.peer_id in go.call("peers")


def test_kubo_dials_hived(go: Stock, one: Node) -> None:
    assert go.call("connect", address=f"{one.listen[0]}/p2p/{one.peer_id}") == 0
    one.log.wait_for(f"peer={go.peer_id}", 10)
    _look(go, one)


def test_hived_dials_kubo(go: Stock, go_identity: Identity, one: Node) -> None:
    """What Kubo knows of hived's listener it can have from identify alone."""
    one.create("my-network")
    one.ctl("register", go_identity.string([go.address]), check=False)
    one.log.wait_for("by=us", 10)
    _look(go, one)


def test_kubo_with_an_rsa_key_dials_hived(tmp_path: Path, one: Node) -> None:
    """No node of Hive has such a key, but a stranger may, and it proves it in the handshake."""
    (tmp_path / "kubo").mkdir()
    with kubo(tmp_path / "kubo") as go:
        assert go.peer_id.startswith("Qm")
        assert go.call("connect", address=f"{one.listen[0]}/p2p/{one.peer_id}") == 0
        one.log.wait_for(f"peer={go.peer_id}", 10)
        _look(go, one)

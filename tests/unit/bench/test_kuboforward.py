"""Kubo's end is cut off from the world: what its fresh repository says is changed so."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from bench import kuboforward


def test_a_fresh_repository_is_cut_off(tmp_path: Path) -> None:
    fresh = {
        "Identity": {"PeerID": "12D3KooWpeer", "PrivKey": "secret"},
        "Bootstrap": ["/dnsaddr/somewhere"],
        "Addresses": {"Swarm": ["/ip4/0.0.0.0/tcp/4001"], "API": "/ip4/0.0.0.0/tcp/5001", "Announce": []},
        "Discovery": {"MDNS": {"Enabled": True}},
        "Swarm": {"DisableBandwidthMetrics": False},
    }
    (tmp_path / "config").write_text(json.dumps(fresh))
    assert kuboforward.configure(tmp_path, ["/ip4/127.0.0.1/tcp/9"]) == "12D3KooWpeer"
    config = json.loads((tmp_path / "config").read_text())
    assert config["Bootstrap"] == []
    assert config["Addresses"]["Swarm"] == ["/ip4/127.0.0.1/tcp/9"]
    assert all("127.0.0.1" in config["Addresses"][door] for door in ("API", "Gateway"))
    assert not config["Discovery"]["MDNS"]["Enabled"]
    assert config["Routing"] == {"Type": "none"}
    assert config["Swarm"]["DisableNatPortMap"]
    assert not config["Swarm"]["RelayClient"]["Enabled"]
    assert config["Experimental"] == {"Libp2pStreamMounting": True}
    assert config["Identity"] == fresh["Identity"]


def test_what_the_library_refuses_ends_it() -> None:
    kuboforward.check("RunNode", 1)
    with pytest.raises(SystemExit, match="RunNode: -3"):
        kuboforward.check("RunNode", -3)

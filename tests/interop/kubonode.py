"""Kubo for ``stock.Stock``, run by the Python of the venv that has it as a library.

    kubonode REPOSITORY HOST [PEER_ID KEY]      KEY as Kubo's configuration has it; else Kubo makes an RSA key

The node meets nobody else: no bootstrap, discovery or routing. It is a relay, for whoever connects.
"""

from __future__ import annotations

import ctypes
import json
import os
import socket
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bench.kuboforward import check, configure, library

MIB = 1024 * 1024
FIND_SECONDS = 5


def free_port() -> int:
    """A port for the swarm's listener: Kubo cannot tell which one it got for port 0."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


def complete(repository: Path, identity: list[str]) -> str:
    """Let the node relay without looking first whether the world can reach it; its peer ID."""
    path = repository / "config"
    config: dict[str, Any] = json.loads(path.read_text())
    if identity:
        config["Identity"] = dict(zip(("PeerID", "PrivKey"), identity, strict=True))
    config["Swarm"]["RelayService"] = {"Enabled": True, "ConnectionDataLimit": 64 * MIB}
    config["Internal"] = (config.get("Internal") or {}) | {"Libp2pForceReachability": "public"}
    path.write_text(json.dumps(config))
    return str(config["Identity"]["PeerID"])


def main() -> None:
    directory, host, *identity = sys.argv[1:]
    kubo, repository = library(), directory.encode()
    kubo.ListPeersIDs.restype = kubo.FindPeer.restype = ctypes.c_char_p
    # What the library itself prints is no answer of ours.
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    check("CreateRepo", kubo.CreateRepo(repository))
    address = f"/ip4/{host}/tcp/{free_port()}"
    configure(Path(directory), [address])
    peer_id = complete(Path(directory), identity)
    check("RunNode", kubo.RunNode(repository))

    def connect(address: str) -> int:
        return int(kubo.ConnectToPeer(repository, address.encode()))

    def listen(protocol: str, port: int) -> int:
        return int(kubo.P2PListen(repository, protocol.encode(), tcp(port)))

    def forward(protocol: str, port: int, peer: str) -> int:
        return int(kubo.P2PForward(repository, protocol.encode(), tcp(port), peer.encode()))

    def peers() -> Any:
        return json.loads(kubo.ListPeersIDs(repository))

    def addresses(peer: str) -> Any:
        return json.loads(kubo.FindPeer(repository, peer.encode(), FIND_SECONDS))

    commands: dict[str, Callable[..., Any]] = {
        "connect": connect,
        "listen": listen,
        "forward": forward,
        "peers": peers,
        "addresses": addresses,
    }
    answers.write(json.dumps({"peer_id": peer_id, "address": address}) + "\n")
    for line in sys.stdin:
        request: dict[str, Any] = json.loads(line)
        number, command = request.pop("id"), request.pop("command")
        answers.write(json.dumps({"id": number, "result": commands[command](**request)}) + "\n")
    os._exit(0)


def tcp(port: int) -> bytes:
    return f"/ip4/127.0.0.1/tcp/{port}".encode()


if __name__ == "__main__":
    main()

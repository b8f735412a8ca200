"""A proxy pair with the test at both ends: the target is its own listener, the clients its own sockets."""

from __future__ import annotations

import contextlib
import hashlib
import socket
import struct
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from tests.integration.nodes import Node, free_port
from tests.integration.services import connect

SECONDS = 20.0


@dataclass
class Tunnel:
    """An egress proxy on ``client`` and its ingress proxy on ``server``, by their IDs.

    ``port`` is the egress's, ``target`` that of the service beside ``server``.
    """

    client: Node
    server: Node
    port: int
    target: int
    egress: int
    ingress: int

    def row(self, end: Node) -> dict[str, Any]:
        """What ``proxy show`` says of this node's end."""
        proxy_id = self.egress if end is self.client else self.ingress
        return dict(end.json("proxy", "show", str(proxy_id)))

    def watch(self, end: Node, **expected: object) -> dict[str, Any]:
        """The row of this node's end, as soon as its fields are as expected; AssertionError when never."""
        proxy_id = self.egress if end is self.client else self.ingress

        def find(rows: list[dict[str, Any]]) -> dict[str, Any] | None:
            return next((row for row in rows if row["id"] == proxy_id and row | expected == row), None)

        return (
            find(end.watch(["proxy", "ls", "--watch", "--json"], lambda rows: find(rows) is not None, 10))
            or {}
        )

    def await_idle(self, end: Node, seconds: float = 10) -> dict[str, Any]:
        """The row of this node's end once no connection lives there; a watch does not tell of counters."""
        deadline = time.monotonic() + seconds
        while (row := self.row(end))["connections"]:
            assert time.monotonic() < deadline, f"connections stay: {row}"
            time.sleep(0.05)
        return row

    def remove(self) -> None:
        """Remove both ends; an end that is gone already is fine."""
        self.client.ctl("proxy", "rm", str(self.egress), check=False)
        self.server.ctl("proxy", "rm", str(self.ingress), check=False)


def open_tunnel(client: Node, server: Node, target: int) -> Tunnel:
    """Make both ends, by hivectl."""
    port = free_port()
    ingress = server.json("proxy", "add", "ingress", f"{client.peer_id}:{port}", str(target))
    egress = client.json(
        "proxy", "add", "egress", str(port), f"{server.peer_id}:{target}", "--bind", "127.0.0.1"
    )
    return Tunnel(client, server, port, target, egress["id"], ingress["id"])


@contextlib.contextmanager
def tunnel(client: Node, server: Node, target: int) -> Iterator[Tunnel]:
    """A tunnel that is removed in the end."""
    made = open_tunnel(client, server, target)
    try:
        yield made
    finally:
        made.remove()


@dataclass
class Ends:
    """A tunnel to a listener of the test's own, which accepts when the test says so."""

    tunnel: Tunnel
    listener: socket.socket

    def dial(self) -> tuple[socket.socket, socket.socket]:
        """A connection through the tunnel: the client's socket and the server's."""
        client = connect(self.tunnel.port, SECONDS)
        try:
            server, _ = self.listener.accept()
        except BaseException:
            client.close()
            raise
        server.settimeout(SECONDS)
        return client, server

    @contextlib.contextmanager
    def connection(self) -> Iterator[tuple[socket.socket, socket.socket]]:
        """A connection whose sockets are closed in the end."""
        client, server = self.dial()
        with client, server:
            yield client, server


@contextlib.contextmanager
def ends(client: Node, server: Node) -> Iterator[Ends]:
    """A tunnel and a listener behind it."""
    with socket.create_server(("127.0.0.1", 0), backlog=512) as listener:
        listener.settimeout(SECONDS)
        with tunnel(client, server, listener.getsockname()[1]) as made:
            yield Ends(made, listener)


def reset(connection: socket.socket) -> None:
    """Close a connection with RST, as a crash of its owner would."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()


def ending(connection: socket.socket) -> str:
    """How a connection ends for its reader: "end" or "reset"; TimeoutError when it does not."""
    try:
        while connection.recv(65536):
            pass
    except ConnectionResetError:
        return "reset"
    return "end"


def ending_of(port: int) -> str:
    """How a new connection ends that is not let through; the reset may come while it is made."""
    try:
        with connect(port, SECONDS) as client:
            return ending(client)
    except ConnectionResetError:
        return "reset"


def digest_of(connection: socket.socket) -> str:
    """SHA-256 of all that comes until the end."""
    found = hashlib.sha256()
    while data := connection.recv(262144):
        found.update(data)
    return found.hexdigest()


def answers(port: int, seconds: float) -> float:
    """Connect anew until an echo service answers through ``port``; how long that took, in seconds.

    A connection that was accepted by hived is given all the time that is left, so that this is
    about hived's patience, not about the test's.
    """
    start = time.monotonic()
    while (left := start + seconds - time.monotonic()) > 0:
        with contextlib.suppress(OSError), connect(port, left) as client:
            client.sendall(b"are you there?")
            if client.recv(64) == b"are you there?":
                return time.monotonic() - start
        time.sleep(0.05)
    raise AssertionError(f"no answer through port {port} within {seconds} s")

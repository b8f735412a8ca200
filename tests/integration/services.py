"""Small real TCP services for tests."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field


@dataclass
class Service:
    """A listener on loopback that hands each connection to a function in a thread."""

    serve: Callable[[socket.socket], None]
    server: socket.socket = field(default_factory=lambda: socket.create_server(("127.0.0.1", 0), backlog=512))
    _threads: list[threading.Thread] = field(default_factory=list)

    @property
    def port(self) -> int:
        return int(self.server.getsockname()[1])

    def start(self) -> None:
        def accept() -> None:
            while True:
                try:
                    connection, _ = self.server.accept()
                except OSError:
                    return
                thread = threading.Thread(target=self._guard, args=(connection,), daemon=True)
                thread.start()

        thread = threading.Thread(target=accept, daemon=True)
        thread.start()
        self._threads.append(thread)

    def _guard(self, connection: socket.socket) -> None:
        with connection, contextlib.suppress(OSError):
            self.serve(connection)

    def close(self) -> None:
        # shutdown() wakes the thread that blocks in accept(); close() alone does not.
        with contextlib.suppress(OSError):
            self.server.shutdown(socket.SHUT_RDWR)
        self.server.close()
        for thread in self._threads:
            thread.join(5)


@contextlib.contextmanager
def service(serve: Callable[[socket.socket], None], server: socket.socket | None = None) -> Iterator[Service]:
    running = Service(serve) if server is None else Service(serve, server)
    running.start()
    try:
        yield running
    finally:
        running.close()


def echo(connection: socket.socket) -> None:
    """Send back what comes, until the end; then end too."""
    while data := connection.recv(65536):
        connection.sendall(data)
    connection.shutdown(socket.SHUT_WR)


def receive_all(connection: socket.socket) -> bytes:
    parts = []
    while data := connection.recv(262144):
        parts.append(data)
    return b"".join(parts)


def receive_exactly(connection: socket.socket, count: int) -> bytes:
    data = bytearray()
    while len(data) < count:
        part = connection.recv(count - len(data))
        if not part:
            raise AssertionError(f"the connection ended after {len(data)} of {count} bytes")
        data += part
    return bytes(data)


def connect(port: int, seconds: float = 20.0) -> socket.socket:
    return socket.create_connection(("127.0.0.1", port), timeout=seconds)

"""HTTP on hived's Unix socket by hand: for what a well-behaved client never sends."""

from __future__ import annotations

import json
import socket
import time
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any

import psutil

from tests.integration.nodes import Node


@dataclass(frozen=True)
class Answer:
    """``status`` is 0 where the connection ended instead of an answer."""

    status: int
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""

    def json(self) -> Any:
        return json.loads(self.body)


GONE = Answer(0)


class Client:
    """One connection to the socket of a node."""

    def __init__(self, path: Path, seconds: float = 20.0) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(seconds)
        self.sock.connect(str(path))
        self._file = self.sock.makefile("rb")

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        self._file.close()
        self.sock.close()

    def send(self, data: bytes) -> None:
        self.sock.sendall(data)

    def answer(self, *, has_body: bool = True) -> Answer:
        """The next answer; GONE when the connection ends before one."""
        try:
            head = self._file.readline()
        except ConnectionError:
            return GONE
        if not head:
            return GONE
        headers = {}
        while entry := self._file.readline().strip():
            name, _, value = entry.decode("latin-1").partition(":")
            headers[name.lower()] = value.strip()
        length = int(headers.get("content-length", 0)) if has_body else 0
        return Answer(int(head.split()[1]), headers, self._file.read(length))

    def line(self) -> bytes:
        """One line of whatever comes."""
        return self._file.readline()

    def at_end(self) -> bool:
        """Whether nothing more comes: the other end has closed."""
        try:
            return self._file.read(1) == b""
        except ConnectionError:
            return True

    def call(self, method: str, path: str, body: bytes = b"", **headers: str) -> Answer:
        """A well-formed call on a connection that stays open."""
        more = "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in headers.items())
        self.send(request(method, path, body, more))
        return self.answer()


def request(method: str, path: str, body: bytes = b"", more: str = "") -> bytes:
    length = f"Content-Length: {len(body)}\r\n" if body else ""
    return f"{method} {path} HTTP/1.1\r\nHost: hive\r\n{length}{more}\r\n".encode() + body


def call(path: Path, method: str, target: str, body: Any = None, token: str | None = None) -> Answer:
    """One call on a connection of its own."""
    data = b"" if body is None else json.dumps(body).encode()
    with Client(path) as client:
        return client.call(method, target, data, **({"Authorization": f"Bearer {token}"} if token else {}))


def state(node: Node) -> dict[str, Any]:
    """All that a call may change, as the API tells it."""
    found = {
        path: call(node.socket, "GET", path).json()
        for path in ("/v1/status", "/v1/networks", "/v1/nodes", "/v1/proxies", "/v1/admins", "/v1/sessions")
    }
    # Time alone changes these.
    del found["/v1/status"]["uptime"], found["/v1/status"]["reachability"]
    for row in found["/v1/nodes"]:
        del row["latest_contact"], row["rtt_ms"]
    return found


def open_files(node: Node) -> int:
    assert node.process is not None
    return int(psutil.Process(node.process.pid).num_fds())


def await_open_files(node: Node, most: int, seconds: float = 5.0) -> None:
    """Wait until a node has at most so many files open: nothing tells of that, so it is looked at."""
    deadline = time.monotonic() + seconds
    while (now := open_files(node)) > most:
        assert time.monotonic() < deadline, f"{now} files are open, {most} were before"
        time.sleep(0.05)

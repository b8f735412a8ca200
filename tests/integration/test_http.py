"""HTTP through a proxy pair, with curl: pages, big bodies both ways, keep-alive, events as they happen."""

from __future__ import annotations

import hashlib
import random
import subprocess
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from tests.integration.nodes import Node
from tests.integration.tunnels import tunnel

pytestmark = pytest.mark.requires("curl")

MIB = 1024 * 1024
PAGE = b"<h1>served beside beta</h1>\n"
WAIT_SECONDS = 20.0


def blob(size: int) -> Iterator[bytes]:
    """The same ``size`` random bytes each time, in pieces."""
    rng = random.Random(size)
    for _ in range(size // MIB):
        yield rng.randbytes(MIB)


def digest(parts: Iterator[bytes]) -> str:
    found = hashlib.sha256()
    for part in parts:
        found.update(part)
    return found.hexdigest()


class Site(ThreadingHTTPServer):
    """The web server beside beta. ``acknowledged`` lets the event stream end."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Pages)
        self.acknowledged = threading.Event()
        self.sent: list[str] = []


class Pages(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Site

    def log_message(self, format: str, *args: object) -> None:
        """Quiet."""

    def _head(self, length: int | None, kind: str = "application/octet-stream") -> None:
        self.send_response(200)
        self.send_header("Content-Type", kind)
        if length is None:
            self.send_header("Connection", "close")
        else:
            self.send_header("Content-Length", str(length))
        self.end_headers()

    def do_GET(self) -> None:
        if self.path == "/events":
            self._head(None, "text/event-stream")
            self._event("first")
            if self.server.acknowledged.wait(WAIT_SECONDS):
                self._event("last")
        elif self.path.startswith("/blob/"):
            size = int(self.path.rsplit("/", 1)[1]) * MIB
            self._head(size)
            for part in blob(size):
                self.wfile.write(part)
        else:
            self._head(len(PAGE), "text/html")
            self.wfile.write(PAGE)

    def _event(self, text: str) -> None:
        self.server.sent.append(text)
        self.wfile.write(f"data: {text}\n\n".encode())

    def do_POST(self) -> None:
        found, left = hashlib.sha256(), int(self.headers["Content-Length"])
        while left:
            part = self.rfile.read(min(left, MIB))
            found.update(part)
            left -= len(part)
        answer = found.hexdigest().encode()
        self._head(len(answer), "text/plain")
        self.wfile.write(answer)


@pytest.fixture(scope="module")
def site() -> Iterator[Site]:
    with Site() as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture(scope="module")
def url(pair: tuple[Node, Node], site: Site) -> Iterator[str]:
    """Where the site appears beside alpha."""
    with tunnel(*pair, site.server_address[1]) as made:
        yield f"http://127.0.0.1:{made.port}"


CURL = ["curl", "--silent", "--show-error", "--fail", "--noproxy", "*", "--max-time", "100"]


def curl(*arguments: str) -> bytes:
    return subprocess.run([*CURL, *arguments], check=True, capture_output=True).stdout


def test_a_page(url: str) -> None:
    """The page arrives as it is."""
    assert curl(url + "/") == PAGE


def test_keep_alive(url: str) -> None:
    """Several requests share one connection."""
    out = curl("--write-out", "connections %{num_connects}\\n", url + "/", url + "/", url + "/")
    assert out == PAGE + b"connections 1\n" + 2 * (PAGE + b"connections 0\n")


@pytest.mark.parametrize("size", [10, pytest.param(100, marks=pytest.mark.full)])
def test_a_download(url: str, tmp_path: Path, size: int) -> None:
    """A body of so many MiB arrives with its checksum."""
    curl("--output", str(tmp_path / "blob"), f"{url}/blob/{size}")
    assert hashlib.sha256((tmp_path / "blob").read_bytes()).hexdigest() == digest(blob(size * MIB))


@pytest.mark.parametrize("size", [10, pytest.param(100, marks=pytest.mark.full)])
def test_an_upload(url: str, tmp_path: Path, size: int) -> None:
    """A POST of so many MiB; curl waits for the server's "100 Continue" before it sends the body."""
    with (tmp_path / "blob").open("wb") as file:
        file.writelines(blob(size * MIB))
    sent = curl("--data-binary", f"@{tmp_path / 'blob'}", "--header", "Expect: 100-continue", url + "/sum")
    assert sent.decode() == digest(blob(size * MIB))


def test_events_arrive_as_they_are_sent(url: str, site: Site) -> None:
    """The first server-sent event is here before the last is sent: that one waits for our word, given
    past the proxy, that the first has arrived."""
    with subprocess.Popen([*CURL, "--no-buffer", url + "/events"], stdout=subprocess.PIPE) as client:
        assert client.stdout is not None
        assert client.stdout.readline() == b"data: first\n"
        assert site.sent == ["first"]
        site.acknowledged.set()
        assert client.stdout.read() == b"\ndata: last\n\n"
    assert client.returncode == 0

"""Real hived processes in a lab, driven by hivectl."""

from __future__ import annotations

import http.server
import threading
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from tests.integration.nodes import Node, join, proxy
from tests.netns.host import Host, LanHost
from tests.netns.lab import Lab
from tests.netns.node import PORT
from tests.netns.probes import expect

pytestmark = pytest.mark.requires("natlab")
NETWORK = "my-network"


class Page(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        body = f"you asked for {self.path}".encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def web(host: Host) -> Iterator[int]:
    """A web server on a machine's loopback; its port."""
    server = host.call(lambda: http.server.ThreadingHTTPServer(("127.0.0.1", 0), Page))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield server.server_port
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def fetch(host: Host, url: str, seconds: float = 20) -> str:
    def within() -> str:
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(url, timeout=seconds) as answer:
            return str(answer.read().decode())

    return host.call(within)


@contextmanager
def page(lab: Lab) -> Iterator[tuple[LanHost, Node, Node, Callable[[], str]]]:
    """A node behind a NAT, one outside in the same network, and how to fetch, outside, the page within."""
    home = lab.lan("home", "prc", delay_ms=10)
    pub, a = lab.public("pub"), home.host("a")
    near, far = lab.nodes(pub, a)
    join(NETWORK, near, far)
    with web(a) as port:
        door = proxy(near, far, port)
        yield a, near, far, lambda: fetch(pub, f"http://127.0.0.1:{door}/page")


def test_a_page_from_behind_a_nat(lab: Lab) -> None:
    """The node there dialled out; what the public one forwards comes back on that connection."""
    with page(lab) as (a, _, _, get):
        assert get() == "you asked for /page"
        # There is no other way in.
        expect("silence", lab.hosts["pub"], (a.public, PORT))


@pytest.mark.full
def test_a_page_after_a_night(lab: Lab) -> None:
    """The home has got another public address, and nobody has been told."""
    with page(lab) as (a, near, far, get):
        address = a.router.readdress()
        # It may be back before it was missed here.
        near.log.wait_for(f"name={far.name} remote=/ip4/{address}/", 60)
        assert get() == "you asked for /page"

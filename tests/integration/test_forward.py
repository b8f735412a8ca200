"""``hivectl forward``: a tunnel for as long as the command runs."""

from __future__ import annotations

import contextlib
import json
import signal
import socket
import subprocess
from collections.abc import Iterator

import pytest

from tests.integration.nodes import BIN, LogReader, Node, free_port
from tests.integration.services import Service, connect, echo, receive_all, receive_exactly, service
from tests.integration.tunnels import ending, ending_of


@pytest.fixture(scope="module")
def target() -> Iterator[Service]:
    with service(echo) as running:
        yield running


class Forward:
    """A running ``hivectl forward``."""

    def __init__(self, node: Node, *arguments: str) -> None:
        self.process = subprocess.Popen(
            [str(BIN / "hivectl"), "--socket", str(node.socket), "forward", *arguments],
            env=node.env,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.log = LogReader(node.directory / "forward.log")
        self._reader = self.log.follow(self.process)

    def ready(self) -> None:
        self.log.wait_for("goes to", 10, alive=lambda: self.process.poll() is None)

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        self._reader.join()
        for pipe in (self.process.stdout, self.process.stderr):
            if pipe is not None:
                pipe.close()


@contextlib.contextmanager
def forward(node: Node, *arguments: str) -> Iterator[Forward]:
    running = Forward(node, *arguments)
    try:
        yield running
    finally:
        running.close()


@contextlib.contextmanager
def ingress(pair: tuple[Node, Node], local: int, port: int) -> Iterator[None]:
    """Leave for alpha's port ``local`` to reach beta's ``port``."""
    alpha, beta = pair
    row = beta.json("proxy", "add", "ingress", f"{alpha.peer_id}:{local}", str(port))
    try:
        yield
    finally:
        beta.ctl("proxy", "rm", str(row["id"]))


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGKILL, -signal.SIGKILL)])
def test_it_lives_as_long_as_the_command(
    pair: tuple[Node, Node], target: Service, number: signal.Signals, code: int
) -> None:
    """Connections go through while it runs; with it end the live ones, and the port is free."""
    local = free_port()
    with (
        ingress(pair, local, target.port),
        forward(pair[0], f"beta:{target.port}", str(local)) as running,
    ):
        running.ready()
        with connect(local) as client:
            client.sendall(b"through")
            client.shutdown(socket.SHUT_WR)
            assert receive_all(client) == b"through"
        assert pair[0].json("proxy", "ls") == []
        with connect(local) as live:
            live.sendall(b"live")
            assert receive_exactly(live, 4) == b"live"
            running.process.send_signal(number)
            assert running.process.wait(5) == code
            assert ending(live) == "reset"
        # hived learns of a killed command by its socket; the reset above came after the listener's end.
        with pytest.raises(ConnectionRefusedError):
            connect(local)
        with socket.create_server(("127.0.0.1", local)):
            pass


def test_the_local_port_may_be_left_out(pair: tuple[Node, Node], target: Service) -> None:
    """LOCALPORT is PORT then; here that one is taken by the target, which is a conflict in one line."""
    result = pair[0].ctl("forward", f"beta:{target.port}", check=False)
    assert result.code == 6
    assert result.out == ""
    assert result.err.count("\n") == 1
    assert f"port {target.port} is taken" in result.err


def test_it_listens_on_loopback_only(pair: tuple[Node, Node], target: Service) -> None:
    """What was opened for oneself is not open to the network; --json says where it listens."""
    local = free_port()
    with forward(pair[0], f"beta:{target.port}", str(local), "--json") as running:
        assert running.process.stdout is not None
        event = json.loads(running.process.stdout.readline())
        assert (event["event"], event["bind"], event["port"]) == ("listening", "127.0.0.1", local)
        with pytest.raises(ConnectionRefusedError):
            # All of 127/8 is this machine: a listener on all addresses would answer.
            socket.create_connection(("127.0.0.2", local), 5)


def test_a_missing_ingress_is_said(pair: tuple[Node, Node], target: Service) -> None:
    """The connection is reset, the reason is a line, and the command goes on and works once it is there."""
    local = free_port()
    with forward(pair[0], f"beta:{target.port}", str(local)) as running:
        running.ready()
        assert ending_of(local) == "reset"
        line = running.log.wait_for("failed", 5)
        assert line.startswith("hivectl: ")
        assert "no ingress proxy" in line
        with ingress(pair, local, target.port), connect(local) as client:
            client.sendall(b"now")
            assert receive_exactly(client, 3) == b"now"
        assert running.process.poll() is None


@pytest.mark.parametrize(
    ("arguments", "code"),
    [(("nobody:80",), 5), (("beta:0",), 2), (("beta:65536",), 2), (("beta",), 2), (("beta:80", "x"), 2)],
)
def test_bad_input_is_one_line(pair: tuple[Node, Node], arguments: tuple[str, ...], code: int) -> None:
    """A clear line and the right exit code; it does not start."""
    result = pair[0].ctl("forward", *arguments, check=False)
    assert (result.code, result.out, result.err.count("\n")) == (code, "", 1)

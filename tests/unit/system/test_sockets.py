"""Sockets handed over at start, kept for the next one."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from hived.system.notify import Notifier
from hived.system.sockets import Sockets, handed_over
from tests.unit.system.manager import ServiceManager, service_manager

# As a service manager starts a service: descriptors from 3 on, and the process's own number.
_START = (
    "set -e; {moves} export LISTEN_PID=$$ LISTEN_FDS={count} LISTEN_FDNAMES={names};"
    " exec {python} -c '{code}'"
)


def _service(code: str, handed: list[tuple[str, socket.socket]]) -> str:
    """What a program prints that is started with these sockets."""
    moves = "".join(f"exec {100 + n}<&{sock.fileno()}; " for n, (_, sock) in enumerate(handed))
    moves += "".join(f"exec {3 + n}<&{100 + n}; " for n in range(len(handed)))
    script = _START.format(
        moves=moves,
        count=len(handed),
        names=":".join(name for name, _ in handed),
        python=sys.executable,
        code=code,
    )
    done = subprocess.run(
        ["bash", "-c", script],
        pass_fds=[sock.fileno() for _, sock in handed],
        env={**os.environ, "PYTHONPATH": os.getcwd()},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


_LEAD = (
    "from hived.system.notify import Notifier; from hived.system.sockets import Sockets, handed_over;"
    " s = Sockets(Notifier(), handed_over()); "
)


def test_each_is_found_by_its_name(tmp_path: Path) -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as overlay,
        socket.create_server(("::1", 0), family=socket.AF_INET6) as egress,
        socket.create_server(("127.0.0.1", 0)) as web,
        socket.socket(socket.AF_UNIX) as control,
    ):
        control.bind(str(tmp_path / "control"))
        control.listen()
        ports = [sock.getsockname()[1] for sock in (overlay, egress, web)]
        said = _service(
            _LEAD + "print(s.control().getsockname(),"
            f' s.take("overlay", "127.0.0.1", {ports[0]}).getsockname(),'
            f' s.take("egress", "::1", {ports[1]}).getsockname()[:2], s.given("127.0.0.1", {ports[2]}),'
            f' s.given(None, {ports[2]}), s.take("egress", "127.0.0.1", {ports[0]}), s.has_control)',
            [
                ("control", control),
                (f"overlay_127.0.0.1_{ports[0]}", overlay),
                (f"egress_--1_{ports[1]}", egress),
                ("web", web),
            ],
        )
        assert said.startswith(f"{tmp_path}/control ('127.0.0.1', {ports[0]}) ('::1', {ports[1]}) [<socket")
        # On all addresses is another wish than on one.
        assert said.endswith("[] None True\n")


def test_no_copy_makes_the_others_wait() -> None:
    """All copies share one file: while it were blocking, whoever accepts at another copy could hang."""
    with socket.create_server(("127.0.0.1", 0)) as web:
        sockets = Sockets(Notifier(), [("web", web)])
        watched = web.fileno()
        assert not os.get_blocking(watched)
        for copy in (*sockets.opened(), *sockets.given("127.0.0.1", web.getsockname()[1])):
            assert copy.gettimeout() == 0
            copy.close()
        # dup() sets on the copy what the original is set to.
        assert web.gettimeout() == 0


def test_what_is_no_listener_is_no_port() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        assert Sockets(Notifier(), [("web", sock)]).opened() == []


def test_what_is_none_of_ours_is_let_go() -> None:
    with socket.create_server(("127.0.0.1", 0)) as stranger, open(os.devnull) as nothing:
        file = socket.socket(fileno=os.dup(stranger.fileno()))
        os.dup2(nothing.fileno(), file.fileno())
        said = _service(
            _LEAD + "import os; print(s.has_control,"
            ' os.path.exists("/proc/self/fd/4"), os.environ.get("LISTEN_FDS"))',
            [("stranger", stranger), ("file", file)],
        )
        assert said == "False False None\n"
        os.close(file.detach())


def test_those_of_another_process_are_not_touched(monkeypatch: pytest.MonkeyPatch) -> None:
    """LISTEN_PID of a parent that passed its environment on."""
    monkeypatch.setenv("LISTEN_PID", "1")
    monkeypatch.setenv("LISTEN_FDS", "1")
    assert list(handed_over()) == []
    assert "LISTEN_FDS" not in os.environ


@pytest.fixture
def manager(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ServiceManager]:
    with service_manager(tmp_path, monkeypatch) as made:
        yield made


@dataclass
class Kept:
    """A listener that the service manager alone keeps: its port, and the manager's copy of it."""

    sockets: Sockets
    port: int
    copy: socket.socket


@pytest.fixture
def kept(manager: ServiceManager) -> Iterator[Kept]:
    sockets = Sockets(Notifier())
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        sockets.keep("egress", "127.0.0.1", port, listener)
        said, (copy,) = manager.hears()
    assert said == f"FDSTORE=1\nFDNAME=egress_127.0.0.1_{port}"
    with socket.socket(fileno=copy) as held:
        yield Kept(sockets, port, held)


def test_a_node_that_starts_anew_finds_its_listeners(manager: ServiceManager, kept: Kept) -> None:
    with socket.create_connection(("127.0.0.1", kept.port)) as client:
        kept.sockets.begin()
        again = kept.sockets.take("egress", "127.0.0.1", kept.port)
        assert again is not None
        kept.sockets.sweep()
        again.setblocking(True)
        with again, again.accept()[0] as accepted:
            assert accepted.getpeername() == client.getsockname()
            # To keep it once more is nothing new.
            kept.sockets.keep("egress", "127.0.0.1", kept.port, again)
            assert manager.heard_nothing()


def test_what_no_node_takes_is_swept(manager: ServiceManager, kept: Kept) -> None:
    kept.sockets.begin()
    kept.sockets.sweep()
    assert manager.hears()[0] == f"FDSTOREREMOVE=1\nFDNAME=egress_127.0.0.1_{kept.port}"
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", kept.port))


def test_dropped_is_refused_at_once_whoever_holds_a_copy(kept: Kept) -> None:
    """The service manager lets go of its copy in its own time."""
    kept.sockets.drop("egress", "127.0.0.1", kept.port)
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", kept.port))
    # And the port is free for another one of ours, also while that copy is there.
    socket.create_server(("127.0.0.1", kept.port)).close()


def test_a_kept_socket_that_does_not_listen_is_not_taken(manager: ServiceManager, kept: Kept) -> None:
    kept.copy.shutdown(socket.SHUT_RDWR)
    assert kept.sockets.take("egress", "127.0.0.1", kept.port) is None
    assert manager.hears()[0].startswith("FDSTOREREMOVE=1")


def test_without_a_manager_nothing_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    sockets = Sockets(Notifier())
    with socket.create_server(("127.0.0.1", 0)) as listener:
        sockets.keep("egress", "127.0.0.1", listener.getsockname()[1], listener)
        assert sockets.take("egress", "127.0.0.1", listener.getsockname()[1]) is None


def test_what_is_configured_no_more_goes_before_anything_is_bound(kept: Kept) -> None:
    """It would be in the way of another address on the same port."""
    kept.sockets.retain("egress", [("127.0.0.1", kept.port)])
    assert kept.sockets.take("egress", "127.0.0.1", kept.port)
    kept.sockets.retain("egress", [("0.0.0.0", kept.port)])
    assert kept.sockets.take("egress", "127.0.0.1", kept.port) is None
    socket.create_server(("0.0.0.0", kept.port)).close()

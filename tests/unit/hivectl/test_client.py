"""HTTP over a Unix socket: what comes through, and what each failure means."""

from __future__ import annotations

import errno
import socket
import threading
from pathlib import Path

import pytest

from hivectl.client import SYSTEM_SOCKET, Connection, connect_error, problem, segment, socket_path
from hived.errors import HiveError, Kind
from tests.unit.hivectl.server import REMOTE, Answer, Server
from tests.unit.hivectl.server import problem as problem_answer


def test_a_request_and_its_answer(hived: Server) -> None:
    hived.document("PUT /v1/name", {"note": "ä"})
    raw = Connection(str(hived.path)).request("PUT", "/v1/name", b'{"name": "x"}', "token")
    assert raw == b'{"note": "\\u00e4"}'
    asked = hived.asked[-1]
    assert (asked.call, asked.body, asked.token) == ("PUT /v1/name", {"name": "x"}, "token")


def test_it_is_said_when_nobody_answers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """systemd listens while hived cannot start: the request waits, and the person is told."""
    monkeypatch.setattr("hivectl.client.PATIENCE", 0.1)
    monkeypatch.setattr("hivectl.client.ANSWER_TIMEOUT", 2.0)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "socket"))
        listener.listen()
        with pytest.raises(HiveError, match="did not answer"):
            Connection(str(tmp_path / "socket")).request("GET", "/v1/status")
    assert "systemctl status hived" in capfd.readouterr().err


def test_a_call_that_takes_long_is_no_reason_for_that(
    hived: Server, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("hivectl.client.PATIENCE", 0.1)
    hived.answer("POST /v1/networks", Answer(document={}, after_info=True))
    Connection(str(hived.path)).request("POST", "/v1/networks", b"{}")
    for thread in threading.enumerate():
        if isinstance(thread, threading.Timer):
            thread.join()
    assert hived.asked_info.is_set()
    # The server may complain that who only looked did not read all.
    assert "systemctl status hived" not in capfd.readouterr().err


def test_an_answer_without_a_problem_document(hived: Server) -> None:
    hived.answer("GET /v1/nodes", Answer(raw=b"<html>", status=404))
    with pytest.raises(HiveError) as caught:
        Connection(str(hived.path)).request("GET", "/v1/nodes")
    assert caught.value.kind is Kind.NOT_FOUND
    assert caught.value.line() == "the request failed: hived answered with status 404 and no reason."


def test_a_kind_from_a_later_version_is_a_failure() -> None:
    error = problem(b'{"title": "t", "kind": "later"}', 409)
    assert error is not None
    assert error.kind is Kind.FAILED


@pytest.mark.parametrize("body", [b"", b"[]", b"{}", b'{"title": 1}', b"\xff"])
def test_what_is_no_problem_document(body: bytes) -> None:
    assert problem(body) is None


def test_lines_come_one_by_one(hived: Server) -> None:
    hived.answer("GET /v1/nodes", Answer(lines=[[1], [2]]))
    lines = Connection(str(hived.path)).lines("GET", "/v1/nodes?watch=true")
    assert list(lines) == [b"[1]", b"[2]"]
    assert hived.asked[-1].query == {"watch": "true"}


def test_the_failure_of_a_stream_comes_before_its_first_line(hived: Server) -> None:
    hived.answer("GET /v1/nodes", problem_answer("denied", 403, "no"))
    with pytest.raises(HiveError, match=r"^no\.$"):
        Connection(str(hived.path)).lines("GET", "/v1/nodes")


def test_a_tunnel_carries_the_next_request_to_the_other_node(hived: Server) -> None:
    hived.document("GET /v1/nodes", [5], peer=REMOTE)
    connection = Connection(str(hived.path))
    assert connection.tunnel("far", "local-token") == REMOTE
    assert connection.request("GET", "/v1/nodes", None, "remote-token") == b"[5]"
    opened, asked = hived.asked
    assert (opened.call, opened.token) == ("POST /v1/tunnel/far", "local-token")
    assert (asked.peer, asked.token) == (REMOTE, "remote-token")


def test_a_tunnel_that_is_refused(hived: Server) -> None:
    with pytest.raises(HiveError) as caught:
        Connection(str(hived.path)).tunnel("gone", None)
    assert caught.value.kind is Kind.UNREACHABLE


def test_an_upgrade_that_hived_does_not_know(hived: Server) -> None:
    hived.document("POST /v1/tunnel/far", {})
    with pytest.raises(HiveError, match="hived opened no tunnel"):
        Connection(str(hived.path)).tunnel("far", None)


def test_node_names_are_quoted(hived: Server) -> None:
    assert segment("a/b?c~d e") == "a%2Fb%3Fc~d%20e"
    hived.names["a/b?c~d e"] = REMOTE
    assert Connection(str(hived.path)).tunnel("a/b?c~d e", None) == REMOTE


def _one_answer(path: Path, answer: bytes) -> threading.Thread:
    """A socket that reads one request, sends these bytes, and closes."""
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(path))
    listener.listen()

    def serve() -> None:
        with listener, listener.accept()[0] as sock:
            sock.recv(65536)
            sock.sendall(answer)

    thread = threading.Thread(target=serve)
    thread.start()
    return thread


@pytest.mark.parametrize(
    ("answer", "kind", "why"),
    [
        (b"", Kind.NO_DAEMON, "it closed the connection"),
        (b"SSH-2.0-OpenSSH\r\n", Kind.NO_DAEMON, "something that is not hived's API"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{}", Kind.NO_DAEMON, "not hived's API"),
    ],
)
def test_a_connection_that_breaks(home: Path, answer: bytes, kind: Kind, why: str) -> None:
    thread = _one_answer(home / "s", answer)
    with pytest.raises(HiveError) as caught:
        Connection(str(home / "s")).request("GET", "/v1/info")
    thread.join()
    assert caught.value.kind is kind
    assert why in caught.value.line()


def test_a_tunnel_that_breaks_is_the_other_node_unreachable(home: Path) -> None:
    head = f"HTTP/1.1 101 Switching Protocols\r\nHive-Peer: {REMOTE}\r\n\r\n"
    thread = _one_answer(home / "s", head.encode())
    connection = Connection(str(home / "s"))
    assert connection.tunnel("far", None) == REMOTE
    thread.join()
    with pytest.raises(HiveError) as caught:
        connection.request("GET", "/v1/nodes")
    assert caught.value.kind is Kind.UNREACHABLE
    assert REMOTE in caught.value.line()


def test_nobody_listens(home: Path) -> None:
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(str(home / "s"))
    with pytest.raises(HiveError) as caught:
        Connection(str(home / "s"))
    assert caught.value.kind is Kind.NO_DAEMON
    assert f"nobody listens on {home}/s. Start it" in caught.value.line()


def test_a_path_too_long_for_a_socket(home: Path) -> None:
    with pytest.raises(HiveError) as caught:
        Connection(str(home / ("x" * 200)))
    assert caught.value.kind is Kind.USAGE
    assert "Name another with --socket" in caught.value.line()


@pytest.mark.parametrize(
    ("error", "kind", "why"),
    [
        (PermissionError(errno.EACCES, "denied"), Kind.DENIED, "you may not open /proc/1/status. Use sudo."),
        (BlockingIOError(errno.EAGAIN, "busy"), Kind.NO_DAEMON, "hived does not answer on"),
        (TimeoutError("slow"), Kind.NO_DAEMON, "hived does not answer on"),
        (NotADirectoryError(errno.ENOTDIR, "no"), Kind.NO_DAEMON, "there is no socket"),
        (OSError(errno.EPROTOTYPE, "Wrong type"), Kind.NO_DAEMON, "Wrong type"),
    ],
)
def test_why_a_socket_does_not_open(error: OSError, kind: Kind, why: str) -> None:
    told = connect_error("/proc/1/status", error)
    assert told.kind is kind
    assert why in told.line()


def test_the_group_of_what_is_not_there_is_hives() -> None:
    told = connect_error("/nowhere/at/all", PermissionError(errno.EACCES, "denied"))
    assert "usermod -aG hive $USER" in told.line()


def test_whose_own_hived_is_down_is_not_sent_to_the_machines(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(home))
    refused = PermissionError(errno.EACCES, "denied")
    assert "usermod" in connect_error(SYSTEM_SOCKET, refused).line()
    (home / "hive").mkdir()
    (home / "hive" / "hive.db").touch()
    told = connect_error(SYSTEM_SOCKET, refused)
    assert told.kind is Kind.DENIED
    assert told.line().endswith(
        f"your own hived ({home}/hive) does not run. See: systemctl --user status hived."
    )


def test_which_socket(home: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("HIVE_SOCKET", "/from/env")
    assert socket_path("/named") == "/named"
    assert socket_path(None) == "/from/env"
    monkeypatch.setenv("HIVE_SOCKET", "")
    monkeypatch.delenv("XDG_RUNTIME_DIR", raising=False)
    assert socket_path(None) == SYSTEM_SOCKET
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(home))
    assert socket_path(None) == SYSTEM_SOCKET
    monkeypatch.setattr("hivectl.client.SYSTEM_SOCKET", str(home / "system.sock"))
    own = home / "hive" / "control.sock"
    own.parent.mkdir()
    own.touch()
    assert socket_path(None) == str(own)
    (home / "system.sock").touch()
    assert socket_path(None) == str(home / "system.sock")
    # A person is told that there is another; a script's output has nothing of it.
    assert capfd.readouterr().err == ""
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    assert socket_path(None) == str(home / "system.sock")
    assert capfd.readouterr().err.endswith(f"your own is: --socket {own}\n")

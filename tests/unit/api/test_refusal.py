"""Clients of a hived that cannot start hear why, and none is left waiting."""

from __future__ import annotations

import contextlib
import json
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from hived.api import refusal
from hived.errors import usage

WHY = usage("reading hived.toml failed", "there is no setting named 'lisen'", "Correct it")
REQUEST = b"GET /v1/status HTTP/1.1\r\nHost: hive\r\n\r\n"


@pytest.fixture
def listener(tmp_path: Path) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
        sock.bind(str(tmp_path / "control.sock"))
        sock.listen(64)
        sock.setblocking(False)
        yield sock


def client(listener: socket.socket, sent: bytes) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    sock.settimeout(10)
    sock.connect(listener.getsockname())
    sock.sendall(sent)
    return sock


def rest(sock: socket.socket) -> bytes:
    received = b""
    with sock:
        while part := sock.recv(65536):
            received += part
    return received


def test_all_who_wait_hear_why(listener: socket.socket) -> None:
    clients = [client(listener, REQUEST) for _ in range(20)]
    refusal.refuse(listener, (), WHY)
    for sock in clients:
        head, _, body = rest(sock).partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 503 ")
        document = json.loads(body)
        assert (document["kind"], document["title"]) == ("no-daemon", "hived cannot start")
        assert document["detail"] == "reading hived.toml failed: there is no setting named 'lisen'"
        assert document["hint"] == "Correct it"


def test_who_comes_meanwhile_hears_it_too(listener: socket.socket) -> None:
    """So that a unit which starts hived for each of them does so seldom."""
    first, answers = client(listener, REQUEST), []

    def ask() -> None:
        for _ in range(5):
            answers.append(rest(client(listener, REQUEST)))

    asking = threading.Thread(target=ask)
    asking.start()
    refusal.refuse(listener, (), WHY)
    asking.join()
    assert [b"'lisen'" in answer for answer in [*answers, rest(first)]] == [True] * 6


def test_who_says_nothing_or_nonsense_holds_nobody_up(listener: socket.socket) -> None:
    client(listener, REQUEST).close()
    silent, wild = client(listener, b""), client(listener, b"\0" * 100_000)
    asking, malformed = client(listener, REQUEST), client(listener, b"\0\r\n\r\n")
    began = time.monotonic()
    refusal.refuse(listener, (), WHY)
    assert time.monotonic() - began < 10
    assert b"'lisen'" in rest(asking)
    assert b"'lisen'" in rest(malformed)
    for sock in (silent, wild):
        with contextlib.suppress(ConnectionResetError):
            rest(sock)


def test_visitors_of_other_ports_are_reset(listener: socket.socket) -> None:
    with socket.create_server(("127.0.0.1", 0)) as web:
        web.setblocking(False)
        with socket.create_connection(web.getsockname()) as visitor:
            refusal.refuse(listener, [web], WHY)
            with pytest.raises(ConnectionResetError):
                visitor.recv(1)


def test_where_nobody_waits_it_ends_at_once(listener: socket.socket) -> None:
    began = time.monotonic()
    refusal.refuse(listener, (), WHY)
    refusal.refuse(None, (), WHY)
    assert time.monotonic() - began < refusal.STAY_SECONDS

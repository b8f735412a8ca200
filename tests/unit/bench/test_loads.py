"""The load generator: it counts right, and what arrives wrong, late or not at all is an error."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from bench import loads
from bench.forwarders import Forwarder
from bench.loads import MIB, Loads, build, load
from bench.processes import BenchError, Processes, processes

Change = Callable[[bytes], bytes]


@pytest.fixture(scope="module")
def started(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Processes]:
    build()
    with processes(tmp_path_factory.mktemp("load") / "log") as found:
        yield found


@pytest.fixture(scope="module")
def port(started: Processes) -> int:
    return loads.target(started)


@contextlib.contextmanager
def between(port: int, there: Change = bytes, back: Change = bytes) -> Iterator[int]:
    """A forwarder that changes what it passes on; the port in front of it."""

    def copy(source: socket.socket, sink: socket.socket, change: Change) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(1 << 20):
                sink.sendall(change(data))
        for end in (source, sink):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def serve(near: socket.socket) -> None:
        with near, socket.create_connection(("127.0.0.1", port)) as far:
            ways = [(near, far, there), (far, near, back)]
            threads = [threading.Thread(target=copy, args=way) for way in ways]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()

    threads: list[threading.Thread] = []

    def accept() -> None:
        with contextlib.suppress(OSError):
            while True:
                threads.append(threading.Thread(target=serve, args=(listener.accept()[0],)))
                threads[-1].start()

    with socket.create_server(("127.0.0.1", 0)) as listener:
        accepting = threading.Thread(target=accept)
        accepting.start()
        try:
            yield listener.getsockname()[1]
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            accepting.join()
            for thread in threads:
                thread.join()


@pytest.mark.parametrize("way", ["up", "down"])
@pytest.mark.parametrize("connections", [1, 16])
def test_bulk_is_counted(port: int, way: str, connections: int) -> None:
    found = load(way, port, connections, 64 * MIB)
    # Whole blocks of 128 KiB on each connection.
    assert 64 * MIB <= found["bytes"] <= 64 * MIB + connections * 131072
    assert found["mb_s"] == pytest.approx(found["bytes"] / 1e6 / found["seconds"], rel=0.01)


def test_echoes_are_counted_and_sorted(port: int) -> None:
    found = load("echo", port, 500, 20)
    assert found["echoes"] == 500
    assert 0 < found["p50_us"] <= found["p99_us"] <= found["max_us"]
    assert not found["late"]


def test_an_echo_that_is_not_back_counts_with_the_time_it_had(port: int) -> None:
    passed: list[bytes] = []

    def swallow(data: bytes) -> bytes:
        # The first is the one beforehand.
        passed.append(data)
        return data if len(passed) < 3 else b""

    with between(port, there=swallow) as front:
        found = load("echo", front, 500, 0.4)
    assert found["late"] == 1
    assert 300_000 < found["max_us"] < 5_000_000


@pytest.mark.parametrize("way", ["up", "down"])
def test_echoes_beside_bulk(port: int, way: str) -> None:
    # So many that a block of each transfer has arrived meanwhile, however the turns fall.
    found = load(f"beside-{way}", port, 2000, 5, 4)
    assert 0 < found["echoes"] <= 2000
    assert found["bulk_mb_s"] > 0
    # The bulk came to its end, and all of it had arrived.
    assert found["drained"] == 1


def test_connections_are_counted(port: int) -> None:
    assert load("connect", port, 100, 20, 16)["connections"] == 100
    # The time is over before so many are made.
    assert 0 < load("connect", port, 10_000_000, 0.1, 4)["connections"] < 10_000_000


def test_a_wrong_reply_is_found(port: int) -> None:
    def flip(data: bytes) -> bytes:
        return data[:-1] + bytes([data[-1] ^ 1])

    with between(port, back=flip) as front:
        with pytest.raises(BenchError, match="came back as something else"):
            load("echo", front, 10, 5)
        with pytest.raises(BenchError, match="got no right answer"):
            load("connect", front, 10, 5, 1)


def test_a_wrong_count_is_found(port: int) -> None:
    def fewer(data: bytes) -> bytes:
        # The target's answer to an upload is its count of bytes, little endian.
        return bytes([data[0], data[1], data[2] ^ 2, *data[3:]])

    with between(port, back=fewer) as front, pytest.raises(BenchError, match=r"of \d+ bytes \d+ arrived"):
        load("up", front, 1, 8 * MIB)


@pytest.mark.parametrize("way", ["up", "down"])
def test_a_broken_transfer_is_found(port: int, way: str) -> None:
    moved = 0

    def cut(data: bytes) -> bytes:
        nonlocal moved
        moved += len(data)
        if moved > 4 * MIB:
            raise ConnectionError("cut")
        return data

    with between(port, cut, cut) as front, pytest.raises(BenchError, match=f"{way}load broke|arrived"):
        load(way, front, 1, 64 * MIB)


def test_nobody_there(started: Processes) -> None:
    with pytest.raises(BenchError, match="cannot connect"):
        load("echo", 1, 1, 1)
    with pytest.raises(BenchError, match="a number is out of range"):
        load("up", 1, 1000, 1)


def test_idle_connections_are_held_and_asked_again(started: Processes) -> None:
    # One that has served nobody: it has a thread for each connection, whose memory it keeps for later ones.
    port = loads.target(started)
    found = Loads(idle=50).idle(Forwarder(port, near=(started.pids[-1],)), started)
    assert found["near_kib"] == found["worse_kib"] > 0
    assert "far_kib" not in found


def test_idle_connections_that_are_not_held_are_found(started: Processes, tmp_path: Path) -> None:
    with pytest.raises(BenchError, match="cannot connect"):
        Loads(idle=50).idle(Forwarder(1), started)

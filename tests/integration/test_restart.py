"""Any restart: kill -9 at any moment, SIGTERM with live connections, states that hived must not start on."""

from __future__ import annotations

import hashlib
import itertools
import random
import shutil
import socket
import sqlite3
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.integration.nodes import Node, connected
from tests.integration.services import connect, echo, receive_all, receive_exactly, service
from tests.integration.tunnels import Ends, Tunnel, answers, ending, ending_of, ends, tunnel

DATABASE = "hive.db"
# What docs and README promise.
BACK_SECONDS = 10.0
STOP_SECONDS = 5.0


@pytest.fixture(scope="module")
def link(pair: tuple[Node, Node]) -> Iterator[Ends]:
    """A tunnel for the tests that stop nodes and start them again."""
    with ends(*pair) as link:
        yield link


# kill -9


@dataclass
class Writer:
    """Changes a node's state with hivectl until hived is gone, and keeps book of what it reported as done."""

    node: Node
    other: str
    ports: Iterator[int] = field(default_factory=lambda: itertools.count(20000))
    proxies: dict[int, int] = field(default_factory=dict)
    alias: str = ""
    done: int = 0
    # What was under way when hived died: it may have been done or not, but not by half.
    adding: int | None = None
    removing: int | None = None
    naming: str = ""

    def __post_init__(self) -> None:
        # A writer before this one may have named it.
        self.alias = self.node.json("nodes", "show", self.other)["alias"] or ""

    def run(self) -> None:
        """One change after the other, until one fails."""
        for number in itertools.count():
            if not (self._add() and self._name(f"name-{number}")):
                return
            if len(self.proxies) > 3 and not self._remove(min(self.proxies)):
                return

    def _add(self) -> bool:
        self.adding = port = next(self.ports)
        result = self.node.ctl("proxy", "add", "ingress", f"{self.other}:9", str(port), "--json", check=False)
        if result.code == 0:
            self.proxies[result.json()["id"]] = port
            self.adding = None
        return self._counted(result.code)

    def _remove(self, proxy_id: int) -> bool:
        self.removing = proxy_id
        result = self.node.ctl("proxy", "rm", str(proxy_id), check=False)
        if result.code == 0:
            del self.proxies[proxy_id]
            self.removing = None
        return self._counted(result.code)

    def _name(self, alias: str) -> bool:
        self.naming = alias
        result = self.node.ctl("nodes", "alias", self.other, alias, check=False)
        if result.code == 0:
            self.alias, self.naming = alias, ""
        return self._counted(result.code)

    def _counted(self, code: int) -> bool:
        assert code in (0, 3), f"exit code {code} of a change that hived did not refuse"
        self.done += code == 0
        return code == 0

    def check(self) -> None:
        """What was reported as done is there; what was under way is there as a whole or not at all."""
        mine = range(20000, 30000)
        rows = [row for row in self.node.json("proxy", "ls") if row["port"] in mine]
        found = {row["id"]: row["port"] for row in rows}
        assert all(row["state"] == "ready" for row in rows)
        sure = {key: port for key, port in self.proxies.items() if key != self.removing}
        assert found | sure == found
        surplus = {port for key, port in found.items() if key not in sure}
        assert surplus <= {self.adding, self.proxies.get(self.removing or 0)}
        detail = self.node.json("nodes", "show", self.other)
        assert detail["alias"] in {self.alias or None, self.naming or self.alias or None}

    def clean(self) -> None:
        for row in self.node.json("proxy", "ls"):
            if row["port"] in range(20000, 30000):
                self.node.ctl("proxy", "rm", str(row["id"]))


def check_whole(node: Node, directory: Path) -> None:
    """The database as the killed hived left it is whole. In a copy: opening it would tidy it up."""
    for file in node.data.glob(f"{DATABASE}*"):
        shutil.copy(file, directory)
    connection = sqlite3.connect(directory / DATABASE)
    try:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        assert connection.execute("PRAGMA foreign_key_check").fetchall() == []
    finally:
        connection.close()


@pytest.mark.parametrize(
    ("kills", "seed"),
    [(6, 1), pytest.param(40, 2, marks=[pytest.mark.full, pytest.mark.timeout(600)])],
)
def test_kill_at_any_moment(pair: tuple[Node, Node], tmp_path: Path, kills: int, seed: int) -> None:
    """Either node or both die while they start, idle or write; each time the proxy works again within
    10 s of their return, with nothing typed, the databases are whole and every change is there."""
    rng = random.Random(seed)
    alpha, beta = pair
    victims_of = itertools.cycle([[alpha], [beta], [alpha, beta]])
    moments = itertools.cycle(["writing", "starting", "writing", "idle"])
    changes = 0
    with service(echo) as target, tunnel(alpha, beta, target.port) as made:
        answers(made.port, BACK_SECONDS)
        for number, moment, victims in zip(range(kills), moments, victims_of, strict=False):
            node = rng.choice(victims)
            writer = Writer(node, (beta if node is alpha else alpha).peer_id)
            thread = threading.Thread(target=writer.run if moment == "writing" else lambda: None)
            thread.start()
            if moment == "writing":
                time.sleep(rng.uniform(0.3, 1.5))
            elif moment == "starting":
                for node in victims:
                    node.kill()
                    node.start(wait=False)
                time.sleep(rng.uniform(0.0, 3.0))
            for node in victims:
                node.kill()
            thread.join()
            for node in victims:
                copy = tmp_path / f"{number}-{node.name}"
                copy.mkdir()
                check_whole(node, copy)
                node.start(wait=False)
            for node in victims:
                node.ready()
            took = answers(made.port, BACK_SECONDS)
            print(f"{number}: {moment}, {' and '.join(n.name for n in victims)}: back after {took:.2f} s")
            if moment == "writing":
                writer.check()
                writer.clean()
                changes += writer.done
    assert changes > kills
    alpha.await_row(beta, connected, BACK_SECONDS)


# SIGTERM


@pytest.mark.parametrize("who", ["egress", pytest.param("ingress", marks=pytest.mark.full)])
def test_a_stop_takes_five_seconds_at_most(pair: tuple[Node, Node], link: Ends, who: str) -> None:
    """A live connection does not hold hived up: it has 3 s, then it is cut."""
    alpha, beta = pair
    node = alpha if who == "egress" else beta
    with link.connection() as (client, server):
        client.sendall(b"live")
        assert receive_exactly(server, 4) == b"live"
        start = time.monotonic()
        assert node.stop() == 0
        assert time.monotonic() - start < STOP_SECONDS
        assert ending(client) == "reset"
        assert ending(server) == "reset"
    assert not node.socket.exists()
    node.start()
    alpha.await_row(beta, connected, BACK_SECONDS)


@pytest.mark.parametrize("who", ["egress", "ingress"])
def test_a_short_transfer_may_finish(pair: tuple[Node, Node], link: Ends, who: str) -> None:
    """A connection that lives when SIGTERM comes goes on for up to 3 s; no new one gets through."""
    alpha, beta = pair
    node = alpha if who == "egress" else beta
    assert node.process is not None
    blob = random.Random(3).randbytes(3_000_000)
    with link.connection() as (client, server):
        before = len(node.log.lines)
        node.process.terminate()
        node.log.wait_for("stopping", 5, before)
        server.sendall(blob)
        assert receive_exactly(client, len(blob)) == blob
        if who == "egress":
            _until_refused(link.tunnel)
        else:
            assert ending_of(link.tunnel.port) == "reset"
        client.sendall(b"thank you")
        client.shutdown(socket.SHUT_WR)
        assert receive_all(server) == b"thank you"
        server.close()
        assert receive_all(client) == b""
        # Nothing lives any more, so nothing is waited for.
        assert node.process.wait(STOP_SECONDS) == 0
    node.start()
    alpha.await_row(beta, connected, BACK_SECONDS)


def _until_refused(made: Tunnel) -> None:
    """The listener goes a moment after the log line that says so."""
    deadline = time.monotonic() + 2
    while time.monotonic() < deadline:
        try:
            connect(made.port).close()
        except ConnectionRefusedError:
            return
    raise AssertionError("a node that is stopping still accepts connections")


# What hived does not start on


def run_once(node: Node) -> subprocess.CompletedProcess[str]:
    """hived, where it is expected to give up."""
    return subprocess.run(
        node.command(),
        env=node.env,
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        timeout=20,
        check=False,
    )


def test_a_second_hived_is_refused(pair: tuple[Node, Node], link: Ends) -> None:
    """Exit code 6 and one line that names the process; the first is not disturbed."""
    alpha = pair[0]
    assert alpha.process is not None
    with link.connection() as (client, server):
        done = run_once(alpha)
        assert (done.returncode, done.stdout) == (6, "")
        assert done.stderr.count("\n") == 1
        assert str(alpha.data) in done.stderr
        assert f"process {alpha.process.pid}" in done.stderr
        client.sendall(b"undisturbed")
        assert receive_exactly(server, 11) == b"undisturbed"
    alpha.ctl("status")


@pytest.fixture(scope="module")
def used(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The data directory of a node that has been stopped."""
    node = Node(tmp_path_factory.mktemp("used"), "used")
    try:
        node.start()
        node.create("my-network")
        assert node.stop() == 0
    finally:
        node.close()
    return node.data


def _cut(data: bytes) -> bytes:
    return data[: len(data) // 2]


def _short(data: bytes) -> bytes:
    return data[:1000]


def _no_database(data: bytes) -> bytes:
    return b"this is no database\n" * 500


def _scribbled(data: bytes) -> bytes:
    """Whole but for its tables' pages, as after a bad disk."""
    return data[:4096] + bytes(255 - byte for byte in data[4096:])


@pytest.mark.parametrize("damage", [_cut, _short, _no_database, _scribbled])
def test_a_damaged_database(used: Path, tmp_path: Path, damage: Callable[[bytes], bytes]) -> None:
    """Exit code 1 and one line: which file is damaged, and how to set it aside. It is left as it is."""
    node = Node(tmp_path, "node")
    shutil.copytree(used, node.data)
    path = node.data / DATABASE
    path.write_bytes(damage(path.read_bytes()))
    damaged = path.read_bytes()
    done = run_once(node)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.count("\n") == 1
    assert str(path) in done.stderr
    assert "damaged" in done.stderr
    assert path.read_bytes() == damaged
    assert f"mv {path} " in done.stderr


def test_a_damaged_database_is_set_aside(used: Path, tmp_path: Path) -> None:
    """The command that hived names works as it stands: the next start begins anew."""
    node = Node(tmp_path, "node")
    shutil.copytree(used, node.data)
    path = node.data / DATABASE
    path.write_bytes(_cut(path.read_bytes()))
    error = run_once(node).stderr
    command = error[error.index("mv ") :].rstrip().rstrip(".")
    subprocess.run(["bash", "-c", command], check=True)
    assert not path.exists()
    try:
        node.start()
        assert node.json("networks", "ls") == []
    finally:
        node.close()


@pytest.mark.parametrize("where", ["file", "log"])
def test_a_database_of_a_newer_hived(used: Path, tmp_path: Path, where: str) -> None:
    """Exit code 1 and one line that names the file and both versions; not a byte of it is changed, also
    not of a write-ahead log that a killed hived has left behind."""
    node = Node(tmp_path, "node")
    shutil.copytree(used, node.data)
    path, log = node.data / DATABASE, node.data / f"{DATABASE}-wal"
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA user_version = 4711")
    left = {file: file.read_bytes() for file in (path, log)}
    connection.close()
    if where == "log":
        # Closing has tidied up, which kill -9 does not.
        for file, content in left.items():
            file.write_bytes(content)
        assert log.stat().st_size > 0
    before = {file: _digest(file) for file in node.data.iterdir() if file.name != "hived.lock"}
    done = run_once(node)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.count("\n") == 1
    assert str(path) in done.stderr
    assert "4711" in done.stderr
    assert "aside" in done.stderr
    after = {file: _digest(file) for file in node.data.iterdir()}
    assert {file: after.get(file) for file in before} == before
    if where == "file":
        assert not log.exists() or log.stat().st_size == 0


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()

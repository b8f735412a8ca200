"""Versions that meet: nodes of the previous protocol version, and peers that speak a later one."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import Any

import pytest

import hived
from tests.integration.conftest import NETWORK
from tests.integration.nodes import WAIT_SECONDS, Node, connected, join, proxy
from tests.integration.previous import PreviousNode, migrations, source, unpack
from tests.integration.services import connect, echo, receive_exactly, service

SHOWN_WITHIN = 5.0
ADMIN_PASSWORD = "a-password-for-olga"
TODAY = Path(hived.__file__).parents[1]

Make = Callable[[str], Node]


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return unpack(tmp_path_factory.mktemp("previous"))


@contextmanager
def started(directory: Path, tree: Path, **versions: str) -> Iterator[list[Node]]:
    """Nodes by name, each ``old`` or ``new``; stopped in the end."""
    with ExitStack() as stack:
        nodes: list[Node] = []
        for name, version in versions.items():
            node = PreviousNode(directory, name, tree) if version == "old" else Node(directory, name)
            stack.enter_context(closing(node))
            nodes.append(node.start(wait=False))
        for node in nodes:
            node.ready()
        yield nodes


def named(name: str) -> Callable[[dict[str, Any]], bool]:
    return lambda row: bool(row["name"] == name)


def echoes(client: Node, server: Node) -> None:
    """A new proxy from client to server carries data both ways, and its half-close."""
    with service(echo) as target, connect(proxy(client, server, target.port)) as connection:
        connection.sendall(b"x" * 300_000)
        assert receive_exactly(connection, 300_000) == b"x" * 300_000
        connection.shutdown(1)
        assert connection.recv(1) == b""


@pytest.mark.parametrize("package", ["hived", "hivectl"])
def test_the_fixture_runs_its_own_code(tree: Path, tmp_path: Path, package: str) -> None:
    assert source(tree, package, tmp_path) == tree / package / "__init__.py"
    assert not tree.is_relative_to(TODAY)


@pytest.mark.parametrize(("dialer", "listener"), [("old", "new"), ("new", "old")])
def test_join_sync_and_proxy(tree: Path, tmp_path: Path, dialer: str, listener: str) -> None:
    """Whichever of the two dials: they join, see each other's changes, and proxy both ways."""
    with started(tmp_path, tree, listener=listener, dialer=dialer) as (one, other):
        # The second registers with the first, so it is the one that dials.
        join(NETWORK, one, other)
        assert any("connected " in entry and "by=us" in entry for entry in other.log.lines)
        for author, reader in ((one, other), (other, one)):
            author.ctl("rename", f"{author.name}-two")
            reader.await_row(author, named(f"{author.name}-two"), SHOWN_WITHIN)
            assert "\nhived " in reader.ctl("version", "--node", author.peer_id).out
        echoes(one, other)
        echoes(other, one)


@pytest.mark.parametrize(
    ("author", "carrier", "late"),
    [("new", "old", "new"), ("old", "new", "old"), ("old", "old", "new"), ("new", "new", "old")],
)
def test_catch_up_through_another_version(
    tree: Path, tmp_path: Path, author: str, carrier: str, late: str
) -> None:
    """A member that was away learns from a carrier what an author said that is gone by now."""
    with started(tmp_path, tree, carrier=carrier, author=author, late=late) as (middle, gone, away):
        join(NETWORK, middle, gone, away)
        away.stop()
        gone.ctl("rename", "author-two")
        middle.await_row(gone, named("author-two"), SHOWN_WITHIN)
        gone.stop()
        away.start()
        away.await_row(middle, connected, WAIT_SECONDS)
        away.await_row(gone, named("author-two"), SHOWN_WITHIN)


def test_the_database_goes_up_and_not_down(tree: Path, tmp_path: Path) -> None:
    """Today's hived takes the previous one's database over with all that is in it; the previous one leaves
    today's alone, or can use it where both know the same version of it."""
    with started(tmp_path, tree, alpha="old", beta="old") as (alpha, beta), service(echo) as target:
        join(NETWORK, alpha, beta)
        alpha.ctl("admin", "set", "olga", "--password-stdin", stdin=ADMIN_PASSWORD + "\n")
        alpha.ctl("nodes", "alias", beta.peer_id, "the-other")
        alpha.ctl("rename", "alpha-two")
        there = proxy(alpha, beta, target.port)
        back = proxy(beta, alpha, target.port)
        before = state(alpha)
        alpha.stop()

        with closing(Node(tmp_path, "alpha")) as upgraded:
            upgraded.listen = alpha.listen
            upgraded.start()
            upgraded.await_row(beta, connected, WAIT_SECONDS)
            assert state(upgraded) == before
            beta.await_row(upgraded, lambda row: connected(row) and row["name"] == "alpha-two", WAIT_SECONDS)
            for port in (there, back):
                with connect(port) as connection:
                    connection.sendall(b"still here")
                    assert receive_exactly(connection, 10) == b"still here"
            upgraded.stop()

        content = (alpha.data / "hive.db").read_bytes()
        if migrations(TODAY) > migrations(tree):
            alpha.start(wait=False)
            assert alpha.process is not None
            assert alpha.process.wait(WAIT_SECONDS) != 0
            line = alpha.log.wait_for("a newer hived wrote it", 5)
            assert f"version {migrations(TODAY)}; this one knows {migrations(tree)}" in line
            assert (alpha.data / "hive.db").read_bytes() == content
        else:
            alpha.start()
            alpha.await_row(beta, connected, WAIT_SECONDS)
            assert state(alpha) == before


def state(node: Node) -> dict[str, Any]:
    """What a node's user would miss."""
    proxies = [
        {key: row[key] for key in ("id", "direction", "kind", "network", "peer_id", "port", "peer_port")}
        for row in node.json("proxy", "ls")
    ]
    nodes = {(row["peer_id"], row["name"], row["alias"], row["network"]) for row in node.json("nodes")}
    return {
        "peer_id": node.json("id")["peer_id"],
        "networks": [row["name"] for row in node.json("networks")],
        "admins": [row["user"] for row in node.json("admin", "ls")],
        "nodes": nodes,
        "proxies": proxies,
    }

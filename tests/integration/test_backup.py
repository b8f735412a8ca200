"""A backup makes a node again on another machine: its identity, networks and proxies; never two of it."""

from __future__ import annotations

import contextlib
import sqlite3
import stat
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.integration.nodes import (
    BIN,
    WAIT_SECONDS,
    Node,
    Result,
    cluster,
    connected,
    free_port,
    join,
    proxy,
)
from tests.integration.services import echo, service
from tests.integration.tunnels import answers

NETWORK = "my-network"
PASSPHRASE = "an unusual passphrase"
MOVE = (
    "make a backup, then stop the old hived for good"
    " (systemctl disable --now hived hived.socket hived-web.socket), then restore"
)


def save(node: Node, file: Path, *more: str) -> Result:
    return node.ctl("backup", str(file), "--passphrase-stdin", *more, stdin=PASSPHRASE + "\n")


def restore(node: Node, file: Path, *more: str, check: bool = True) -> Result:
    """hivectl restore; returns when hived is back."""
    words = ["restore", str(file), "--passphrase-stdin", *more]
    result = node.ctl(*words, stdin=PASSPHRASE + "\n", check=check, seconds=60)
    if result.code == 0:
        node._peer_id = ""
    return result


@dataclass
class Scene:
    """``alpha`` has a proxy to a service beside ``beta``, at ``port``; ``file`` is alpha's backup."""

    directory: Path
    alpha: Node
    beta: Node
    port: int
    file: Path

    def fresh(self, name: str) -> contextlib.AbstractContextManager[Node]:
        """A node on a new machine, with alpha's port free for it, but no settings of alpha's."""
        return started(Node(self.directory, name))


@contextlib.contextmanager
def started(node: Node) -> Iterator[Node]:
    try:
        yield node.start()
    finally:
        node.close()


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    directory = tmp_path_factory.mktemp("backup")
    with service(echo) as target, cluster(directory, "alpha", "beta") as (alpha, beta):
        join(NETWORK, alpha, beta)
        alpha.ctl("nodes", "alias", beta.peer_id, "bee")
        alpha.ctl("admin", "set", "joe", "--password-stdin", stdin="joes password\n")
        port = proxy(alpha, beta, target.port)
        answers(port, WAIT_SECONDS)
        file = directory / "alpha.backup"
        save(alpha, file)
        yield Scene(directory, alpha, beta, port, file)


def test_the_file(scene: Scene) -> None:
    """Private, of which nothing can be read, and not written over."""
    assert stat.S_IMODE(scene.file.stat().st_mode) == 0o600
    data = scene.file.read_bytes()
    for text in (scene.alpha.peer_id, NETWORK, scene.beta.peer_id, PASSPHRASE):
        assert text.encode() not in data
    result = scene.alpha.ctl("backup", str(scene.file), "--passphrase-stdin", stdin="x" * 12, check=False)
    assert (result.code, result.err.count("\n")) == (6, 1)
    assert "exists already" in result.err
    assert scene.file.read_bytes() == data
    copy = scene.directory / "again"
    told = save(scene.alpha, copy, "--json").json()
    assert (told["peer_id"], told["name"], told["networks"]) == (scene.alpha.peer_id, "alpha", [NETWORK])
    result = save(scene.alpha, copy, "--force")
    assert scene.alpha.peer_id in result.out
    assert "is this node" in result.err


def test_a_running_node_is_not_made_twice(scene: Scene) -> None:
    """The fresh node asks at alpha's address, and stays what it was; --replace does not help."""
    with scene.fresh("second") as second:
        before = second.peer_id
        for more in ([], ["--replace"]):
            result = restore(second, scene.file, *more, check=False)
            assert (result.code, result.err.count("\n")) == (6, 1)
            assert (
                f"alpha ({scene.alpha.peer_id}) still runs: it answered at {scene.alpha.listen[0]}"
                in result.err
            )
            assert MOVE in result.err
        second._peer_id = ""
        assert second.peer_id == before
        assert not list(second.data.glob("*restore*"))
    scene.beta.await_row(scene.alpha, connected, WAIT_SECONDS)


def test_refusals(scene: Scene) -> None:
    """Each has a line and an exit code of its own, and changes nothing."""
    with scene.fresh("refusing") as node:

        def refused(code: int, why: str, data: bytes, passphrase: str = PASSPHRASE, *more: str) -> None:
            file = scene.directory / "refused"
            file.write_bytes(data)
            words = ["restore", str(file), "--passphrase-stdin", *more]
            result = node.ctl(*words, stdin=passphrase + "\n", check=False)
            assert (result.code, result.out, result.err.count("\n")) == (code, "", 1), result
            assert why in result.err

        whole = scene.file.read_bytes()
        refused(4, "the passphrase is wrong", whole, PASSPHRASE + "x")
        refused(2, "the file is damaged", whole[:-1])
        refused(2, "the file is damaged", whole[:1000] + b"\x00\x00\x00" + whole[1003:])
        refused(2, "is no backup of a node", b"something else")
        refused(2, "is no backup of a node", b"")
        node.create("another")
        refused(6, "would be lost with network another", whole)
        assert [row["name"] for row in node.json("networks")] == ["another"]


def test_a_node_is_rolled_back(scene: Scene) -> None:
    """The same identity needs --replace too, and is allowed while it runs: it is this very node."""
    with scene.fresh("rolled") as node:
        node.create("kept")
        file, peer_id = scene.directory / "rolled.backup", node.peer_id
        save(node, file)
        node.create("dropped")
        result = restore(node, file, check=False)
        assert (result.code, result.err.count("\n")) == (6, 1)
        assert "would be undone" in result.err
        restore(node, file, "--replace")
        assert node.peer_id == peer_id
        assert [row["name"] for row in node.json("networks")] == ["kept"]
        assert setting(node, "restored") is not None
        # What was before is whole, and opens with the same key.
        with contextlib.closing(sqlite3.connect(node.data / "hive.db.before-restore")) as connection:
            rows = connection.execute("SELECT name FROM network ORDER BY name").fetchall()
        assert rows == [("dropped",), ("kept",)]


def test_a_node_moves_to_another_machine(scene: Scene) -> None:
    """Alpha stops for good; a fresh node becomes it: beta reaches it by its peer ID, its proxy works."""
    alpha, beta = scene.alpha, scene.beta
    peer_id, rows = alpha.peer_id, state(alpha)
    assert alpha.stop() == 0
    with scene.fresh("gamma") as gamma:
        seen = gamma.peer_id
        result = restore(gamma, scene.file)
        assert f"This node is alpha ({peer_id})" in result.out
        assert "must not run again" in result.err
        assert gamma.peer_id == peer_id != seen
        assert gamma.json("status")["name"] == "alpha"
        assert state(gamma) == rows
        answers(scene.port, WAIT_SECONDS)
        beta.await_row(peer_id, connected, WAIT_SECONDS)
        assert beta.row(peer_id)["addresses"] == list(gamma.listen)  # type: ignore[index]  # it has a row
        assert not any(row["peer_id"] == seen for row in beta.json("nodes"))
        # Sealed with its own key: it starts as any other node does.
        assert gamma.stop() == 0
        gamma.start()
        assert gamma.peer_id == peer_id
        answers(scene.port, WAIT_SECONDS)
        modes = {path.name: stat.S_IMODE(path.lstat().st_mode) for path in gamma.data.iterdir()}
        assert modes.pop("control.sock") == 0o660
        assert set(modes.values()) == {0o600}, modes
        no_secret_in_the_log(gamma)


def test_the_original_comes_back(scene: Scene) -> None:
    """It was only stopped for a while: the restored node ends by itself, the original goes on and is told."""
    alpha, beta = scene.alpha, scene.beta
    if alpha.is_alive():
        assert alpha.stop() == 0
    with scene.fresh("delta") as delta:
        restore(delta, scene.file)
        delta.await_row(beta, connected, WAIT_SECONDS)
        # Not on the same port: the two do not meet, but their records do.
        alpha.listen = (f"/ip4/127.0.0.1/tcp/{free_port()}",)
        alpha.start()
        assert delta.process is not None
        assert delta.process.wait(60) == 6
        delta.log.wait_for("the node that the backup was made of still runs elsewhere", 5)
    alpha.log.wait_for("another hived runs with this node's identity", 5)
    assert any("identity" in warning for warning in alpha.json("status")["warnings"])
    beta.await_row(alpha, connected, WAIT_SECONDS)


@pytest.mark.parametrize("moment", [pytest.param("answer", marks=pytest.mark.full), "staged"])
def test_kill_9_while_it_is_restored(scene: Scene, moment: str) -> None:
    """From the moment that the restore is promised, whatever comes: the next start is the restored node."""
    peer_id = scene.alpha.peer_id
    if scene.alpha.is_alive():
        scene.alpha.stop()
    with scene.fresh(f"killed-{moment}") as node:
        assert node.process is not None
        before = len(node.log.lines)
        words = ["restore", str(scene.file), "--passphrase-file", str(passphrase_file(scene))]
        process = subprocess.Popen(
            [str(BIN / "hivectl"), "--socket", str(node.socket), *words],
            env=node.env,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
        )
        try:
            node.log.wait_for("a backup is restored", WAIT_SECONDS, before, node.is_alive)
            if moment == "answer":
                node.log.wait_for("starting anew", WAIT_SECONDS, before, node.is_alive)
            node.kill()
            node.start()
            # Who was not answered is told so; it may have been done all the same.
            assert process.wait(60) in ((0,) if moment == "answer" else (0, 3))
        finally:
            process.kill()
            process.wait()
        node._peer_id = ""
        assert node.peer_id == peer_id
        answers(scene.port, WAIT_SECONDS)
        no_secret_in_the_log(node)


def passphrase_file(scene: Scene) -> Path:
    file = scene.directory / "passphrase"
    file.write_text(PASSPHRASE + "\n")
    return file


def state(node: Node) -> dict[str, Any]:
    """What is to come back."""
    proxies = [
        {key: row[key] for key in ("id", "direction", "peer_id", "port", "peer_port", "bind")}
        for row in node.json("proxy", "ls")
    ]
    nodes = [(row["peer_id"], row["alias"]) for row in node.json("nodes")]
    return {
        "networks": [row["name"] for row in node.json("networks")],
        "admins": node.json("admin", "ls"),
        "proxies": proxies,
        "nodes": nodes,
    }


def setting(node: Node, key: str) -> str | None:
    with contextlib.closing(
        sqlite3.connect(f"{(node.data / 'hive.db').as_uri()}?mode=ro", uri=True)
    ) as connection:
        row = connection.execute("SELECT value FROM setting WHERE key = ?", (key,)).fetchone()
    return row[0] if row else None


def no_secret_in_the_log(node: Node) -> None:
    text = "".join(node.log.lines)
    assert "a backup is restored" in text
    assert PASSPHRASE not in text
    assert "passphrase" not in text

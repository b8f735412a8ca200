"""Backup and restore on a real node: who may, what is refused, and what is staged."""

from __future__ import annotations

import base64
import json
from dataclasses import replace as changed
from pathlib import Path
from typing import Any

import pytest
import trio
from trio.testing import trio_test

from hived import schema
from hived.api.auth import Caller
from hived.api.http import MAX_BODY
from hived.daemon import Daemon
from hived.store import backup
from hived.store.restore import STAGED
from hived.store.settings import Settings
from hived.store.snapshot import adopt
from tests.unit.api.doors import MEMBER, ROOT, USER, Answer, call, node, raw
from tests.unit.store.stores import KEY

PASSPHRASE = "correct horse battery"
PASSWORD = "correct-horse-battery-staple"


async def saved(daemon: Daemon, *, stops: bool = False) -> str:
    """The node's backup, in base64; where it ``stops``, nobody can dial it from then on."""
    answer = await call(daemon, "POST", "/v1/backup", {"passphrase": PASSPHRASE})
    assert answer.status == 200, answer
    if stops:
        daemon.host.stop_listening()
    return str(answer.json["backup"])


async def restored(daemon: Daemon, data: str, caller: Caller = ROOT, token: str = "", **more: Any) -> Answer:
    body = {"backup": data, "passphrase": PASSPHRASE, **more}
    return await call(daemon, "POST", "/v1/restore", body, caller, token)


def staged(daemon: Daemon) -> bool:
    return (daemon.config.data_dir / STAGED).exists()


async def token_of(daemon: Daemon, caller: Caller) -> str:
    """A session of an admin for this caller."""
    await call(daemon, "PUT", "/v1/admins/joe", {"password": PASSWORD})
    answer = await call(daemon, "POST", "/v1/login", {"user": "joe", "password": PASSWORD}, caller)
    return str(answer.json["token"])


@trio_test
async def test_what_a_backup_holds(tmp_path: Path) -> None:
    async with node(tmp_path) as daemon:
        await call(daemon, "POST", "/v1/networks", {"name": "net", "password": PASSWORD})
        answer = await call(daemon, "POST", "/v1/backup", {"passphrase": PASSPHRASE})
        told = {key: answer.json[key] for key in ("peer_id", "name", "networks")}
        assert told == {"peer_id": daemon.identity.peer_id, "name": "alpha", "networks": ["net"]}
        content = backup.decrypt(base64.b64decode(answer.json["backup"]), PASSPHRASE)
        assert (content.peer_id, content.name, content.networks) == (
            daemon.identity.peer_id,
            "alpha",
            ["net"],
        )
        assert content.addresses == daemon.listening.addresses()
        assert adopt(content.database, content.key, KEY, {}).peer_id == daemon.identity.peer_id
        assert not daemon.node.restart.is_set()


@pytest.mark.parametrize("passphrase", ["", "x" * 11, "x" * 1025, None, 7])
@trio_test
async def test_a_passphrase_must_be_worth_it(tmp_path: Path, passphrase: object) -> None:
    async with node(tmp_path) as daemon:
        answer = await call(daemon, "POST", "/v1/backup", {"passphrase": passphrase})
        assert (answer.status, answer.kind) == (400, "usage")


@trio_test
async def test_restore_is_for_admins_of_this_machine(tmp_path: Path) -> None:
    """A remote admin may make a backup, which the network then carries encrypted twice; not restore one."""
    async with node(tmp_path) as daemon:
        data = await saved(daemon)
        for caller in (USER, MEMBER):
            assert (await restored(daemon, data, caller, replace=True)).kind == "login-required"
        token = await token_of(daemon, MEMBER)
        assert (
            await call(daemon, "POST", "/v1/backup", {"passphrase": PASSPHRASE}, MEMBER, token)
        ).status == 200
        answer = await restored(daemon, data, MEMBER, token, replace=True)
        assert (answer.status, answer.kind) == (403, "denied")
        assert not staged(daemon)
        assert not daemon.node.restart.is_set()
        token = await token_of(daemon, USER)
        assert (await restored(daemon, data, USER, token, replace=True)).status == 200
        assert daemon.node.restart.is_set()


@trio_test
async def test_an_empty_node_becomes_another(tmp_path: Path) -> None:
    """What it stages opens with its own key, is marked as restored, and has no sessions."""
    async with node(tmp_path, "old") as old:
        await call(old, "POST", "/v1/networks", {"name": "net", "password": PASSWORD})
        await call(old, "PUT", "/v1/name", {"name": "renamed"})
        await token_of(old, USER)
        data, peer_id = await saved(old, stops=True), old.identity.peer_id
    async with node(tmp_path, "new") as new:
        answer = await restored(new, data)
        assert answer.status == 200, answer
        assert (answer.json["peer_id"], answer.json["name"]) == (peer_id, "renamed")
    async with node(tmp_path, "new") as again:
        assert again.identity.peer_id == peer_id
        assert list(again.membership.keys) == ["net"]
        # Its own name holds, although this machine's configuration has another.
        assert again.node.name() == "renamed"
        assert await Settings(again.node.database).restored() is not None
        assert (await call(again, "GET", "/v1/sessions")).json == []
        assert [row["user"] for row in (await call(again, "GET", "/v1/admins")).json] == ["joe"]
        assert not staged(again)


@trio_test
async def test_the_daemon_is_to_be_started_anew(tmp_path: Path) -> None:
    """``run`` says so after a restore, once all has been closed in order, and not after a signal."""
    async with node(tmp_path, "old") as old:
        data = await saved(old, stops=True)
    async with node(tmp_path, "new") as new:
        settings = new.config
    daemon = Daemon(settings, lambda: settings)
    ended: list[bool] = []
    with trio.fail_after(30):
        async with trio.open_nursery() as nursery:

            async def run() -> None:
                ended.append(await daemon.run())

            nursery.start_soon(run)
            while not settings.socket.is_socket():  # noqa: ASYNC110 - no event tells
                await trio.sleep(0.005)
            assert (await restored(daemon, data)).status == 200
    assert ended == [True]
    assert not settings.socket.exists()


@trio_test
async def test_what_would_be_lost_is_named(tmp_path: Path) -> None:
    async with node(tmp_path, "old") as old:
        data = await saved(old, stops=True)
    async with node(tmp_path, "new") as new:
        await call(new, "POST", "/v1/networks", {"name": "mine", "password": PASSWORD})
        proxy = {"direction": "ingress", "peer": old.identity.peer_id, "port": 80, "peer_port": 90}
        assert (await call(new, "POST", "/v1/proxies", {**proxy, "network": "mine"})).status == 200
        answer = await restored(new, data)
        assert (answer.status, answer.kind) == (409, "conflict")
        assert f"this node (new, {new.identity.peer_id}) would be lost" in answer.json["detail"]
        assert answer.json["detail"].endswith("with network mine, 1 proxy")
        assert "--replace" in answer.json["hint"]
        assert not staged(new)
        assert (await restored(new, data, replace=True)).status == 200


@trio_test
async def test_rolling_back_says_so(tmp_path: Path) -> None:
    async with node(tmp_path) as daemon:
        data = await saved(daemon)
        answer = await restored(daemon, data)
        assert (answer.status, answer.kind) == (409, "conflict")
        assert "would be undone" in answer.json["detail"]
        assert (await restored(daemon, data, replace=True)).status == 200


@trio_test
async def test_a_node_that_answers_is_not_made_twice(tmp_path: Path) -> None:
    """Found by the addresses in the backup, or by a connection, where no dial is possible."""
    async with node(tmp_path, "old") as old, node(tmp_path, "new") as new:
        data = await saved(old)
        for replace in (False, True):
            answer = await restored(new, data, replace=replace)
            assert (answer.status, answer.kind) == (409, "conflict")
            assert f"still runs: it answered at {old.listening.addresses()[0]}" in answer.json["detail"]
            assert "make a backup, then stop the old hived" in answer.json["hint"]
        content = backup.decrypt(base64.b64decode(data), PASSPHRASE)
        content.addresses = []
        data = base64.b64encode(backup.encrypt(content, PASSPHRASE)).decode()
        with trio.fail_after(10):
            # Those that looked for it are let go in the background.
            while new.host.connections:  # noqa: ASYNC110 - no event tells
                await trio.sleep(0.01)
        await old.host.dial(new.listening.addresses()[0], new.identity.peer_id)
        await until_connected(new)
        answer = await restored(new, data)
        assert (answer.status, "still runs" in answer.json["detail"]) == (409, True)
        new._book.peers[old.identity.peer_id] = changed(new._book.peer(old.identity.peer_id), blocked=True)
        assert "is blocked here" in (await restored(new, data)).json["detail"]
        assert not staged(new)


async def until_connected(daemon: Daemon) -> None:
    with trio.fail_after(10):
        while not daemon.host.connections:  # noqa: ASYNC110 - no event tells
            await trio.sleep(0.01)


@trio_test
async def test_addresses_that_never_answer_cost_seconds(tmp_path: Path) -> None:
    """All at once, and no longer than promised: a listener that says nothing, a port where nobody is."""
    async with node(tmp_path, "old") as old:
        content = backup.decrypt(base64.b64decode(await saved(old)), PASSPHRASE)
    listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
    port = listeners[0].socket.getsockname()[1]
    content.addresses = [f"/ip4/127.0.0.{n}/tcp/{port}" for n in range(1, 30)] + [
        "nonsense",
        "/ip4/127.0.0.1/tcp/1",
    ]
    data = base64.b64encode(backup.encrypt(content, PASSPHRASE)).decode()
    async with node(tmp_path, "new") as new:
        start = trio.current_time()
        assert (await restored(new, data)).status == 200
        assert trio.current_time() - start < 10
    await listeners[0].aclose()


@trio_test
async def test_a_content_that_contradicts_itself(tmp_path: Path) -> None:
    """A key that is not the peer's, a name for another peer: from whoever made the backup."""
    async with node(tmp_path, "old") as old, node(tmp_path, "new") as new:
        content = backup.decrypt(base64.b64decode(await saved(old)), PASSPHRASE)
        content.peer_id = new.identity.peer_id
        data = base64.b64encode(backup.encrypt(content, PASSPHRASE)).decode()
        answer = await restored(new, data, replace=True)
        assert (answer.status, "another node's" in answer.json["detail"]) == (400, True)
        assert not staged(new)


# The size of what is sent


@trio_test
async def test_only_who_may_restore_is_listened_to_for_long(tmp_path: Path) -> None:
    """More than MAX_BODY is kept of no one else, and for no other call: the answer comes before the body."""
    async with node(tmp_path) as daemon:
        size = MAX_BODY + 1
        for caller, path, status in (
            (USER, "/v1/restore", 401),
            (MEMBER, "/v1/restore", 401),
            (ROOT, "/v1/networks", 400),
            (USER, "/v1/login", 400),
            (ROOT, "/v1/nothing", 404),
        ):
            head = f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Length: {size}\r\n\r\n".encode()
            got = await raw(daemon, head, caller)
            assert got.startswith(f"HTTP/1.1 {status} ".encode()), (path, got)
            assert b"connection: close" in got.lower()
        most = schema.MAX_BACKUP * 4 // 3 + MAX_BODY
        head = f"POST /v1/restore HTTP/1.1\r\nHost: x\r\nContent-Length: {most + 1}\r\n\r\n".encode()
        assert b"larger than" in await raw(daemon, head)
        chunked = b"POST /v1/restore HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
        assert b"larger than" in await raw(daemon, chunked + b"%x\r\n" % size + bytes(size))


@trio_test
async def test_a_large_backup_comes_and_goes(tmp_path: Path) -> None:
    """Of 20 MB, through the API as any other: of a node that knows tens of thousands of others."""
    async with node(tmp_path, "old") as old:
        blob = "x" * 1_000_000

        def fill(db: Any) -> None:
            for number in range(20):
                db.query("INSERT INTO setting (key, value) VALUES (:k, :v)", k=f"more-{number}", v=blob)

        await old.node.database.run(fill)
        data = await saved(old, stops=True)
        assert len(data) > 20_000_000
    async with node(tmp_path, "new") as new:
        assert (await restored(new, data)).status == 200
    async with node(tmp_path, "new") as again:
        assert again.identity.peer_id == old.identity.peer_id
        assert await Settings(again.node.database).get("more-19") == blob


def test_the_schema_hides_nothing() -> None:
    """The document of the API says how long a passphrase must be."""
    from hived.api import openapi
    from hived.api.routes import ROUTES

    schemas = json.loads(openapi.document(ROUTES))["components"]["schemas"]
    assert schemas["BackupRequest"]["properties"]["passphrase"]["minLength"] == schema.MIN_PASSPHRASE


@trio_test
async def test_no_change_is_acknowledged_that_would_be_undone(tmp_path: Path) -> None:
    """Between the staging of the backup and the new start."""
    async with node(tmp_path) as daemon:
        data = await saved(daemon)
        assert (await restored(daemon, data, replace=True)).status == 200
        answer = await call(daemon, "POST", "/v1/networks", {"name": "late"})
        assert (answer.status, answer.json["kind"]) == (409, "conflict")
        assert "being restored" in json.dumps(answer.json)

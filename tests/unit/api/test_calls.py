"""Each call on a real node: what it answers, and what it changes."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import trio
from trio.testing import trio_test

from hived.api.auth import Caller
from hived.daemon import Daemon
from hived.overlay.identity import Identity
from tests.integration.nodes import free_port
from tests.unit.api.doors import ROOT, USER, call, node

STRANGER = Identity.from_seed(b"s" * 32)
PASSWORD = "correct-horse-battery-staple"


async def ok(
    daemon: Daemon, method: str, path: str, body: object = None, caller: Caller = ROOT, token: str = ""
) -> Any:
    answer = await call(daemon, method, path, body, caller, token)
    assert answer.status == 200, answer
    return answer.json


async def kind(daemon: Daemon, method: str, path: str, body: object = None, caller: Caller = ROOT) -> str:
    answer = await call(daemon, method, path, body, caller)
    assert answer.json["title"], answer
    return answer.kind


async def until(condition: Any) -> None:
    with trio.fail_after(10):
        while not await condition():  # noqa: ASYNC110 - no event tells
            await trio.sleep(0.01)


@trio_test
async def test_about_this_node(tmp_path: Path) -> None:
    async with node(tmp_path) as daemon:
        info = await ok(daemon, "GET", "/v1/info")
        status = await ok(daemon, "GET", "/v1/status")
        identity = await ok(daemon, "GET", "/v1/id")
        assert info["peer_id"] == status["peer_id"] == identity["peer_id"] == daemon.identity.peer_id
        assert info["name"] == "alpha"
        assert status["addresses"] == identity["addresses"] == daemon.host.listening
        assert "private" in identity["warnings"][0]
        assert "in no network" in status["warnings"][0]
        assert status["service"]["data_dir"] == str(tmp_path / "alpha")
        await ok(daemon, "PUT", "/v1/name", {"name": "omega"})
        assert (await ok(daemon, "PUT", "/v1/name", {"name": "omega"}))["note"]
        assert (await ok(daemon, "GET", "/v1/info"))["name"] == "omega"
    async with node(tmp_path) as daemon:  # kept, though the configuration says alpha as before
        assert (await ok(daemon, "GET", "/v1/info"))["name"] == "omega"


@trio_test
async def test_admins_and_sessions(tmp_path: Path) -> None:
    async with node(tmp_path) as daemon:
        await ok(daemon, "PUT", "/v1/admins/me", {"password": PASSWORD})
        assert [a["user"] for a in await ok(daemon, "GET", "/v1/admins")] == ["me"]
        assert await kind(daemon, "POST", "/v1/login", {"user": "nobody", "password": "x"}, USER) == "denied"
        login = await ok(
            daemon, "POST", "/v1/login", {"user": "me", "password": PASSWORD}, replace(USER, uid=99)
        )
        caller, token = replace(USER, uid=99), login["token"]
        (session,) = await ok(daemon, "GET", "/v1/sessions", None, caller, token)
        assert (session["user"], session["bound_to"], session["current"]) == ("me", "uid:99", True)
        assert (await ok(daemon, "GET", "/v1/sessions"))[0]["current"] is False
        await ok(daemon, "POST", "/v1/logout", None, caller, token)
        assert (await call(daemon, "GET", "/v1/sessions", None, caller, token)).status == 401
        assert (await ok(daemon, "POST", "/v1/logout", None, USER))["note"]
        for wrong in ("1000", "x", "-1", "%D9%A3", "9" * 40):
            assert await kind(daemon, "DELETE", f"/v1/sessions/{wrong}") == "not-found"
        login = await ok(daemon, "POST", "/v1/login", {"user": "me", "password": PASSWORD}, caller)
        (session,) = await ok(daemon, "GET", "/v1/sessions")
        await ok(daemon, "DELETE", f"/v1/sessions/{session['id']}")
        await ok(daemon, "DELETE", "/v1/admins/me")
        assert await kind(daemon, "DELETE", "/v1/admins/me") == "not-found"


@trio_test
async def test_networks(tmp_path: Path) -> None:
    async with node(tmp_path) as daemon:
        made = await ok(daemon, "POST", "/v1/networks", {"name": "one"})
        assert len(made["password"]) == 22
        joined = await ok(daemon, "POST", "/v1/networks", {"name": "two", "password": "short"})
        assert joined["password"] is None
        assert "fewer than" in joined["warning"]
        assert await kind(daemon, "POST", "/v1/networks", {"name": "two", "password": PASSWORD}) == "conflict"
        rows = await ok(daemon, "GET", "/v1/networks")
        assert [(row["name"], row["members"], row["connected"]) for row in rows] == [
            ("one", 0, 0),
            ("two", 0, 0),
        ]
        assert {row["network"] for row in await ok(daemon, "GET", "/v1/nodes")} == {"one", "two"}
        assert {row["network"] for row in await ok(daemon, "GET", "/v1/nodes?network=one")} == {"one"}
        assert await kind(daemon, "GET", "/v1/nodes?network=none") == "not-found"
        await ok(daemon, "DELETE", "/v1/networks/one")
        assert await kind(daemon, "DELETE", "/v1/networks/one") == "not-found"
    async with node(tmp_path) as daemon:
        assert [row["name"] for row in await ok(daemon, "GET", "/v1/networks")] == ["two"]


@trio_test
async def test_register_join_and_leave(tmp_path: Path) -> None:
    """Two whole nodes in one process: joined, seen, renamed, called over the overlay."""
    async with node(tmp_path, "alpha") as alpha, node(tmp_path, "beta") as beta:
        for daemon in (alpha, beta):
            await ok(daemon, "POST", "/v1/networks", {"name": "net", "password": PASSWORD})
        identity = (await ok(alpha, "GET", "/v1/id"))["identity"]
        assert await kind(alpha, "POST", "/v1/register", {"identity": identity}) == "usage"
        assert await kind(beta, "POST", "/v1/register", {"identity": "nonsense"}) == "usage"
        done = await ok(beta, "POST", "/v1/register", {"identity": identity})
        assert (done["state"], done["network"]) == ("joined", "net")

        async def seen() -> bool:
            # Each by the other: a name counts where it is known.
            rows = await ok(alpha, "GET", "/v1/nodes"), await ok(beta, "GET", "/v1/nodes")
            return [[(row["name"], row["path"]) for row in of] for of in rows] == [
                [("alpha", "self"), ("beta", "direct")],
                [("beta", "self"), ("alpha", "direct")],
            ]

        await until(seen)
        detail = await ok(alpha, "GET", "/v1/nodes/beta")
        assert (detail["networks"], detail["path"]) == (["net"], "direct")
        assert await kind(beta, "PUT", "/v1/name", {"name": "alpha"}) == "conflict"
        await ok(alpha, "PUT", "/v1/nodes/beta/alias", {"alias": "box"})
        assert (await ok(alpha, "GET", "/v1/nodes/box"))["peer_id"] == beta.identity.peer_id
        assert await kind(alpha, "PUT", "/v1/nodes/alpha/alias", {"alias": "box"}) == "conflict"
        assert await kind(alpha, "PUT", "/v1/nodes/alpha/alias", {"alias": "beta"}) == "conflict"
        await ok(alpha, "PUT", "/v1/nodes/box/alias", {"alias": None})
        assert await kind(alpha, "GET", "/v1/nodes/box") == "not-found"
        member = Caller(peer_id=beta.identity.peer_id)
        await ok(alpha, "POST", "/v1/networks", {"name": "private"})
        assert (await ok(alpha, "GET", "/v1/info", None, member))["networks"] == ["net"]
        await ok(alpha, "PUT", "/v1/nodes/beta/block")
        assert (await ok(alpha, "GET", "/v1/nodes/beta"))["blocked"]
        beta_id = (await ok(beta, "GET", "/v1/id"))["identity"]
        assert await kind(alpha, "POST", "/v1/register", {"identity": beta_id, "network": "net"}) == "denied"
        await ok(alpha, "DELETE", "/v1/nodes/beta/block")
        # Neither over the connection that it would cut.
        await ok(alpha, "PUT", "/v1/admins/joe", {"password": "joes password"})
        login = {"user": "joe", "password": "joes password"}
        token = (await ok(alpha, "POST", "/v1/login", login, member))["token"]
        for method, path in (("PUT", "/v1/nodes/beta/block"), ("DELETE", "/v1/networks/net")):
            assert (await call(alpha, method, path, None, member, token)).status == 400
        assert (await call(alpha, "DELETE", "/v1/networks/private", None, member, token)).status == 200
        for path in ("/v1/nodes/alpha", "/v1/nodes/alpha/block"):
            assert await kind(alpha, "DELETE", path) == "usage"
        await ok(alpha, "DELETE", "/v1/networks/net")
        assert alpha.membership.members("net") == []


@trio_test
async def test_registering_who_does_not_answer_or_has_another_password(tmp_path: Path) -> None:
    async with node(tmp_path, "alpha") as alpha, node(tmp_path, "beta") as beta:
        address = f"/ip4/127.0.0.1/tcp/{free_port()}"
        text = STRANGER.string([address])
        answer = await call(alpha, "POST", "/v1/register", {"identity": text})
        assert answer.kind == "usage"  # in no network
        await ok(alpha, "POST", "/v1/networks", {"name": "net", "password": PASSWORD})
        await ok(beta, "POST", "/v1/networks", {"name": "net", "password": "another-long-password"})
        pending = await ok(alpha, "POST", "/v1/register", {"identity": text})
        assert pending["state"] == "pending"
        assert "connection refused" in pending["detail"]
        row = (await ok(alpha, "GET", "/v1/nodes"))[1]
        assert (row["peer_id"], row["path"], row["addresses"]) == (STRANGER.peer_id, "none", [address])
        identity = (await ok(beta, "GET", "/v1/id"))["identity"]
        assert await kind(alpha, "POST", "/v1/register", {"identity": identity}) == "denied"
        assert (beta.identity.peer_id, "net") not in alpha._book.registrations
        await ok(alpha, "DELETE", f"/v1/nodes/{STRANGER.peer_id}")
        assert len(await ok(alpha, "GET", "/v1/nodes")) == 1


@trio_test
async def test_proxies(tmp_path: Path) -> None:
    async with node(tmp_path) as daemon:
        await ok(daemon, "POST", "/v1/networks", {"name": "net", "password": PASSWORD})
        text = STRANGER.string([f"/ip4/127.0.0.1/tcp/{free_port()}"])
        await ok(daemon, "POST", "/v1/register", {"identity": text})
        egress = {"direction": "egress", "peer": STRANGER.peer_id, "port": free_port(), "peer_port": 80}
        ingress = {**egress, "direction": "ingress", "port": 80, "peer_port": 8084}
        one = await ok(daemon, "POST", "/v1/proxies", {**egress, "bind": "127.0.0.1"})
        two = await ok(daemon, "POST", "/v1/proxies", {**ingress, "to": "box.example"})
        assert (one["state"], one["warning"], two["state"], two["to"]) == (
            "listening",
            "",
            "ready",
            "box.example",
        )
        wide = await ok(daemon, "POST", "/v1/proxies", {**egress, "port": free_port()})
        assert "all addresses" in wide["warning"]
        for changes, wanted in (
            ({"bind": "127.0.0.1"}, "conflict"),
            ({"port": free_port(), "bind": "here"}, "usage"),
            ({"port": free_port(), "to": "x"}, "usage"),
            ({"port": free_port(), "peer": daemon.identity.peer_id}, "usage"),
            ({"port": free_port(), "peer": "nobody"}, "not-found"),
            ({"port": free_port(), "network": "other"}, "not-found"),
        ):
            assert await kind(daemon, "POST", "/v1/proxies", {**egress, **changes}) == wanted, changes
        assert await kind(daemon, "POST", "/v1/proxies", {**ingress, "port": 81, "bind": "::1"}) == "usage"
        assert [row["id"] for row in await ok(daemon, "GET", "/v1/proxies")] == [
            one["id"],
            two["id"],
            wide["id"],
        ]
        listed = await ok(daemon, "GET", "/v1/proxies")
        assert all(
            "is not connected" in row["warning"] and row["error"] is row["error_at"] is None for row in listed
        )
        path = f"/v1/proxies/{one['id']}"
        daemon.reconciler.get(one["id"]).counters.failed("it broke")
        row = await ok(daemon, "GET", path)
        assert row["error"] == "it broke"
        age = datetime.now(UTC) - datetime.fromisoformat(row["error_at"])
        assert timedelta(0) <= age < timedelta(minutes=1)
        assert (await ok(daemon, "POST", path + "/disable"))["state"] == "disabled"
        assert (await ok(daemon, "GET", path))["state"] == "disabled"
        assert (await ok(daemon, "POST", path + "/enable"))["state"] == "listening"
        assert await kind(daemon, "DELETE", f"/v1/nodes/{STRANGER.peer_id}") == "conflict"
        await ok(daemon, "DELETE", path)
        for wrong in ("1", "x", "-1", "1.5", "9" * 30, "%D9%A3"):
            assert await kind(daemon, "GET", f"/v1/proxies/{wrong}") == "not-found"


@trio_test
async def test_status_tells_once_of_a_node_that_several_proxies_miss(tmp_path: Path) -> None:
    async with node(tmp_path) as daemon:

        async def told() -> list[str]:
            return [w for w in (await ok(daemon, "GET", "/v1/status"))["warnings"] if "prox" in w]

        await ok(daemon, "POST", "/v1/networks", {"name": "net", "password": PASSWORD})
        missed = {"direction": "ingress", "peer": STRANGER.peer_id, "peer_port": 8084}
        first = await ok(daemon, "POST", "/v1/proxies", {**missed, "port": 80})
        why = f"{STRANGER.peer_id} is not connected: no address of it is known"

        async def one() -> bool:
            return await told() == [f"proxy {first['id']}: {why}"]

        await until(one)
        # What failed because the node is away says no more than that.
        daemon.reconciler.get(first["id"]).counters.failed("connecting failed")
        for peer_port in (1, 2):
            await ok(daemon, "POST", "/v1/proxies", {**missed, "port": 9, "peer_port": peer_port})
        broken = await ok(daemon, "POST", "/v1/proxies", {**missed, "port": 6})
        daemon.reconciler.get(broken["id"]).fail("port 6 is taken")
        disabled = await ok(daemon, "POST", "/v1/proxies", {**missed, "port": 5})
        await ok(daemon, "POST", f"/v1/proxies/{disabled['id']}/disable")
        assert await told() == [
            f"proxy {broken['id']}: port 6 is taken",
            f"proxies on ports 9, 80: {why}",
        ]


HOSTS = ("db", "my_db", "a-1.example", "x" * 63 + ".example", "192.0.2.7", "fe80::1%eth0")
NO_HOSTS = ("foo..bar", "x" * 64, "a." * 126 + "ab", ".a", "a.", "a-.b", "-x", "a b", "a\n", "a/b", "")


@trio_test
async def test_a_target_must_be_a_host(tmp_path: Path) -> None:
    async with node(tmp_path) as daemon:
        await ok(daemon, "POST", "/v1/networks", {"name": "net", "password": PASSWORD})
        ingress = {"direction": "ingress", "peer": STRANGER.peer_id, "peer_port": 8084}
        for port, host in enumerate(HOSTS, 1):
            row = await ok(daemon, "POST", "/v1/proxies", {**ingress, "port": port, "to": host})
            assert row["to"] == host
        for host in NO_HOSTS:
            answer = await call(daemon, "POST", "/v1/proxies", {**ingress, "port": 80, "to": host})
            assert answer.kind == "usage", host
            assert "is no host name" in answer.json["detail"]
            assert "--to" in answer.json["hint"]


@pytest.mark.parametrize(
    ("path", "body"),
    [("/v1/forward", {"peer": "nobody", "peer_port": 1, "port": 1}), ("/v1/tunnel/nobody", None)],
)
def test_forward_and_tunnel_to_nobody(tmp_path: Path, path: str, body: object) -> None:
    async def main() -> None:
        async with node(tmp_path) as daemon:
            assert (await call(daemon, "POST", path, body)).status in (400, 404)

    trio.run(main)

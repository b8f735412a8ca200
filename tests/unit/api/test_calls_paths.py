"""Ping and netcheck between two whole nodes in this process."""

from __future__ import annotations

from pathlib import Path

import trio
from trio.testing import trio_test

from hived.daemon import Daemon
from tests.unit.api.doors import MEMBER, call, node
from tests.unit.api.test_calls import PASSWORD, STRANGER, kind, ok


async def joined(alpha: Daemon, beta: Daemon) -> None:
    for daemon in (alpha, beta):
        await ok(daemon, "POST", "/v1/networks", {"name": "net", "password": PASSWORD})
    identity = (await ok(alpha, "GET", "/v1/id"))["identity"]
    assert (await ok(beta, "POST", "/v1/register", {"identity": identity}))["state"] == "joined"


@trio_test
async def test_ping(tmp_path: Path) -> None:
    async with node(tmp_path, "alpha") as alpha, node(tmp_path, "beta") as beta:
        await joined(alpha, beta)
        told = await ok(alpha, "POST", f"/v1/nodes/{beta.identity.peer_id}/ping")
        assert (told["path"], told["relay"], told["relay_name"]) == ("direct", None, None)
        assert 0 < told["rtt_ms"] < 10_000
        own = await ok(alpha, "POST", "/v1/nodes/alpha/ping")
        assert (own["path"], own["rtt_ms"]) == ("self", 0.0)
        assert await kind(alpha, "POST", "/v1/nodes/nobody/ping") == "not-found"
        # Not for a member without a log-in.
        refused = await call(alpha, "POST", "/v1/nodes/beta/ping", caller=MEMBER)
        assert refused.kind == "login-required"


@trio_test
async def test_ping_of_who_is_away(tmp_path: Path) -> None:
    async with node(tmp_path) as alpha:
        await ok(alpha, "POST", "/v1/networks", {"name": "net", "password": PASSWORD})
        await ok(alpha, "POST", "/v1/register", {"identity": STRANGER.string(["/ip4/127.0.0.1/tcp/1"])})
        answer = await call(alpha, "POST", f"/v1/nodes/{STRANGER.peer_id}/ping")
        assert (answer.kind, answer.status) == ("unreachable", 502)
        assert "refused" in answer.json["detail"]


@trio_test
async def test_netcheck(tmp_path: Path) -> None:
    async with node(tmp_path, "alpha") as alpha, node(tmp_path, "beta") as beta:
        check = await ok(alpha, "GET", "/v1/netcheck")
        assert (check["nat"], check["asked"], check["hole_punching"]) == ("offline", 0, "unknown")
        assert (check["mdns_on"], check["relaying"]) == (False, "members"), "it listens on loopback only"
        await joined(alpha, beta)
        with trio.fail_after(20):
            while True:
                check = await ok(alpha, "GET", "/v1/netcheck")
                if check["relays"]:
                    break
        assert (check["nat"], check["asked"], check["hole_punching"]) == ("public", 1, "not needed")
        assert check["reached"] == alpha.host.listening
        assert [(relay["name"], relay["reserved"]) for relay in check["relays"]] == [("beta", False)]
        assert (await ok(alpha, "GET", "/v1/status"))["reachability"] == "public"
        detail = await ok(alpha, "GET", "/v1/nodes/beta")
        assert detail["why"] in ("it dialled this node", "this node dialled it")

"""Addresses that an admin names: a NAT with a forwarded port, by its address or by a DNS name that moves."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.netns.lab import Lab
from tests.netns.meshes import NETWORK, await_path, await_state, is_path
from tests.netns.node import PORT, PlacedNode

pytestmark = pytest.mark.requires("natlab")

NAME = "home.example.com"
SECONDS = 60

# hosts(5) of the test's own in the place of the machine's, for one process.
_WITH_HOSTS = 'mount --bind "$0" /etc/hosts && exec "$@"'


class NamingNode(PlacedNode):
    """A hived that finds names in a file of the test."""

    hosts: Path

    def command(self, *extra: str) -> list[str]:
        return ["unshare", "--mount", "sh", "-c", _WITH_HOSTS, str(self.hosts), *super().command(*extra)]


@pytest.mark.parametrize("kind", ["ip4", "dns4"])
def test_a_forwarded_port_is_announced(lab: Lab, tmp_path: Path, kind: str) -> None:
    """Members dial it there, and at the name's new address once that is another."""
    home = lab.lan("home", "sym")
    host, pub, other = home.host("a"), lab.public("pub"), lab.public("other")
    home.router.forward(PORT, host.address)
    hosts = tmp_path / "hosts"
    hosts.write_text(f"127.0.0.1 localhost\n{home.router.public} {NAME}\n")
    announced = f"/{kind}/{home.router.public if kind == 'ip4' else NAME}/tcp/{PORT}"

    def node(where: str, *flags: str) -> NamingNode:
        place = {"a": host, "pub": pub, "other": other}[where]
        made = NamingNode(lab.directory, where, place.namespace, *flags, listen=(f"/ip4/0.0.0.0/tcp/{PORT}",))
        made.hosts = hosts
        lab.adopt(made)
        return made

    a, near, far = node("a", "--announce", announced), node("pub"), node("other")
    for one in (a, near, far):
        one.start(wait=False)
    for one in (a, near, far):
        one.ready()
        one.create(NETWORK)
    assert announced in a.json("id")["addresses"]
    near.register(far, NETWORK)
    a.register(near, NETWORK)
    await_state(a, SECONDS, "public")
    # Heard of, never met: the record alone says where it is.
    far.await_row(a, is_path("direct"), SECONDS)
    shown = far.json("nodes", "show", a.peer_id)
    assert announced in {row["address"] for row in shown["addresses"]}
    assert a.json("netcheck")["nat"] == "public"
    if kind == "dns4":
        hosts.write_text(f"127.0.0.1 localhost\n{home.router.readdress()} {NAME}\n")
        # No packet comes through any more: what was connected is found dead, on both sides.
        for one in (near, far):
            one.log.wait_for("connection lost", SECONDS)
        await_path(near, a, SECONDS, "direct")
        assert near.json("ping", a.peer_id, "-c", "1")["path"] == "direct"
        await_state(a, SECONDS, "public")

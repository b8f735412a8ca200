"""What a node says of itself reaches the others, and what a name means when several claim it."""

from __future__ import annotations

import os
import re
import socket
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from tests.integration.conftest import NETWORK
from tests.integration.nodes import Node, cluster, connected, free_port, join
from tests.integration.peer import Door, Peer, act, peer, push
from tests.integration.services import connect

SHOWN_WITHIN = 5.0
ROUND_SECONDS = 37.5  # a round's 30 s with its jitter
# Two identities whose peer IDs share six characters, found by trying 3,036 seeds.
ALIKE = (2283, 3035)
SHARED_PART = "tXDET6"


@pytest.fixture(scope="module")
def three(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Node]]:
    with cluster(tmp_path_factory.mktemp("three"), "alpha", "beta", "gamma") as nodes:
        join(NETWORK, *nodes)
        yield nodes


def warnings(node: Node) -> list[str]:
    return [str(line) for line in node.json("status")["warnings"]]


def at(addresses: list[str]) -> Callable[[dict[str, Any]], bool]:
    return lambda row: bool(row["addresses"] == addresses and connected(row))


def address(node: Node) -> str:
    return node.listen[0]


def test_name_port_and_address(three: list[Node]) -> None:
    """A change of name (rename), of port (a restart) and of the announced address shows on every connected
    member within 5 s."""
    alpha, beta, gamma = three
    me = alpha.peer_id

    alpha.ctl("rename", "alpha-two")
    for other in (beta, gamma):
        other.await_row(me, lambda row: bool(row["name"] == "alpha-two"), SHOWN_WITHIN)

    old = address(alpha)
    alpha.stop()
    alpha.listen = (f"/ip4/127.0.0.1/tcp/{free_port()}",)
    alpha.start("--announce", "/dns4/alpha.example/tcp/4483")
    new = ["/dns4/alpha.example/tcp/4483", address(alpha)]
    assert old not in new
    for other in (beta, gamma):
        other.await_row(
            me,
            lambda row: bool(
                row["addresses"] == new and row["path"] == "direct" and row["name"] == "alpha-two"
            ),
            SHOWN_WITHIN,
        )

    alpha.stop()
    alpha.start()
    for other in (beta, gamma):
        other.await_row(me, lambda row: bool(row["addresses"] == [address(alpha)]), SHOWN_WITHIN)


def test_hangup(tmp_path: Path) -> None:
    """SIGHUP and hivectl reload take a new port and address over; a broken file changes nothing."""
    file, ports = tmp_path / "hived.toml", [free_port(), free_port()]

    def write(port: int, more: str = "") -> None:
        file.write_text(f'listen = ["/ip4/127.0.0.1/tcp/{port}"]\n{more}\n')

    write(ports[0])
    with cluster(tmp_path, "beta") as (beta,):
        alpha = Node(tmp_path, "alpha", "--config", str(file))
        alpha.listen = ()
        try:
            alpha.start()
            join(NETWORK, alpha, beta)
            assert alpha.process is not None
            listening, outside = f"/ip4/127.0.0.1/tcp/{ports[1]}", "/ip4/192.0.2.7/tcp/4483"
            for more, expected in (
                ("", [listening]),
                (f'announce = ["{outside}"]', [outside, listening]),
            ):
                write(ports[1], more)
                alpha.process.send_signal(1)
                beta.await_row(alpha, at(expected), SHOWN_WITHIN)
            for broken in ("listen = 5", "listen = [", 'listen = ["/ip4/127.0.0.1/udp/1"]', 'nam = "x"'):
                after = len(alpha.log.lines)
                file.write_text(broken)
                alpha.process.send_signal(1)
                alpha.log.wait_for("the configuration was not taken over", 5, after)
                refused = alpha.ctl("reload", check=False)
                assert (refused.code, refused.out) == (2, "")
                assert re.fullmatch(rf"hivectl: [^\n]*({file}|listen)[^\n]*\n", refused.err)
            assert alpha.json("status")["addresses"] == [outside, listening]
            with pytest.raises(ConnectionRefusedError):
                connect(ports[0])
            connect(ports[1]).close()
            write(ports[0], f'pid_file = "{tmp_path}/pid"')
            reloaded = alpha.ctl("reload")
            assert reloaded.out == f"The configuration is read: {file}\n"
            assert reloaded.err == "hivectl: warning: in force after a restart only: pid_file.\n"
            connect(ports[0]).close()
            with pytest.raises(ConnectionRefusedError):
                connect(ports[1])
        finally:
            alpha.close()


def test_a_reload_that_fails_leaves_what_was(tmp_path: Path) -> None:
    file, port = tmp_path / "hived.toml", free_port()

    def write(*lines: str) -> None:
        file.write_text("\n".join([f'listen = ["/ip4/127.0.0.1/tcp/{port}"]', *lines]))

    write()
    with (
        closing(Node(tmp_path, "alpha", "--config", str(file))) as alpha,
        socket.create_server(("127.0.0.1", 0)) as other,
    ):
        alpha.listen = ()
        alpha.start()
        taken = f"/ip4/127.0.0.1/tcp/{other.getsockname()[1]}"
        file.write_text(f'listen = ["{taken}"]\nlog_format = "json"')
        refused = alpha.ctl("reload", check=False)
        assert (refused.code, refused.out) == (6, "")
        assert [line for line in warnings(alpha) if "a restart may fail" in line]
        # A file that nobody writes to: the node itself goes on.
        os.mkfifo(tmp_path / "passwords")
        write(f'network_file = ["{tmp_path}/passwords"]')
        refused = alpha.ctl("reload", check=False)
        assert (refused.code, refused.out) == (1, "")
        assert "could not be read to its end" in refused.err
        assert alpha.json("status")["addresses"] == [f"/ip4/127.0.0.1/tcp/{port}"]
        assert not [line for line in alpha.log.lines if line.startswith("{")]
        connect(port).close()
        write('log_format = "json"')
        # The reading that hangs is let go when somebody writes.
        (tmp_path / "passwords").write_text("")
        assert alpha.ctl("reload").err == ""
        alpha.log.wait_for('"configuration read"', 5)
        assert not [line for line in warnings(alpha) if "configuration" in line]
        file.unlink()
        refused = alpha.ctl("reload", check=False)
        assert (refused.code, refused.out) == (2, "")
        assert "there is no such file" in refused.err


def test_a_password_that_is_not_in_force_is_said(tmp_path: Path) -> None:
    """Who has changed it in a file believes that it is changed."""
    with cluster(tmp_path, "alpha") as (alpha,):
        alpha.stop()
        for password, said in (("one", 0), ("two", 2), ("one", 0)):
            alpha.start("--admin", f"ann:{password}", "--network", f"net:{password}")
            shown = [line for line in warnings(alpha) if "has another password" in line]
            assert len(shown) == said
            alpha.stop()


def test_away(three: list[Node]) -> None:
    """A member that was away learns the change when it returns, also from others when its author is gone."""
    alpha, beta, gamma = three
    me = beta.peer_id
    gamma.stop()
    beta.ctl("rename", "beta-two")
    alpha.await_row(me, lambda row: bool(row["name"] == "beta-two"), SHOWN_WITHIN)
    beta.stop()
    gamma.start()
    gamma.await_row(me, lambda row: bool(row["name"] == "beta-two"), ROUND_SECONDS)
    beta.start()
    for other in (alpha, gamma):
        other.await_row(me, lambda row: bool(row["name"] == "beta-two" and connected(row)), ROUND_SECONDS)


@pytest.mark.full
def test_one_name_claimed_twice(tmp_path: Path) -> None:
    """The name stays with the node first seen with it; the later one shows as NAME~XXXXXX everywhere."""
    nodes = [Node(tmp_path, name, "--name", name[:4]) for name in ("hub", "twin1", "twin2")]
    hub, first, second = nodes
    try:
        for node in nodes:
            node.start()
        join(NETWORK, hub, first)
        second.create(NETWORK)
        second.register(hub)
        ids = [first.peer_id, second.peer_id]
        later = f"twin~{ids[1][-6:]}"
        hub.await_row(ids[1], lambda row: bool(row["name"] == later), SHOWN_WITHIN)
        for name, peer_id in (("twin", ids[0]), (later, ids[1]), (ids[1], ids[1]), (ids[1][-8:], ids[1])):
            assert hub.json("nodes", "show", name)["peer_id"] == peer_id
        # On the second itself the name is its own, and the first is the later claimant.
        second.await_row(ids[0], lambda row: bool(row["name"] == f"twin~{ids[0][-6:]}"), SHOWN_WITHIN)
        # Renaming into a name that is taken is refused; a free one frees the old.
        taken = hub.ctl("rename", "twin", check=False)
        assert (taken.code, taken.out) == (6, "")
        assert ids[0] in taken.err
        hub.ctl("nodes", "alias", ids[1], "two")
        assert hub.json("nodes", "show", "two")["peer_id"] == ids[1]
        # Restarted, the owner is the same one.
        hub.stop()
        hub.start()
        assert hub.json("nodes", "show", "twin")["peer_id"] == ids[0]
    finally:
        for node in nodes:
            node.close()


def test_two_names_and_parts(one: Node) -> None:
    """A name stays with the first that claims it, the later one shows as NAME~XXXXXX; a part that several
    peer IDs have is an error that lists them all."""
    one.create(NETWORK)
    door = Door.of(one)

    async def scene() -> list[str]:
        found = []
        for seed in ALIKE:
            async with peer(seed.to_bytes(32, "big")) as member:
                found.append(member.peer_id)
                await claim(member, "same")
        return found

    async def claim(member: Peer, name: str) -> None:
        connection = await member.join(door, NETWORK)
        assert await push(connection, NETWORK, [member.sign(member.record(NETWORK, name)).envelope])

    ids = act(scene)
    later = f"same~{ids[1][-6:]}"
    for ref, shown, peer_id in (("same", "same", ids[0]), (later, later, ids[1]), (ids[1], later, ids[1])):
        detail = one.json("nodes", "show", ref)
        assert (detail["peer_id"], detail["name"]) == (peer_id, shown)
    refused = one.ctl("nodes", "show", SHARED_PART, check=False)
    assert refused.code == 2
    assert refused.err.count("\n") == 1
    for peer_id in ids:
        assert peer_id in refused.err
    for bad in (("proxy", "add", "egress", "8084", f"{SHARED_PART}:80"), ("nodes", "block", SHARED_PART)):
        assert one.ctl(*bad, check=False).code == 2
    assert one.json("proxy") == []
    # One character more than both have decides.
    longer = next(ids[0][at - 1 : at + 6] for at in [ids[0].index(SHARED_PART)])
    assert one.json("nodes", "show", longer)["peer_id"] == ids[0]
    # Too short a part means nothing, and neither does the prefix that all have.
    for short in (SHARED_PART[:5], "12D3Ko", "12D3KooW"):
        assert one.ctl("nodes", "show", short, check=False).code == 5

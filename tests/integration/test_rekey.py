"""A network's password is changed while it is used: nobody is cut who moves in time, whoever does not is."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
import trio

from hived.overlay.connection import Connection
from hived.overlay.joinhandshake import JOIN
from hived.overlay.membership import Answer, Hello
from hived.overlay.wire import receive, send
from hived.transport.muxstream import MuxedStream
from tests.integration.nodes import PASSWORD, Node, cluster, connected, free_port, join
from tests.integration.peer import Door, act, key_of, peer, push
from tests.integration.services import Service, connect, echo, receive_exactly, service
from tests.integration.tunnels import ending

NEW = "new-battery-staple-correct-horse"
NETWORK = "red"


@pytest.fixture
def three(tmp_path: Path) -> Iterator[list[Node]]:
    with cluster(tmp_path, "alpha", "beta", "gamma") as nodes:
        join(NETWORK, *nodes)
        yield nodes


@pytest.fixture
def target() -> Iterator[Service]:
    with service(echo) as running:
        yield running


def rekey(node: Node, *more: str, password: str = "") -> dict[str, Any]:
    given = ["--password-stdin"] if password else []
    answer = node.ctl("networks", "rekey", NETWORK, *more, *given, "--json", stdin=f"{password}\n").json()
    assert isinstance(answer, dict)
    return answer


def not_moved(node: Node) -> list[str]:
    return list(node.json("networks")[0]["not_moved"])


def seconds(when: str) -> float:
    return datetime.fromisoformat(when).timestamp()


def linked(node: Node, other: Node) -> None:
    node.await_row(other, connected, 10)


def test_two_phases(three: list[Node], target: Service) -> None:
    """Alpha makes a new password, beta moves, gamma does not; proxies run through it all until the end."""
    alpha, beta, gamma = three
    port = free_port()
    beta.ctl("proxy", "add", "ingress", f"{alpha.peer_id}:{port}", str(target.port))
    alpha.ctl("proxy", "add", "egress", str(port), f"beta:{target.port}", "--bind", "127.0.0.1")
    with connect(port) as client:
        client.sendall(b"one")
        assert receive_exactly(client, 3) == b"one"
        made = rekey(alpha)
        assert made["until"]
        assert len(made["password"]) >= 22
        assert made["not_moved"] == ["beta", "gamma"]

        # Nobody makes a second password by mistake, and everybody is told of the first.
        again = alpha.ctl("networks", "rekey", NETWORK, check=False)
        assert again.code == 6
        await_warnings(beta, "--join")
        second = beta.ctl("networks", "rekey", NETWORK, check=False)
        assert (second.code, second.err.count("\n")) == (6, 1)
        assert "alpha says that it has made one" in second.err

        assert rekey(beta, "--join", password=made["password"])["until"]
        for node in (alpha, beta):
            node.watch(
                ["status", "--watch", "--json"], lambda s: s["networks"][0]["not_moved"] == ["gamma"], 5
            )

        # Both restart: what counts, and who has moved, is kept; gamma still gets in.
        for node in (alpha, beta):
            node.stop()
            node.start()
        for one, other in ((alpha, beta), (alpha, gamma), (beta, gamma)):
            linked(one, other)
        assert not_moved(alpha) == ["gamma"]

    with connect(port) as client:
        client.sendall(b"two")
        assert receive_exactly(client, 3) == b"two"
        # The end of the grace time: gamma is cut, at once; the connection of those who moved lives.
        for node in (alpha, beta):
            node.ctl("networks", "rekey", NETWORK, "--now")
            node.await_row(gamma, lambda row: row["path"] == "none", 5)
        client.sendall(b"three")
        assert receive_exactly(client, 5) == b"three"
    gamma.watch(["status", "--watch", "--json"], lambda s: any("refuses us" in w for w in s["warnings"]), 15)

    # And comes back with the new password.
    gamma.ctl(
        "networks", "rekey", NETWORK, "--join", "--now", "--password-stdin", stdin=made["password"] + "\n"
    )
    for node in (alpha, beta):
        linked(gamma, node)


def test_now(three: list[Node]) -> None:
    """Without a grace time the others are cut at once, and a newcomer needs the new password."""
    alpha, beta, _ = three
    assert rekey(alpha, "--now", password=NEW)["until"] is None
    alpha.await_row(beta, lambda row: row["path"] == "none", 5)
    assert alpha.json("networks")[0]["rekey_until"] is None
    assert rekey(beta, "--now", "--join", password=NEW)["until"] is None
    linked(alpha, beta)


def test_the_grace_time_ends_by_itself(tmp_path: Path) -> None:
    """Over a restart too, and with nobody there."""
    with cluster(tmp_path, "alpha", "beta") as (alpha, beta):
        join(NETWORK, alpha, beta)
        rekey(alpha, "--grace", "3s", password=NEW)
        alpha.kill()
        alpha.start()
        alpha.watch(["status", "--watch", "--json"], lambda s: s["networks"][0]["rekey_until"] is None, 20)
        alpha.await_row(beta, lambda row: row["path"] == "none", 10)
        beta.await_row(alpha, lambda row: row["path"] == "none", 10)


def test_a_newcomer_in_the_grace_time(tmp_path: Path) -> None:
    """It may come with either password; with the new one it counts as moved."""
    with cluster(tmp_path, "alpha", "beta", "gamma") as (alpha, beta, gamma):
        alpha.create(NETWORK)
        rekey(alpha, password=NEW)
        beta.create(NETWORK, NEW)
        gamma.create(NETWORK, PASSWORD)
        for node in (beta, gamma):
            node.register(alpha)
            linked(node, alpha)
        assert not_moved(alpha) == ["gamma"]


def test_a_member_cannot_stop_its_own_eviction(tmp_path: Path) -> None:
    """It says that it has made a new password: that is a claim, and the admin's own word goes through."""

    async def say(*capabilities: str) -> None:
        async with peer(seed=b"m" * 32) as mallory:
            connection = await mallory.join(Door.of(alpha), NETWORK)
            record = mallory.record(NETWORK, "mallory", capabilities=list(capabilities))
            assert await push(connection, NETWORK, [mallory.sign(record).envelope])

    with cluster(tmp_path, "alpha") as (alpha,):
        alpha.create(NETWORK)
        soon = int(time.time()) + 3600
        act(lambda: say(f"rekey/{soon}"))
        # While it is known to have our password and no newer one, it is not even heard.
        assert not any("mallory" in warning for warning in alpha.json("status")["warnings"])
        alpha.stop()
        alpha.start()
        refused = alpha.ctl("networks", "rekey", NETWORK, check=False)
        assert refused.code == 6
        assert "mallory says" in refused.err
        assert "--now" in refused.err
        # A time that no hived sets is not even heard.
        act(lambda: say("rekey/999999999999"))
        assert not any("mallory" in warning for warning in alpha.json("status")["warnings"])
        act(lambda: say(f"rekey/{soon}"))
        assert rekey(alpha, "--now")["password"]


def warnings(node: Node) -> str:
    return " ".join(node.json("status")["warnings"])


def await_warnings(node: Node, text: str, *, there: bool = True, seconds: float = 5) -> None:
    """Until status warns of something, or no more."""
    node.watch(
        ["status", "--watch", "--json"], lambda s: any(text in w for w in s["warnings"]) == there, seconds
    )


def test_join_takes_what_a_member_made(three: list[Node]) -> None:
    """A password typed wrong changes nothing; the right one ends when its maker says."""
    alpha, beta, _ = three
    made = rekey(alpha, "--grace", "30m")
    await_warnings(beta, "--join")
    wrong = beta.ctl(
        "networks", "rekey", NETWORK, "--join", "--password-stdin", stdin="alas-wrong-word\n", check=False
    )
    assert (wrong.code, wrong.err.count("\n")) == (4, 1), wrong
    assert "alpha has another one" in wrong.err
    assert beta.json("networks")[0]["rekey_until"] is None
    taken = rekey(beta, "--join", password=made["password"])
    assert taken["moved"] == ["alpha"]
    assert taken["not_moved"] == ["gamma"]
    assert abs(seconds(taken["until"]) - seconds(made["until"])) < 60
    assert "is being rekeyed" in warnings(alpha)
    assert "not moved: gamma" in warnings(alpha)
    assert "another" not in warnings(alpha) + warnings(beta)


def test_a_member_that_lies_does_not_hide_the_one_that_has_it(tmp_path: Path) -> None:
    """Mallory says that it has made a password, and asks for patience when it is to prove that."""
    with cluster(tmp_path, "alpha", "beta") as (alpha, beta):
        join(NETWORK, alpha, beta)
        done = threading.Event()

        async def lie() -> None:
            async def waits(stream: MuxedStream, connection: Connection) -> None:
                await receive(stream, Hello)
                await send(stream, Answer(wait=300))
                await stream.send_eof()

            async with peer(seed=b"m" * 32) as mallory:
                connection = await mallory.join(Door.of(beta), NETWORK)
                mallory.host.handlers[JOIN] = waits
                soon = int(time.time()) + 3600
                record = mallory.record(NETWORK, "mallory", capabilities=[f"rekey/{soon}"])
                assert await push(connection, NETWORK, [mallory.sign(record).envelope])
                # As one who has another: its two keys meet beta's one in the older of them.
                keys = (key_of(NETWORK, word) for word in (PASSWORD, "another password"))
                mallory.membership.set_network(NETWORK, *keys)
                await mallory.membership.join(connection, NETWORK, renew=True)
                await trio.to_thread.run_sync(done.wait)

        with ThreadPoolExecutor(1) as pool:
            lying = pool.submit(act, lie)
            try:
                await_warnings(beta, "mallory says")
                rekey(alpha, password=NEW)
                await_warnings(beta, "alpha, mallory say")
                assert rekey(beta, "--join", password=NEW)["moved"] == ["alpha"]
            finally:
                done.set()
                lying.result(10)


def test_the_maker_is_told_nothing_of_its_own_password(three: list[Node]) -> None:
    """It ended the former one at once; the others take the new one with a grace time."""
    alpha, beta, gamma = three
    made = rekey(alpha, "--now", password=NEW)
    assert made["not_moved"] == ["beta", "gamma"]
    for node in (beta, gamma):
        rekey(node, "--join", "--grace", "1h", password=NEW)
        linked(alpha, node)
    assert warnings(alpha) == ""
    # And may do it again.
    assert rekey(alpha)["until"]


def test_who_comes_late_ends_the_former_password_too(three: list[Node]) -> None:
    """Alpha has shut somebody out at once: whoever takes the new password there leaves no door open."""
    alpha, beta, _ = three
    rekey(alpha, "--now", password=NEW)
    for node in (alpha, beta):
        node.await_row(beta if node is alpha else alpha, lambda row: row["path"] == "none", 5)
    await_warnings(beta, "refuses us", seconds=15)
    wrong = beta.ctl(
        "networks", "rekey", NETWORK, "--join", "--password-stdin", stdin="alas-wrong-word\n", check=False
    )
    assert (wrong.code, wrong.err.count("\n")) == (4, 1), wrong
    assert "alpha has another one" in wrong.err
    assert rekey(beta, "--join", password=NEW)["until"] is None
    linked(beta, alpha)


def test_who_goes_back_is_not_moved(three: list[Node]) -> None:
    alpha, beta, _ = three
    made = rekey(alpha)
    rekey(beta, "--join", password=made["password"])
    alpha.watch(["status", "--watch", "--json"], lambda s: s["networks"][0]["not_moved"] == ["gamma"], 5)
    former = beta.ctl("networks", "rekey", NETWORK, "--password-stdin", stdin=PASSWORD + "\n", check=False)
    assert (former.code, former.err.count("\n")) == (6, 1)
    assert "--cancel" in former.err
    rekey(beta, "--cancel")
    alpha.watch(
        ["status", "--watch", "--json"], lambda s: s["networks"][0]["not_moved"] == ["beta", "gamma"], 5
    )
    # A grace time that runs is made shorter by naming another.
    assert seconds(rekey(alpha, "--grace", "1h")["until"]) < time.time() + 3700


def test_two_passwords(three: list[Node]) -> None:
    """Two admins on two nodes: both are told, and one of them gives way."""
    alpha, beta, _ = three
    rekey(alpha, password=NEW)
    rekey(beta, password="another-battery-staple")
    for node, other in ((alpha, "beta"), (beta, "alpha")):
        await_warnings(node, f"{other} made another new password")
    rekey(beta, "--join", password=NEW)
    for node in (alpha, beta):
        await_warnings(node, "another new password", there=False)


def test_going_back(three: list[Node]) -> None:
    """The password is lost before anybody has it: its end would cut all; --cancel takes it back."""
    alpha, beta, gamma = three
    rekey(alpha)
    slip = alpha.ctl("networks", "rekey", NETWORK, "--now", check=False)
    assert (slip.code, slip.err.count("\n")) == (6, 1)
    assert "nobody has shown the new one yet: beta, gamma would be out" in slip.err
    assert rekey(alpha, "--cancel")["cancelled"]
    assert alpha.ctl("networks", "rekey", NETWORK, "--cancel", check=False).code == 6
    # With a member that has moved: it is named, and nothing is cut for long.
    made = rekey(alpha)
    rekey(beta, "--join", password=made["password"])
    assert rekey(alpha, "--cancel")["moved"] == ["beta"]
    for node in (beta, gamma):
        linked(alpha, node)
    rekey(beta, "--cancel")
    for node in (beta, gamma):
        linked(alpha, node)
    assert alpha.json("networks")[0]["rekey_until"] is None


def test_not_over_the_connection_that_it_cuts(three: list[Node]) -> None:
    alpha, beta, _ = three
    beta.ctl("admin", "set", "admin", "--password-stdin", stdin=NEW + "\n")
    alpha.ctl("login", "--node", "beta", "--yes", "--password-stdin", stdin=NEW + "\n")
    for end in ("--now", "--cancel"):
        refused = alpha.ctl("--node", "beta", "networks", "rekey", NETWORK, end, check=False)
        assert (refused.code, refused.err.count("\n")) == (2, 1)
    assert beta.json("networks")[0]["connected"] == 2


def test_two_at_once(tmp_path: Path) -> None:
    """One makes the password, the other is told so: no admin holds one that is dead."""
    with cluster(tmp_path, "alpha") as (alpha,):
        alpha.create(NETWORK)
        with ThreadPoolExecutor(2) as pool:
            made = list(pool.map(lambda _: alpha.ctl("networks", "rekey", NETWORK, check=False), range(2)))
        assert sorted(result.code for result in made) == [0, 6]


def test_block(three: list[Node], target: Service) -> None:
    """A block cuts connections, streams and proxies at once, stays over restarts, and says what it is not."""
    alpha, beta, gamma = three
    port = free_port()
    beta.ctl("proxy", "add", "ingress", f"{alpha.peer_id}:{port}", str(target.port))
    alpha.ctl("proxy", "add", "egress", str(port), f"beta:{target.port}", "--bind", "127.0.0.1")
    with connect(port) as client:
        client.sendall(b"live")
        assert receive_exactly(client, 4) == b"live"
        done = beta.ctl("nodes", "block", "alpha")
        assert "networks rekey" in done.err + done.out
        assert ending(client) == "reset"
    assert "networks rekey" in " ".join(beta.ctl("nodes", "block", "--help").out.split())
    beta.await_row(alpha, lambda row: row["path"] == "none", 5)
    beta.kill()
    beta.start()
    linked(beta, gamma)
    row = beta.row(alpha)
    assert row is not None
    assert (row["blocked"], row["path"]) == (True, "none")
    with pytest.raises(ConnectionResetError), connect(port) as client:
        client.recv(1)
    assert "alpha is blocked here: hivectl nodes unblock alpha" in warnings(beta)
    refused = beta.ctl("--node", "alpha", "status", check=False)
    assert (refused.code, refused.err.count("\n")) == (4, 1)
    assert "nodes unblock" in refused.err
    # Forgotten too, it is still in the list, and found by its name.
    for proxied in beta.json("proxy", "ls"):
        beta.ctl("proxy", "rm", str(proxied["id"]))
    beta.ctl("nodes", "forget", "alpha")
    assert [r["peer_id"] for r in beta.json("nodes") if r["blocked"]] == [alpha.peer_id]
    beta.ctl("nodes", "unblock", "alpha")
    linked(beta, alpha)
    assert "was not blocked" in beta.ctl("nodes", "unblock", "alpha").err
    assert not_moved(beta) == []

"""Joins over real connections: the password decides, a stranger learns nothing, and guessing gets slow."""

from __future__ import annotations

import math

import pytest
import trio
from trio.testing import trio_test

from hived.overlay import membership as module
from hived.overlay.connection import STREAM_ERRORS, Connection
from hived.overlay.joinhandshake import JOIN, SHARE_BYTES, Binding, JoinHandshake
from hived.overlay.membership import Answer, Confirm, Hello, JoinDelayedError, JoinRefusedError
from hived.overlay.networkkeys import network_id
from hived.overlay.wire import ProtocolError, receive, send
from hived.transport.muxstream import MuxedStream
from tests.unit.overlay.parties import NETWORK, K, Logged, Party, party, until

WRONG = b"w" * 32


class Clock:
    """Seconds that pass when the test says so."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


async def outcome(one: Party, other: Party, network: str = NETWORK) -> str:
    """How a join on a new connection ends."""
    return await attempt(one, await one.dial(other), network)


async def attempt(one: Party, connection: Connection, network: str = NETWORK) -> str:
    """How a join on a connection ends."""
    try:
        await one.membership.join(connection, network)
    except JoinRefusedError:
        return "refused"
    except JoinDelayedError:
        return "delayed"
    return "joined"


@trio_test
async def test_a_join(logged: Logged) -> None:
    """Both sides hold the membership, tell their callbacks once, and find each other as members."""
    async with party("a") as alice, party("b") as bob:
        told: list[tuple[str, str, str]] = []
        alice.membership.on_joined.append(lambda c, n: told.append(("alice", c.peer_id, n)))
        bob.membership.on_joined.append(lambda c, n: told.append(("bob", c.peer_id, n)))
        alice.membership.name = lambda peer_id: "bobby" if peer_id == bob.peer_id else ""
        connection = await alice.joined(bob)
        await alice.membership.join(connection, NETWORK)  # a second time is nothing new
        assert sorted(told) == [("alice", bob.peer_id, NETWORK), ("bob", alice.peer_id, NETWORK)]
        assert alice.membership.members(NETWORK) == [connection]
        (theirs,) = bob.membership.members(NETWORK)
        assert bob.membership.require(theirs, network_id(NETWORK), "/p") == NETWORK
    named = {line["peer"]: line.get("name") for line in logged.having("joined")}
    assert named == {alice.peer_id: None, bob.peer_id: "bobby"}


@trio_test
async def test_a_wrong_password_and_an_unknown_network_look_the_same(logged: Logged) -> None:
    clock = Clock()
    async with party("a") as alice, party("b", clock=clock) as bob:
        for network, key in ((NETWORK, WRONG), ("no such network", K)):
            alice.membership.set_network(network, key)
            assert await outcome(alice, bob, network) == "refused"
            clock.now += 1000
        assert bob.membership.members(NETWORK) == []
        assert all(not c.memberships for c in bob.host.all_connections() + alice.host.all_connections())
    refused = logged.having("join refused")
    assert [fields["network"] for fields in refused] == [NETWORK, "(not one of ours)"]
    assert {fields["peer"] for fields in refused} == {alice.peer_id}


@trio_test
async def test_delays_grow_per_source_and_the_right_password_must_wait_too(logged: Logged) -> None:
    clock = Clock()
    async with party("a") as alice, party("b", clock=clock) as bob:
        alice.membership.set_network(NETWORK, WRONG)
        for delay in (0.5, 1.0, 2.0):
            assert await outcome(alice, bob) == "refused"
            assert await outcome(alice, bob) == "delayed"
            clock.now += delay
        alice.membership.set_network(NETWORK, K)
        assert await outcome(alice, bob) == "joined"
        assert await outcome(alice, bob) == "joined"
    assert [fields["failures"] for fields in logged.having("join refused")] == [1, 2, 3]


@trio_test
async def test_another_peer_id_at_the_same_address_shares_its_budget(logged: Logged) -> None:
    """A new key costs nothing: the source is the address."""
    clock = Clock()
    async with party("a") as alice, party("c") as carol, party("b", clock=clock) as bob:
        alice.membership.set_network(NETWORK, WRONG)
        assert await outcome(alice, bob) == "refused"
        assert await outcome(carol, bob) == "delayed"


@trio_test
async def test_known_members_have_a_budget_of_their_own(logged: Logged) -> None:
    clock = Clock()
    async with party("a") as alice, party("c") as carol, party("b", clock=clock) as bob:
        bob.known.add((carol.peer_id, NETWORK))
        alice.membership.set_network(NETWORK, WRONG)
        assert await outcome(alice, bob) == "refused"
        assert await outcome(carol, bob) == "joined"


@pytest.mark.parametrize(
    ("first", "second", "shared"),
    [
        # Through one relay come as many addresses as it likes: the relay is the source.
        (("/ip4/192.0.2.1/tcp/1", "relay"), ("/ip4/192.0.2.2/tcp/1", "relay"), True),
        (("/ip4/192.0.2.1/tcp/1", "relay"), ("/ip4/192.0.2.1/tcp/1", "another"), False),
        (("/ip4/192.0.2.1/tcp/1", "relay"), ("/ip4/192.0.2.1/tcp/1", None), False),
        # One customer has a /64 of IPv6 addresses.
        (("/ip6/2001:db8::1/tcp/1", None), ("/ip6/2001:db8::ffff:2/tcp/9", None), True),
        (("/ip6/2001:db8::1/tcp/1", None), ("/ip6/2001:db8:0:1::1/tcp/1", None), False),
        (("/ip4/192.0.2.1/tcp/1", None), ("/ip4/192.0.2.2/tcp/1", None), False),
    ],
)
def test_who_shares_a_budget(
    first: tuple[str, str | None], second: tuple[str, str | None], shared: bool, logged: Logged
) -> None:
    clock = Clock()

    async def scene() -> None:
        async with party("a") as alice, party("c") as carol, party("b", clock=clock) as bob:
            for one, (address, relay) in ((alice, first), (carol, second)):
                await one.dial(bob)
                await until(lambda one=one: bool(bob.host.connections.get(one.peer_id)))  # type: ignore[misc]
                [theirs] = bob.host.connections[one.peer_id]
                theirs.address, theirs.relay = address, relay
            alice.membership.set_network(NETWORK, WRONG)
            for one, expected in ((alice, "refused"), (carol, "delayed" if shared else "joined")):
                connection = one.host.find(bob.peer_id)
                assert connection is not None
                assert await attempt(one, connection) == expected

    trio.run(scene)


@trio_test
async def test_one_password_does_not_forgive_guesses_at_another(logged: Logged) -> None:
    """Alice is a member of one network, and guesses at the other from the same address."""
    clock = Clock()
    async with party("a") as alice, party("b", clock=clock) as bob:
        bob.membership.set_network("blue", K)
        alice.membership.set_network("blue", WRONG)
        assert await outcome(alice, bob, "blue") == "refused"
        assert await outcome(alice, bob) == "joined"
        assert await outcome(alice, bob, "blue") == "delayed"


@trio_test
async def test_a_dialer_counts_its_failures_too(logged: Logged) -> None:
    """Whoever answers a join has one guess at our password: its address waits as a stranger's does."""
    clock = Clock()
    async with party("a", clock=clock) as alice, party("b") as bob, party("c") as carol:
        for one in (bob, carol):
            one.membership.set_network(NETWORK, WRONG)
        # The answerers hold nobody back here, so that only alice's own count shows.
        for one in (bob, carol):
            one.membership._guesses.failed = lambda source, now: 0.0  # type: ignore[method-assign]
        for _ in range(4):
            assert await outcome(alice, bob) == "refused"
            clock.now += 2.0
        # 0.5, 1, 2, and now 4 s after the fourth; beyond 5 s it does not even try.
        clock.now += 10.0
        assert await outcome(alice, bob) == "refused"
        assert await outcome(alice, carol) == "delayed"


@trio_test
async def test_stopping_before_the_proof_counts_as_a_guess(logged: Logged) -> None:
    clock = Clock()
    async with party("a") as alice, party("b", clock=clock) as bob:
        connection = await alice.dial(bob)
        stream = await connection.open_stream(JOIN)
        await send(stream, Hello(network=network_id(NETWORK), share=b"B" + bytes(SHARE_BYTES - 1)))
        with pytest.raises(STREAM_ERRORS):
            await receive(stream, Answer)  # no share: the point is of small order
        await until(lambda: bool(logged.having("join refused")))
        assert await outcome(alice, bob) == "delayed"
        clock.now += 1.0
        honest = JoinHandshake(
            K, Binding(network_id(NETWORK), alice.peer_id, bob.peer_id, b"another"), opener=True
        )
        stream = await connection.open_stream(JOIN)
        await send(stream, Hello(network=network_id(NETWORK), share=honest.share))
        assert len((await receive(stream, Answer)).share) == SHARE_BYTES
        stream.reset()
        await until(lambda: bool(logged.having("join refused")))
        assert await outcome(alice, bob) == "delayed"


@pytest.mark.parametrize("bad", [b"", b"\x00\x00\x00\x01\xc0", b"\xff\xff\xff\xff", b"\x00\x00\x00\x04\x80"])
def test_garbage_on_the_join_protocol(bad: bytes, logged: Logged) -> None:
    async def main() -> None:
        async with party("a") as alice, party("b") as bob:
            connection = await alice.dial(bob)
            stream = await connection.open_stream(JOIN)
            await stream.send_all(bad)
            await stream.send_eof()
            with pytest.raises(STREAM_ERRORS):
                assert await stream.receive_some(1)
                raise ProtocolError("an answer to garbage")
            assert await outcome(alice, bob) == "joined"

    trio.run(main)


@trio_test
async def test_an_answerer_without_the_key_is_refused(logged: Logged) -> None:
    """An impostor takes our share, answers what it likes, and gets no membership."""
    async with party("a") as alice, party("b") as bob:
        for share in (b"", b"A" * SHARE_BYTES, b"B" + b"\x09" * (SHARE_BYTES - 1)):

            async def impostor(stream: MuxedStream, connection: object, share: bytes = share) -> None:
                await receive(stream, Hello)
                await send(stream, Answer(share=share))
                await receive(stream, Confirm)
                await send(stream, Confirm(proof=b"x" * 32))
                await stream.receive_some(1)

            bob.host.handlers[JOIN] = impostor
            connection = await alice.dial(bob)
            with pytest.raises((JoinRefusedError, *STREAM_ERRORS)):
                await alice.membership.join(connection, NETWORK)
            assert not connection.memberships
            assert not connection.usable


@trio_test
async def test_an_answerer_that_reads_the_proof_and_goes_has_guessed(logged: Logged) -> None:
    """It saw whether its guess was right: without its own proof the next join there has to wait."""
    async with party("a") as alice, party("b") as bob:

        async def peeper(stream: MuxedStream, connection: Connection) -> None:
            hello = await receive(stream, Hello)
            binding = Binding(hello.network, alice.peer_id, bob.peer_id, connection.handshake_hash)
            await send(stream, Answer(share=JoinHandshake(b"guess" * 6, binding, opener=False).share))
            await receive(stream, Confirm)
            stream.reset()

        bob.host.handlers[JOIN] = peeper
        with pytest.raises(STREAM_ERRORS):
            await alice.membership.join(await alice.dial(bob), NETWORK)
        began = trio.current_time()
        with pytest.raises(STREAM_ERRORS):
            await alice.membership.join(await alice.dial(bob), NETWORK)
        assert trio.current_time() - began >= 0.4


@pytest.mark.parametrize(
    ("wait", "taken"), [(5, 5), (0.001, 1), (1e9, 300), (math.inf, 300), (math.nan, 300), (-7, 1)]
)
def test_a_peers_wait_is_made_sane(wait: float, taken: float, logged: Logged) -> None:
    async def main() -> None:
        async with party("a") as alice, party("b") as bob:

            async def waiter(stream: MuxedStream, connection: object) -> None:
                await receive(stream, Hello)
                await send(stream, Answer(wait=wait))
                await stream.send_eof()
                await stream.receive_some(1)

            bob.host.handlers[JOIN] = waiter
            with pytest.raises(JoinDelayedError) as caught:
                await alice.membership.join(await alice.dial(bob), NETWORK)
            assert caught.value.seconds == taken

    trio.run(main)


@trio_test
async def test_networks_do_not_leak(logged: Logged) -> None:
    """A membership is of one network: the other is not open, and asking for it looks like no network."""
    async with party("a", network="one") as alice, party("b", network="one") as bob:
        bob.membership.set_network("two", b"2" * 32)
        await alice.joined(bob, "one")
        (theirs,) = bob.membership.members("one")
        assert bob.membership.members("two") == []
        texts = []
        for wanted in (network_id("two"), network_id("none"), b"", b"x"):
            with pytest.raises(ProtocolError) as caught:
                bob.membership.require(theirs, wanted, "/p")
            texts.append(str(caught.value))
        assert len(set(texts)) == 1
        alice.membership.set_network("two", b"2" * 32)
        (ours,) = alice.membership.members("one")
        await alice.membership.join(ours, "two")
        await until(lambda: bob.host.find(alice.peer_id, "two") is not None)
        assert theirs.memberships == {"one", "two"}


@trio_test
async def test_leaving_ends_the_memberships(logged: Logged) -> None:
    async with party("a") as alice, party("b") as bob:
        connection = await alice.joined(bob)
        bob.membership.drop_network(NETWORK)
        assert bob.membership.members(NETWORK) == []
        await connection.muxer.closed.wait()
        assert await outcome(alice, bob) == "refused"
        with pytest.raises(KeyError):
            await bob.membership.join(await bob.dial(alice), NETWORK)


@trio_test
async def test_many_joins_at_once_from_one_source_are_bounded(logged: Logged) -> None:
    async with party("a") as alice, party("b") as bob:
        connections = [await alice.dial(bob) for _ in range(6)]
        results: list[str] = []

        async def one(connection: Connection) -> None:
            try:
                await alice.membership.join(connection, NETWORK)
                results.append("joined")
            except JoinDelayedError:
                results.append("delayed")

        streams = [await c.open_stream(JOIN) for c in connections[: module.MAX_ACTIVE]]
        share = JoinHandshake(
            K, Binding(network_id(NETWORK), alice.peer_id, bob.peer_id, b""), opener=True
        ).share
        for stream in streams:
            await send(stream, Hello(network=network_id(NETWORK), share=share))
            await receive(stream, Answer)
        await one(connections[-1])
        for stream in streams:
            stream.reset()
        assert results == ["delayed"]

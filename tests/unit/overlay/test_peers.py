"""The dialer: keeps connections, races addresses, says why not, and stops where it was refused."""

from __future__ import annotations

import socket
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field

import pytest
import trio
from trio.testing import trio_test

from hived.errors import HiveError, Kind
from hived.overlay.connection import STREAM_ERRORS, Connection
from hived.overlay.peers import MAX_REFUSED, Peers, Wishes
from hived.overlay.quota import Allowance
from hived.transport.muxstream import MuxedStream
from tests.unit.overlay.parties import NETWORK, K, Logged, Party, party, until

WRONG = b"w" * 32


@dataclass
class Wanted:
    """What the dialer is to want; changed by the tests."""

    addresses: dict[str, list[str]] = field(default_factory=dict)
    peers: dict[str, bool] = field(default_factory=dict)
    networks: list[str] = field(default_factory=lambda: [NETWORK])
    refused: list[tuple[str, str, int]] = field(default_factory=list)

    def want(self, other: Party, *before: str) -> None:
        self.addresses[other.peer_id] = [*before, other.address]
        self.peers[other.peer_id] = True


@asynccontextmanager
async def dialer(one: Party) -> AsyncIterator[tuple[Peers, Wanted]]:
    wanted = Wanted()
    wishes = Wishes(
        addresses=lambda peer_id: wanted.addresses.get(peer_id, []),
        networks=lambda peer_id: wanted.networks,
        wanted=lambda: dict(wanted.peers),
        refused=lambda *what: wanted.refused.append(what),
        name=lambda peer_id: "bobby",
    )
    peers = Peers(one.host, one.membership, wishes)
    async with trio.open_nursery() as nursery:
        await nursery.start(peers.run)
        yield peers, wanted
        nursery.cancel_scope.cancel()


def closed_port() -> str:
    with socket.create_server(("127.0.0.1", 0)) as gone:
        return f"/ip4/127.0.0.1/tcp/{gone.getsockname()[1]}"


async def failure(peers: Peers, other: Party) -> HiveError:
    with pytest.raises(HiveError) as caught:
        await peers.connection(other.peer_id, NETWORK)
    return caught.value


@trio_test
async def test_a_wanted_peer_is_connected_and_joined_and_again_after_a_close(logged: Logged) -> None:
    async with party("a") as alice, party("b") as bob, dialer(alice) as (peers, wanted):
        wanted.want(bob)
        peers.refresh()
        await until(lambda: alice.host.find(bob.peer_id, NETWORK) is not None)
        first = alice.host.find(bob.peer_id, NETWORK)
        bob.host.close_peer(alice.peer_id)
        await until(lambda: alice.host.find(bob.peer_id, NETWORK) not in (None, first))
        assert bob.peer_id in peers.contacts
        assert peers.links[bob.peer_id].error == ""


def cut(connection: Connection, one: Party) -> None:
    """End it as a crash of ``one``, whose end it is, would."""
    one.host.plane.call(connection.muxer.tunnel.end, "crashed", None)


@trio_test
async def test_a_lost_member_is_told_of_once(logged: Logged) -> None:
    async with party("a") as alice, party("b") as bob, dialer(alice) as (peers, wanted):
        wanted.want(bob)
        peers.refresh()
        await until(lambda: alice.host.find(bob.peer_id, NETWORK) is not None)
        await until(lambda: bob.host.find(alice.peer_id, NETWORK) is not None)
        theirs = bob.host.find(alice.peer_id, NETWORK)
        ours = alice.host.find(bob.peer_id, NETWORK)
        assert theirs is not None
        assert ours is not None
        heard = ours.heard
        cut(theirs, bob)
        await until(lambda: bool(logged.having("connection lost")))
        (line,) = logged.having("connection lost")
        assert line["peer"] == bob.peer_id
        assert line["name"] == "bobby"
        assert line["why"] == "the peer closed the connection"
        assert line["stood"] == "0 s"
        assert (line["streams_cut"], line["proxied"]) == (0, 0)
        assert heard <= peers.contacts[bob.peer_id] <= time.time()


@trio_test
async def test_an_orderly_end_and_a_strangers_are_not_told_of(logged: Logged) -> None:
    async with (
        party("a") as alice,
        party("b") as bob,
        party("c", network=None) as carol,
        dialer(alice) as (
            peers,
            wanted,
        ),
    ):
        wanted.want(bob)
        peers.refresh()
        await until(lambda: alice.host.find(bob.peer_id, NETWORK) is not None)
        first = alice.host.find(bob.peer_id, NETWORK)
        bob.host.close_peer(alice.peer_id)
        await until(lambda: alice.host.find(bob.peer_id, NETWORK) not in (None, first))
        alice.host.close_peer(bob.peer_id)
        cut(await carol.dial(alice), carol)
        await until(lambda: len(logged.having("disconnected")) >= 6)
        assert not logged.having("connection lost")


@pytest.mark.parametrize("which", ["_lines", "_all_lines"])
@trio_test
async def test_a_member_that_comes_and_goes_does_not_fill_the_log(logged: Logged, which: str) -> None:
    """By the peer, and by all of them together."""
    async with party("a") as alice, party("b") as bob, dialer(alice) as (peers, _):
        setattr(peers, which, Allowance(burst=3, rate=0))
        ended: list[Connection] = []
        alice.host.on_disconnected.append(ended.append)
        for count in range(1, 7):
            cut(await bob.joined(alice), bob)
            await until(lambda count=count: len(ended) == count)  # type: ignore[misc]
        assert len(logged.having("connection lost")) == 3
        setattr(peers, which, Allowance(burst=1, rate=0))
        cut(await bob.joined(alice), bob)
        await until(lambda: len(ended) == 7)
        assert logged.having("connection lost")[-1]["more_before"] == 3


@trio_test
async def test_a_peer_that_refuses_everything_is_left_alone(logged: Logged) -> None:
    """After three refused joins there is nothing to dial for, on either side, until somebody says so."""
    async with party("a") as alice, party("b") as bob, dialer(alice) as (peers, wanted):
        bob.membership.set_network(NETWORK, b"w" * 32)
        dials = 0

        def count(connection: Connection) -> None:
            nonlocal dials
            dials += 1

        alice.host.on_connected.append(count)
        wanted.want(bob)
        peers.refresh()
        await until(lambda: bob.peer_id in peers.links and peers.links[bob.peer_id].refused.get(NETWORK) == 3)
        await until(lambda: not alice.host.connections.get(bob.peer_id))
        before = dials
        await trio.sleep(1)
        assert dials == before
        bob.membership.set_network(NETWORK, K)
        peers.kick(bob.peer_id, forgive=True)
        await until(lambda: alice.host.find(bob.peer_id, NETWORK) is not None)


@trio_test
async def test_no_longer_wanted(logged: Logged) -> None:
    async with party("a") as alice, party("b") as bob, dialer(alice) as (peers, wanted):
        wanted.addresses[bob.peer_id] = [closed_port()]
        wanted.peers[bob.peer_id] = True
        peers.refresh()
        await until(lambda: bool(peers.links[bob.peer_id].error))
        wanted.peers.clear()
        peers.refresh()
        assert peers.links == {}


@trio_test
async def test_on_demand(logged: Logged) -> None:
    """A peer that nobody wants kept is dialled when somebody needs it."""

    async def echo(stream: MuxedStream, connection: Connection) -> None:
        await stream.send_all(await stream.receive_some())
        await stream.send_eof()

    async with party("a") as alice, party("b") as bob, dialer(alice) as (peers, wanted):
        bob.host.member_handlers["/echo"] = echo
        wanted.addresses[bob.peer_id] = [bob.address]
        stream, connection = await peers.open_stream(bob.peer_id, NETWORK, "/echo")
        await stream.send_all(b"x")
        assert await stream.receive_some() == b"x"
        assert await peers.connection(bob.peer_id, NETWORK) is connection
        with pytest.raises(HiveError) as caught:
            await peers.open_stream(bob.peer_id, NETWORK, "/no/such")
        assert caught.value.kind is Kind.UNREACHABLE


@trio_test
async def test_addresses_are_raced(logged: Logged) -> None:
    """One refuses, one never answers, one is right: that wins, and is remembered."""
    async with party("a") as alice, party("b") as bob, dialer(alice) as (peers, wanted):
        with socket.socket() as mute:
            mute.bind(("127.0.0.1", 0))
            mute.listen(0)
            silent = f"/ip4/127.0.0.1/tcp/{mute.getsockname()[1]}"
            refuses = closed_port()
            wanted.want(bob, refuses, silent)
            connection = await peers.connection(bob.peer_id, NETWORK)
            link = peers.links[bob.peer_id]
            assert connection.address == link.tries.last_good == bob.address
            assert link.errors == {refuses: "connection refused"}


@trio_test
async def test_why_a_peer_cannot_be_reached(logged: Logged) -> None:
    async with party("a") as alice, party("b") as bob, party("c") as carol, dialer(alice) as (peers, wanted):
        error = await failure(peers, bob)
        assert (error.kind, error.why) == (Kind.UNREACHABLE, "no address of it is known")
        refuses = closed_port()
        wanted.addresses[bob.peer_id] = [refuses]
        error = await failure(peers, bob)
        assert error.kind is Kind.UNREACHABLE
        assert error.why == f"{refuses}: connection refused"
        wanted.addresses[bob.peer_id] = [carol.address]
        assert (await failure(peers, bob)).why == f"{carol.address}: another node answers there"
        told = logged.having("cannot reach a peer")
        assert {(line["peer"], line["name"]) for line in told} == {(bob.peer_id, "bobby")}
        error = await failure(peers, alice)
        assert error.why == "this is the node itself"
        assert bob.peer_id in error.line() or alice.peer_id not in peers.links


@trio_test
async def test_refused_three_times_stops_until_told(logged: Logged) -> None:
    """A wrong password is not tried for ever; registering again forgives."""
    async with party("a") as alice, party("b") as bob, dialer(alice) as (peers, wanted):
        alice.membership.set_network(NETWORK, WRONG)
        wanted.addresses[bob.peer_id] = [bob.address]
        error = await failure(peers, bob)
        assert error.kind is Kind.DENIED
        assert "password differs" in error.why
        (line,) = logged.having("a peer refused us")
        assert (line["peer"], line["name"]) == (bob.peer_id, "bobby")
        link = peers.links[bob.peer_id]
        link.refused[NETWORK] = MAX_REFUSED
        wanted.refused.clear()
        alice.membership.set_network(NETWORK, b"k" * 32)
        assert (await failure(peers, bob)).kind is Kind.DENIED
        assert wanted.refused == []  # it was not even tried
        wanted.want(bob)
        peers.refresh()
        bob.membership._guesses.succeeded("/ip4/127.0.0.1")
        peers.kick(bob.peer_id, forgive=True)
        await until(lambda: alice.host.find(bob.peer_id, NETWORK) is not None)


@trio_test
async def test_each_refusal_is_told_to_the_store(logged: Logged) -> None:
    async with party("a") as alice, party("b") as bob, dialer(alice) as (peers, wanted):
        alice.membership.set_network(NETWORK, WRONG)
        for count in (1, 2, 3):
            bob.membership._guesses.succeeded("/ip4/127.0.0.1")
            wanted.want(bob)
            peers.refresh()
            peers.kick()
            await until(lambda: len(wanted.refused) >= count)  # noqa: B023 - awaited before the loop goes on
        assert wanted.refused[:3] == [(bob.peer_id, NETWORK, count) for count in (1, 2, 3)]


@trio_test
async def test_where_both_dial_both_end_up_joined(logged: Logged) -> None:
    async with (
        party("a") as alice,
        party("b") as bob,
        dialer(alice) as (ours, our_wishes),
        dialer(bob) as (theirs, their_wishes),
    ):
        our_wishes.want(bob)
        their_wishes.want(alice)
        ours.refresh()
        theirs.refresh()
        await until(
            lambda: (
                alice.host.find(bob.peer_id, NETWORK) is not None
                and bob.host.find(alice.peer_id, NETWORK) is not None
            )
        )


@pytest.mark.parametrize(
    "share", [b"", b"A" * 33, b"B" + bytes(31) + b"\x01", b"B\x02" + bytes(31), b"B" + b"\xff" * 32]
)
def test_a_hostile_peer_does_not_end_the_dialer(share: bytes, logged: Logged) -> None:
    """Whatever a dialled peer answers in the join, the keepers go on."""
    from hived.overlay.joinhandshake import JOIN
    from hived.overlay.membership import Answer, Hello
    from hived.overlay.wire import receive, send

    async def main() -> None:
        async with (
            party("a") as alice,
            party("b") as eve,
            party("c") as bob,
            dialer(alice) as (peers, wanted),
        ):
            tried = trio.Event()

            async def hostile(stream: MuxedStream, connection: Connection) -> None:
                await receive(stream, Hello)
                await send(stream, Answer(share=share))
                with suppress(*STREAM_ERRORS):
                    await stream.receive_some(1)
                tried.set()

            eve.host.handlers[JOIN] = hostile
            wanted.want(eve)
            wanted.want(bob)
            peers.refresh()
            await tried.wait()
            await until(lambda: alice.host.find(bob.peer_id, NETWORK) is not None)

    trio.run(main)

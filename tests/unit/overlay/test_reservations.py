"""Which relays a node reserves on, when it renews, and what it does about one that is lost or refuses."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field

import trio
from trio.testing import trio_test

from hived.overlay.circuits import Circuits
from hived.overlay.relay import Relay, RelayLimits
from hived.overlay.reservations import TARGET, Candidate, Reservations
from tests.unit.overlay.parties import Logged, Party, party, until


@dataclass
class Scene:
    """One node, and as many relays as there are letters; it is a member on each."""

    one: Party
    relays: list[Relay]
    parties: list[Party]
    candidates: list[Candidate]
    reservations: Reservations
    needed: list[bool] = field(default_factory=lambda: [True])
    changes: list[set[str]] = field(default_factory=list)


@asynccontextmanager
async def scene(letters: str, limits: RelayLimits | None = None) -> AsyncIterator[Scene]:
    async with AsyncExitStack() as stack:
        one = await stack.enter_async_context(party("n"))
        parties = [await stack.enter_async_context(party(letter)) for letter in letters]
        relays = [Relay(other.host, list, limits) for other in parties]
        for relay in relays:
            relay.set_mode("members")
        candidates = [Candidate(await one.joined(other)) for other in parties]
        needed = [True]
        reservations = Reservations(
            Circuits(one.host, lambda peer_id: reservations.is_held(peer_id)),
            lambda: needed[0],
            lambda: [c for c in candidates if c.connection.is_open],
            random.Random(1),
        )
        made = Scene(one, relays, parties, candidates, reservations, needed)
        reservations.on_change.append(lambda: made.changes.append(set(reservations.held)))
        yield made


@trio_test
async def test_as_many_as_are_wanted_and_no_more(logged: Logged) -> None:
    async with scene("abcde") as s:
        await s.reservations.settle()
        assert len(s.reservations.held) == TARGET
        assert sum(bool(relay.reservations) for relay in s.relays) == TARGET
        s.needed[0] = False
        await s.reservations.settle()
        assert s.reservations.held == {}


@trio_test
async def test_busy_and_distant_ones_come_last(logged: Logged) -> None:
    async with scene("abcd") as s:
        near, far, busy = s.candidates[0], s.candidates[1], s.candidates[2]
        for candidate, rtt in zip(s.candidates, (0.001, 0.5, 0.001, 0.002), strict=True):
            candidate.connection.muxer.tunnel.session.rtt = rtt
        s.candidates[2] = Candidate(busy.connection, busy=True)
        ranked = s.reservations._ranked()
        assert {c.connection.peer_id for c in ranked[:2]} == {
            near.connection.peer_id,
            s.candidates[3].connection.peer_id,
        }
        assert ranked[2].connection.peer_id == far.connection.peer_id
        assert ranked[3].busy


@trio_test
async def test_one_that_is_lost_is_replaced_at_once(logged: Logged) -> None:
    async with scene("abcd") as s, trio.open_nursery() as nursery:
        await nursery.start(s.reservations.run)
        await until(lambda: len(s.reservations.held) == TARGET)
        lost = next(iter(s.reservations.held))
        connection = s.reservations.held[lost].connection
        s.one.host.on_disconnected.append(lambda c: s.reservations.kick())
        await connection.muxer.aclose()
        await until(lambda: lost not in s.reservations.held and len(s.reservations.held) == TARGET)
        assert s.changes[-1] == set(s.reservations.held)
        nursery.cancel_scope.cancel()


@trio_test
async def test_one_that_refuses_is_left_alone_for_a_while(logged: Logged) -> None:
    async with scene("ab", RelayLimits(reservations=0)) as s:
        await s.reservations.settle()
        assert s.reservations.held == {}
        assert set(s.reservations.errors.values()) == {"the relay has no free reservation"}
        for relay in s.relays:
            relay.limits = RelayLimits()
        await s.reservations.settle()
        assert s.reservations.held == {}, "not at once"
        s.reservations._not_before.clear()
        await s.reservations.settle()
        assert len(s.reservations.held) == 2
        assert s.reservations.errors == {}


@trio_test
async def test_renewed_long_before_it_ends(logged: Logged) -> None:
    async with scene("a") as s:
        await s.reservations.settle()
        (peer_id,) = s.reservations.held
        before = s.reservations.held[peer_id]
        s.reservations._renew_at[peer_id] = 0.0
        await s.reservations.settle()
        assert s.reservations.held[peer_id] is not before
        # A relay that is none any more is let go.
        s.relays[0].set_mode("off")
        s.reservations._renew_at[peer_id] = 0.0
        await s.reservations.settle()
        assert s.reservations.held == {}

"""The ways to a peer: addresses first, relays behind them, and what is said when none leads there."""

from __future__ import annotations

import pytest
import trio
from trio.testing import trio_test

from hived.errors import unreachable
from hived.overlay import dialer as dialer_module
from hived.overlay.connection import Connection, DialError
from hived.overlay.dialer import MAX_DIALS, Dialer, Tries, circuit_address
from hived.overlay.identity import CIRCUIT, outside_relay, relay_of, usable_addresses, usable_relays
from tests.unit.overlay.parties import Logged
from tests.unit.overlay.test_relay import Scene, scene

NOWHERE = "/ip4/127.0.0.1/tcp/1"


def dialer(s: Scene, addresses: list[str], relays: list[str]) -> Dialer:
    async def to_relay(relay: str) -> Connection:
        if relay != s.middle.peer_id:
            raise unreachable("reaching a relay failed", "it is away")
        return s.to_relay

    return Dialer(s.near.host, lambda peer_id: addresses, lambda peer_id: relays, s.circuits, to_relay)


@trio_test
async def test_an_address_that_answers_is_taken_before_any_relay(logged: Logged) -> None:
    async with scene() as s:
        await s.far_circuits.reserve(s.far_to_relay)
        tries = Tries()
        made = await dialer(s, [NOWHERE, s.far.address], [s.middle.peer_id]).dial(s.far.peer_id, tries)
        assert made.relay is None
        assert tries.last_good == s.far.address
        assert "refused" in tries.errors[NOWHERE]
        assert s.relay.circuits == 0


@trio_test
async def test_a_relay_where_no_address_answers(logged: Logged) -> None:
    async with scene() as s:
        await s.far_circuits.reserve(s.far_to_relay)
        away = s.near.peer_id[:-1] + "x"
        tries = Tries()
        with pytest.raises(DialError, match="it is away"):
            await dialer(s, [NOWHERE], [away]).dial(s.far.peer_id, tries)
        assert tries.errors[circuit_address(away)] == "the relay is not reached: it is away"
        made = await dialer(s, [NOWHERE], [away, s.middle.peer_id]).dial(s.far.peer_id, tries)
        assert made.relay == s.middle.peer_id
        assert tries.last_good == ""


@trio_test
async def test_no_relay_waits_for_addresses_that_did_not_answer_the_last_time(
    logged: Logged, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are tried beside it; and of relays, one that is connected is the first."""
    monkeypatch.setattr(dialer_module, "DIRECT_SECONDS", 3600.0)
    async with scene() as s:
        await s.far_circuits.reserve(s.far_to_relay)
        # The kernel accepts, and nobody says anything.
        (silent,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
        address = f"/ip4/127.0.0.1/tcp/{silent.socket.getsockname()[1]}"
        away = s.near.peer_id[:-1] + "x"
        for tries in (Tries(errors={address: "no answer"}), Tries(relayed=True)):
            made = await dialer(s, [address], [away, s.middle.peer_id]).dial(s.far.peer_id, tries)
            assert made.relay == s.middle.peer_id
            assert circuit_address(away) not in tries.errors
        await silent.aclose()


@trio_test
async def test_a_relay_that_is_no_member(logged: Logged) -> None:
    """Named by its address, in a record or in what the user gave."""
    async with scene("anyone") as s:
        await s.far_circuits.reserve(s.far_to_relay)
        named = f"{s.middle.address}/p2p/{s.middle.peer_id}"
        for addresses, relays in (([], [named]), ([named + CIRCUIT], [])):
            made = await dialer(s, addresses, relays).dial(s.far.peer_id, Tries())
            assert made.relay == s.middle.peer_id
            await made.muxer.aclose()


@trio_test
async def test_relays_are_dialled_while_many_wait_for_them(logged: Logged) -> None:
    """More peers than may be dialled at once, all of them behind a relay that must be dialled first."""
    async with scene() as s:
        made: list[Connection] = []
        ways = {s.middle.peer_id: [s.middle.address]}

        lock, found = trio.Lock(), list[Connection]()

        async def to_relay(relay: str) -> Connection:
            async with lock:
                if not found:
                    found.append(await all_ways.dial(relay, Tries()))
            return found[0]

        all_ways = Dialer(
            s.near.host,
            lambda peer_id: ways.get(peer_id, []),
            lambda peer_id: [s.middle.peer_id],
            s.circuits,
            to_relay,
        )

        async def one() -> None:
            with pytest.raises(DialError):
                made.append(await all_ways.dial(s.far.peer_id, Tries()))

        with trio.fail_after(5):
            async with trio.open_nursery() as nursery:
                for _ in range(2 * MAX_DIALS):
                    nursery.start_soon(one)
        assert not made


@trio_test
async def test_why_there_is_no_way(logged: Logged) -> None:
    async with scene() as s:
        with pytest.raises(DialError, match="no address of it is known"):
            await dialer(s, [], []).dial(s.far.peer_id, Tries())
        with pytest.raises(DialError, match=r"refused; /p2p/12D3KooW\w+/p2p-circuit: it has no reservation"):
            await dialer(s, [NOWHERE], [s.middle.peer_id]).dial(s.far.peer_id, Tries())


@trio_test
async def test_what_cannot_be_dialled_is_an_error_of_that_way(logged: Logged) -> None:
    """A member's record may say anything: nothing of it is more than a way that fails."""
    async with scene() as s:
        long = f"/dns4/{'.'.join(['a' * 55] * 4)}/tcp/1/p2p/{s.middle.peer_id}"
        assert outside_relay(long) is None
        assert usable_relays([long, "x", "", s.middle.peer_id]) == [s.middle.peer_id]
        for way in (long, "nonsense", "/ip4/5.5.5.5/udp/1"):
            with pytest.raises(DialError, match="it is no address"):
                await s.near.host.dial(way, s.far.peer_id)
        with pytest.raises(DialError):
            await dialer(s, ["nonsense"], ["nonsense", long]).dial(s.far.peer_id, Tries())


@trio_test
async def test_a_relay_that_brought_nothing_is_the_last_to_be_tried(logged: Logged) -> None:
    async with scene() as s:
        away = s.near.peer_id[:-1] + "x"
        tries = Tries(errors={circuit_address(s.middle.peer_id): "nothing came through it"})
        with pytest.raises(DialError) as failed:
            await dialer(s, [], [s.middle.peer_id, away]).dial(s.far.peer_id, tries)
        assert str(failed.value).index(away) < str(failed.value).index(s.middle.peer_id)


def test_addresses_of_relays() -> None:
    peer_id = "12D3KooWAk6RUhfCzogvkoj9hhm3X7bzDHKFUQa4UwAK9fYKRmh7"
    relay = f"/ip4/5.5.5.5/tcp/4001/p2p/{peer_id}"
    assert outside_relay(relay) == peer_id
    assert relay_of(relay + CIRCUIT) == relay
    for text in (
        peer_id,
        "/ip4/5.5.5.5/tcp/4001",
        "/p2p/x",
        f"/ip4/5.5.5.5/udp/1/p2p/{peer_id}",
        relay + "x/y",
        "",
    ):
        assert outside_relay(text) is None, text
        assert relay_of(text) is None, text
    assert usable_addresses([relay + CIRCUIT]) == []
    assert usable_addresses([relay + CIRCUIT, "x"], circuits=True) == [relay + CIRCUIT]

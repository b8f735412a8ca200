"""What members' reports make of a node, and what a member says and does when it is asked."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from trio.testing import trio_test

from hived.overlay.networkkeys import network_id
from hived.overlay.reachability import REACH, Ask, Reachability, Report, State, Told, classify
from hived.overlay.wire import receive, send
from tests.unit.overlay.parties import NETWORK, Logged, Party, party, until

ONE, TWO, LAN = "/ip4/5.5.5.10/tcp/4483", "/ip4/5.5.5.11/tcp/4483", "/ip4/192.168.1.7/tcp/4483"
MAPPED, OTHER, OWN = "/ip4/5.5.5.99/tcp/4483", "/ip4/5.5.5.99/tcp/61000", "/ip4/192.168.1.5/tcp/4483"


def report(remote: str, observed: str = "", *reached: str, from_listener: bool = True) -> Report:
    return Report("", remote, from_listener, Told(observed=observed, reached=list(reached)))


@pytest.mark.parametrize(
    ("reports", "state", "reached", "seen"),
    [
        ([], "unknown", [], []),
        ([report(ONE, MAPPED)], "unknown", [], [MAPPED]),
        ([report(ONE, MAPPED), report(TWO, MAPPED)], "cone", [], [MAPPED]),
        ([report(ONE, MAPPED), report(TWO, OTHER)], "symmetric", [], [MAPPED, OTHER]),
        ([report(ONE, MAPPED, MAPPED), report(TWO, MAPPED)], "public", [MAPPED], [MAPPED]),
        # Two members at one place see one mapping, also of a symmetric NAT.
        ([report(ONE, MAPPED), report(ONE, MAPPED)], "unknown", [], [MAPPED]),
        # A connection that did not leave from the listener's port says nothing of its mapping.
        ([report(ONE, OTHER, from_listener=False), report(TWO, MAPPED)], "unknown", [], [MAPPED]),
        # Who is reached on the LAN is not thereby reached from outside.
        ([report(LAN, OWN, OWN), report(ONE, MAPPED), report(TWO, MAPPED)], "cone", [], [MAPPED]),
        # Where there is no outside, the LAN is all there is.
        ([report(LAN, OWN, OWN)], "public", [OWN], [OWN]),
    ],
)
def test_reports(reports: list[Report], state: State, reached: list[str], seen: list[str]) -> None:
    assert classify(reports) == (state, reached, seen)


ADDRESSES = st.sampled_from([ONE, TWO, LAN, MAPPED, OTHER, OWN, "/ip6/2600::1/tcp/4483"])


@given(
    st.lists(
        st.builds(
            lambda remote, observed, reached, own: report(remote, observed, *reached, from_listener=own),
            ADDRESSES,
            ADDRESSES | st.just(""),
            st.lists(ADDRESSES, max_size=3),
            st.booleans(),
        ),
        max_size=6,
    )
)
def test_any_reports(reports: list[Report]) -> None:
    state, reached, _ = classify(reports)
    assert (state == "public") == bool(reached)
    assert classify(list(reversed(reports)))[0] == state


def asker(one: Party) -> Reachability:
    return Reachability(one.host, one.membership, lambda: one.host.listening)


@trio_test
async def test_a_member_tells_and_dials_back(logged: Logged) -> None:
    async with party("a") as alice, party("b") as bob:
        ours, _ = asker(alice), asker(bob)
        await alice.joined(bob)
        (told,) = await ours.measure()
        assert told.told.observed.startswith("/ip4/127.0.0.1/tcp/")
        assert told.told.reached == [alice.address]
        assert (ours.state, ours.reached) == ("public", [alice.address])
        # The connection that the dial-back made is nobody's.
        assert len(alice.host.all_connections()) <= 2
        assert alice.host.find(bob.peer_id) is not None


@trio_test
async def test_who_was_dialled_was_reached(logged: Logged) -> None:
    async with party("a") as alice, party("b") as bob:
        _, theirs = asker(alice), asker(bob)
        await alice.joined(bob)
        (told,) = await theirs.measure()
        assert bob.address in told.told.reached
        assert told.told.observed == ""


@trio_test
async def test_nobody_is_made_to_dial_somebody_else(logged: Logged) -> None:
    """Only the host that asks, at addresses that parse, and only so many, and only so often."""
    async with party("a") as alice, party("b") as bob, party("v") as victim:
        asker(bob)
        connection = await alice.joined(bob)
        met: list[str] = []
        victim.host.on_connected.append(lambda c: met.append(c.peer_id))
        elsewhere = ["/ip4/127.0.0.2/tcp/9", "/dns4/example.invalid/tcp/9", "nonsense", "/ip4/5.5.5.5/tcp/1"]

        async def told(*dial: str) -> Told:
            stream = await connection.open_stream(REACH)
            await send(stream, Ask(network=network_id(NETWORK), dial=list(dial)))
            return await receive(stream, Told)

        assert (await told(*elsewhere)).reached == []
        # Of this host, but another node: it does not answer as the asker.
        assert (await told(victim.address)).reached == []
        assert met == []
        assert (await told(alice.address)).reached == [alice.address]
        answers = [(await told(alice.address)).reached for _ in range(8)]
        assert answers[-1] == [], "not as often as it likes"


@trio_test
async def test_offline_and_back(logged: Logged) -> None:
    async with party("a") as alice:
        ours = asker(alice)
        changes: list[str] = []
        ours.on_change.append(lambda: changes.append(ours.state))
        assert not ours.needs_relay, "not before it is known"
        await ours.measure()
        assert (ours.state, ours.needs_relay) == ("offline", False)
        async with party("b") as bob:
            asker(bob)
            await alice.joined(bob)
            await ours.measure()
        assert changes == ["offline", "public"]


def test_one_that_lies_is_not_believed() -> None:
    """Nor does it make a node give out somebody else's address as its own."""
    honest = [
        Report("", f"/ip4/5.5.5.{n}/tcp/4483", True, Told(observed=MAPPED, tried=True)) for n in (20, 21, 22)
    ]
    liar = Report("", TWO, True, Told(observed=OTHER, reached=["/ip4/8.8.8.8/tcp/53", MAPPED], tried=True))
    assert classify([*honest, liar], [OWN]) == ("cone", [], sorted({MAPPED, OTHER}))
    # Of two, one is enough: the other may have asked too often to dial.
    assert classify([honest[0], liar], [OWN])[:2] == ("public", [MAPPED])


@trio_test
async def test_who_was_dialled_by_a_name(logged: Logged) -> None:
    """The address that the connection leads to counts, and of a name only that one is dialled."""
    async with party("a") as a, party("b") as b:
        reach, _ = asker(a), asker(b)
        port = b.address.rpartition("/")[2]
        connection = await a.host.dial(f"/dns4/localhost/tcp/{port}", b.peer_id)
        assert connection.host == "127.0.0.1"
        await a.membership.join(connection, NETWORK)
        await until(lambda: b.host.find(a.peer_id, NETWORK) is not None)
        named = f"/dns4/localhost/tcp/{a.address.rpartition('/')[2]}"
        stream = await connection.open_stream(REACH)
        await send(stream, Ask(network=network_id(NETWORK), dial=[named]))
        told = await receive(stream, Told, 4096)
        assert named in told.reached
        assert told.tried
        assert reach.state == "unknown"
        theirs = b.host.find(a.peer_id)
        assert theirs is not None
        # And b may ask a, which it did not dial.
        stream = await theirs.open_stream(REACH)
        await send(stream, Ask(network=network_id(NETWORK), dial=[]))
        assert (await receive(stream, Told, 4096)).reached == [connection.address]

"""A short form of ``make bench-join``: each party does what the benchmark says of it. No time is judged."""

from __future__ import annotations

import trio

from bench import join, joinreport
from bench.join import RATE
from bench.strangers import FARES, counts, sources, try_once, wrong_share
from hived.overlay.addresses import parse
from hived.overlay.networkkeys import network_id
from tests.integration.nodes import Node
from tests.integration.peer import act

RECORDS = 100


def test_strangers_come_as_far_as_hived_lets_them(one: Node) -> None:
    """The first is told that its guess is wrong, the next ones there are told to wait, then refused."""
    one.create("bench")
    end = parse(one.listen[0])
    share = wrong_share()

    async def call(source: str, network: str) -> str:
        return await try_once((end.host, end.port), source, network_id(network), share, 20)

    async def scene() -> list[str]:
        first = [await call("127.1.9.1", "bench"), await call("127.1.9.1", "bench")]
        # A network that is not there looks the same.
        first.append(await call("127.1.9.2", "no-such-network"))
        for _ in range(100):
            if (fare := await call("127.1.9.1", "bench")) == "refused":
                return [*first, fare]
        return first

    assert act(scene, 60) == ["guessed", "delayed", "guessed", "refused"]
    one.log.wait_for("join refused", 5)


def test_a_stranger_at_a_closed_door_is_counted(one: Node) -> None:
    end = parse(one.listen[0])
    one.stop()

    async def scene() -> str:
        with trio.fail_after(10):
            return await try_once((end.host, end.port), "127.1.9.1", network_id("bench"), wrong_share())

    assert act(scene) == "refused"
    assert counts(["refused", "guessed", "refused"]) == {"refused": 2, "cut": 0, "delayed": 0, "guessed": 1}


def test_the_whole_benchmark_in_short() -> None:
    phases = join.run(1, 2.0, ("idle", "members", "elsewhere"), RECORDS, patience=5)
    idle, members, elsewhere = phases
    assert [phase["kind"] for phase in phases] == ["idle", "members", "elsewhere"]
    assert all(phase["echoes"] > 0 and phase["p50_ms"] <= phase["p99_ms"] for phase in phases)
    assert list(idle["parties"]) == ["echo"]
    for phase in (members, elsewhere):
        flood = phase["parties"]["flood"]
        # Those that were under way in the end have no fare.
        assert 0 < sum(flood[fare] for fare in FARES) <= flood["tried"]
        assert flood["guessed"] > 0, flood
        assert flood["cut"] < flood["tried"] / 10, "hived ended most of the handshakes"
        assert phase["parties"]["records"]["sent"] == RECORDS
        # The teller, the authors, and the newcomers where they publish nothing.
        assert phase["records_known"] >= RECORDS
    # Each flood hit the node that it was meant for.
    assert members["cores"]["alpha loop"] > members["cores"]["gamma loop"]
    assert elsewhere["cores"]["gamma loop"] > idle["cores"]["gamma loop"]
    assert members["parties"]["new_at_own_address"]["seconds"] is not None

    text = joinreport.table(phases, "make bench-join")
    assert "| flood from the members' address | " in text
    assert "promised 3x" in text
    assert set(joinreport.summary(phases)) == {"idle", "elsewhere", "members"}


def test_a_flood_that_was_too_slow_is_said_to_be() -> None:
    echo = {"cpu_s": 0.1}
    flood = {"tried": 100, "seconds": 10.0, "a_second": RATE / 2, "cpu_s": 5.0, **dict.fromkeys(FARES, 25)}
    new = {"seconds": 1.5, "tries": 1, "cpu_s": 0.1}
    cores = {"alpha loop": 0.1, "alpha threads": 0.1, "machine": 1.9}
    times = {"seconds": 10.0, "p50_ms": 1.0, "max_ms": 9.0, "cores": cores}
    parties = {"echo": echo, "flood": flood, "new_at_own_address": new, "new_at_the_floods": new}
    idle = {"kind": "idle", "p99_ms": 2.0, "parties": {"echo": echo}, **times}
    many = {"kind": "many", "p99_ms": 7.0, "records_known": 1000, "parties": parties, **times}
    text = joinreport.table([idle, many], "make bench-join")
    assert "p99 3.50x of idle, promised 3x: NOT kept." in text
    assert "The flood came to 100 a second only, not 200" in text
    assert "Other programs used up to" in text


def test_floods_come_from_where_they_say() -> None:
    assert len(set(sources("many"))) == 200
    assert sources("one") != sources("members") == ["127.0.0.1"]

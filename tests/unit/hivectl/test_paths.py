"""What hivectl says of paths: in the table of nodes, by ping, by netcheck."""

from __future__ import annotations

import json

from tests.unit.hivectl import rows
from tests.unit.hivectl.conftest import Hivectl
from tests.unit.hivectl.server import LOCAL, REMOTE, Answer, Server, problem

PING = "POST /v1/nodes/far/ping"


def test_the_table_says_by_way_of_whom(hivectl: Hivectl, hived: Server) -> None:
    hived.document(
        "GET /v1/nodes",
        [
            rows.node(path="relayed", relay=LOCAL),
            rows.node(peer_id=LOCAL, name="pub"),
            rows.node(path="relayed", relay="12D3KooWSomebodyElse"),
        ],
    )
    out = hivectl("nodes").out.splitlines()
    assert "relayed via pub " in out[1]
    assert "relayed via 12D3KooWSomebodyElse " in out[3]


def test_a_ping_says_when_the_path_changes(hivectl: Hivectl, hived: Server) -> None:
    relayed = rows.ping(path="relayed", relay=LOCAL, relay_name="pub", rtt_ms=80.25)
    hived.answer(PING, Answer(relayed), Answer(rows.ping()))
    ended = hivectl("ping", "far", "-c", "2", "-i", "0.1")
    assert ended.out == "far: 80.25 ms, relayed via pub\nfar: 1.50 ms, direct  (was relayed via pub)\n"
    assert ended.err == "2 of 2 answered; least 1.50, median 40.88, most 80.25 ms\n"
    assert ended.code == 0


def test_a_ping_without_an_answer_is_7(hivectl: Hivectl, hived: Server) -> None:
    lost = problem("unreachable", 502, "pinging far failed", "no answer", "See hivectl nodes show far")
    hived.answer(PING, lost)
    ended = hivectl("ping", "far", "-c", "1")
    assert (ended.code, ended.out) == (7, "")
    assert ended.err == "hivectl: pinging far failed: no answer. See hivectl nodes show far.\n"
    # One that is lost among others is said, and the rest goes on.
    hived.answer(PING, Answer(rows.ping()), lost, Answer(rows.ping()))
    ended = hivectl("ping", "far", "-c", "3", "-i", "0.1")
    assert ended.code == 0
    assert ended.out.count("1.50 ms, direct") == 2
    assert "2 of 3 answered" in ended.err
    assert "no answer" in ended.err


def test_pings_as_json_are_lines(hivectl: Hivectl, hived: Server) -> None:
    hived.answer(PING, Answer(rows.ping()))
    ended = hivectl("ping", "far", "-c", "2", "-i", "0.1", "--json")
    assert [json.loads(line)["peer_id"] for line in ended.out.splitlines()] == [REMOTE, REMOTE]
    assert ended.err == ""
    assert hivectl("ping", "far", "-c", "0").code == 2


def test_netcheck_says_what_the_network_allows(hivectl: Hivectl, hived: Server) -> None:
    hived.document("GET /v1/netcheck", rows.netcheck())
    out = hivectl("netcheck").out
    for line in (
        "addresses      IPv4\n",
        "nat            a NAT or firewall that keeps one mapping for all (cone)\n",
        "asked          2 members told how they see this node\n",
        "reached_on     none\n",
        "seen_as        /ip4/192.0.2.7/tcp/4483\n",
        "relays         far: reserved, 1.2 ms\n",
        f"               {REMOTE}: it is full\n",
        "mdns           on, 1 member found\n",
        "hole_punching  likely: so it is\n",
    ):
        assert line in out, out
    hived.document(
        "GET /v1/netcheck", rows.netcheck(ipv4=False, nat="offline", relays=[], seen_as=[], mdns_on=False)
    )
    out = hivectl("netcheck").out
    for line in ("addresses      none\n", "mdns           off\n", "relays         none is connected\n"):
        assert line in out, out

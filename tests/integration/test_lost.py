"""A node that is gone: what the log and ``nodes`` of the others say of it."""

from __future__ import annotations

import contextlib
import re
import time
from datetime import UTC, datetime
from typing import Any

from tests.integration.nodes import Node, connected
from tests.integration.tunnels import ending, ends

LOST = "connection lost"
# Keep-alive: silence of 10 s, then 15 s for an answer.
PING_SECONDS = 10.0
SILENCE_SECONDS = 30.0


def age(row: dict[str, Any] | None) -> float:
    """Seconds since ``latest_contact``."""
    assert row is not None
    return (datetime.now(UTC) - datetime.fromisoformat(row["latest_contact"])).total_seconds()


def test_a_killed_node_is_told_of_with_what_was_cut(two: tuple[Node, Node]) -> None:
    alpha, beta = two
    with ends(alpha, beta) as link, link.connection() as (client, _):
        beta.kill()
        line = alpha.log.wait_for(LOST, 10)
        assert ending(client) == "reset"
        assert " warning overlay.peers: " in line
        assert f"peer={beta.peer_id} name=beta why=" in line
        assert re.search(r'why="the peer closed the connection"|why="the connection broke: ', line)
        assert re.search(r' stood="\d+ s" streams_cut=\d+ proxied=1$', line.rstrip())
        beta.start()


def test_a_node_that_stops_says_what_it_cut_and_is_not_lost(two: tuple[Node, Node]) -> None:
    alpha, beta = two
    with ends(alpha, beta) as link, link.connection() as (client, _):
        assert beta.stop() == 0
        assert ending(client) == "reset"
        alpha.log.wait_for("disconnected", 10)
        beta.log.wait_for("hived: stopped proxied_cut=1", 5)
        assert not [line for line in alpha.log.lines + beta.log.lines if LOST in line]
        beta.start()
        alpha.await_row(beta, connected, 10)
    before = len(beta.log.lines)
    assert beta.stop() == 0
    assert beta.log.wait_for("hived: stopped", 5, before).endswith("stopped\n")
    beta.start()


def test_a_frozen_node_is_shown_as_silent_and_then_lost(two: tuple[Node, Node]) -> None:
    alpha, beta = two
    peer_id = beta.peer_id
    assert beta.peer_id in alpha.ctl("nodes").out
    with ends(alpha, beta) as link, link.connection() as (client, server), contextlib.ExitStack() as frozen:
        # The target has accepted; that the connection is open must have reached alpha, too.
        server.sendall(b"x")
        assert client.recv(1) == b"x"
        frozen.enter_context(beta.frozen())
        start = time.monotonic()
        while not (row := alpha.row(peer_id) or {}).get("silent"):
            # Nothing tells of time that passes.
            assert time.monotonic() - start < SILENCE_SECONDS
            time.sleep(0.5)
        assert row["path"] == "direct"
        assert row["silent"] >= PING_SECONDS
        assert age(row) >= PING_SECONDS
        assert ", nothing heard for 1" in alpha.ctl("nodes", "show", peer_id).out
        line = alpha.log.wait_for(LOST, SILENCE_SECONDS)
        assert re.search(r'why="nothing heard for 2\d s"', line)
        assert " proxied=1" in line
        assert ending(client) == "reset"
        assert age(alpha.row(peer_id)) > PING_SECONDS + 10
    alpha.await_row(beta, connected, 15)
    assert age(alpha.row(peer_id)) < PING_SECONDS

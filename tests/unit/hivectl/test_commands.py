"""What each command asks of hived, and what it prints, in a pipe."""

from __future__ import annotations

import json
import subprocess
from typing import Any

import pytest

from tests.unit.hivectl import rows
from tests.unit.hivectl.conftest import Hivectl
from tests.unit.hivectl.server import LOCAL, REMOTE, Answer, Server

CREATED = "2026-01-01T00:00:00Z"

# Command line, the call it makes, the body it sends.
CALLS: list[tuple[str, str, Any]] = [
    ("id", "GET /v1/id", None),
    ("id -base64", "GET /v1/id", None),
    ("rename web-1", "PUT /v1/name", {"name": "web-1"}),
    ("register IDENTITY", "POST /v1/register", {"identity": "IDENTITY", "network": None}),
    ("register -b64 IDENTITY -network lab", "POST /v1/register", {"identity": "IDENTITY", "network": "lab"}),
    ("networks", "GET /v1/networks", None),
    ("networks ls", "GET /v1/networks", None),
    ("networks create lab", "POST /v1/networks", {"name": "lab", "password": None}),
    ("networks create lab --password p", "POST /v1/networks", {"name": "lab", "password": "p"}),
    ("networks join lab --password p", "POST /v1/networks", {"name": "lab", "password": "p"}),
    ("networks join lab --password-stdin", "POST /v1/networks", {"name": "lab", "password": " in put"}),
    ("networks join lab --password-file f", "POST /v1/networks", {"name": "lab", "password": "from a file"}),
    ("networks leave lab", "DELETE /v1/networks/lab", None),
    ("nodes", "GET /v1/nodes", None),
    ("nodes -ls", "GET /v1/nodes", None),
    ("nodes show far", "GET /v1/nodes/far", None),
    ("nodes alias far gpu", "PUT /v1/nodes/far/alias", {"alias": "gpu"}),
    ("nodes alias far --rm", "PUT /v1/nodes/far/alias", {"alias": None}),
    ("nodes forget far~A1b2C3", "DELETE /v1/nodes/far~A1b2C3", None),
    ("nodes block far", "PUT /v1/nodes/far/block", None),
    ("nodes unblock far", "DELETE /v1/nodes/far/block", None),
    ("proxy", "GET /v1/proxies", None),
    ("proxy ls", "GET /v1/proxies", None),
    ("proxy show 3", "GET /v1/proxies/3", None),
    ("proxy rm 3", "DELETE /v1/proxies/3", None),
    ("proxy enable 3", "POST /v1/proxies/3/enable", None),
    ("proxy disable 3", "POST /v1/proxies/3/disable", None),
    ("sessions", "GET /v1/sessions", None),
    ("sessions rm 4", "DELETE /v1/sessions/4", None),
    ("admin", "GET /v1/admins", None),
    ("admin ls", "GET /v1/admins", None),
    ("admin set joe --password-stdin", "PUT /v1/admins/joe", {"password": " in put", "old_password": None}),
    ("admin rm joe", "DELETE /v1/admins/joe", None),
    ("status", "GET /v1/status", None),
    ("ping far -c 1", "POST /v1/nodes/far/ping", None),
    ("netcheck", "GET /v1/netcheck", None),
]


def _proxy_body(direction: str, **changes: Any) -> dict[str, Any]:
    body = {"direction": direction, "peer": "far", "port": 8084, "peer_port": 1984, "network": None}
    return {**body, "kind": "tcp", "bind": None, "to": None, **changes}


CALLS += [
    (line, "POST /v1/proxies", body)
    for line, body in [
        ("proxy add egress 8084 far:1984", _proxy_body("egress")),
        ("proxy --direction egress --target far:1984 --port 8084", _proxy_body("egress")),
        (
            "proxy add egress 8084 far:1984 --bind ::1 --network lab",
            _proxy_body("egress", bind="::1", network="lab"),
        ),
        ("proxy add ingress far:1984 8084", _proxy_body("ingress")),
        ("proxy --direction ingress --origin far:1984 --port 8084", _proxy_body("ingress")),
        ("proxy add ingress far:1984 8084 --to 192.0.2.9", _proxy_body("ingress", to="192.0.2.9")),
    ]
]

# As other tools say it.
CALLS += [
    (f"{noun} list", call, None)
    for noun, call, _ in CALLS
    if noun in {"networks", "nodes", "proxy", "sessions", "admin"}
]

IDENTITY = {"peer_id": LOCAL, "name": "near", "identity": "CiQIARIg", "addresses": ["/a"], "warnings": ["w"]}
DETAIL = {
    "peer_id": REMOTE,
    "name": "far",
    "alias": None,
    "blocked": True,
    "networks": ["lab"],
    "path": "relayed",
    "relay": LOCAL,
    "rtt_ms": None,
    "latest_contact": None,
    "last_contact_here": CREATED,
    "record_issued": CREATED,
    "version": "0.1.0",
    "addresses": [
        {"address": "/ip4/192.0.2.7/tcp/1", "source": "record", "last_error": "refused"},
        {"address": "/ip4/192.0.2.8/tcp/1", "source": "seen", "last_error": None},
    ],
    "last_error": "no path",
}


@pytest.fixture(autouse=True)
def answers(hived: Server) -> None:
    """An answer of the right shape for every call."""
    for _, call, _ in CALLS:
        hived.document(call, {"note": ""})
    session = {"id": 4, "user": "joe", "bound_to": "uid 0", "created": CREATED, "expires": CREATED}
    for call, document in {
        "GET /v1/id": IDENTITY,
        "POST /v1/register": {"peer_id": REMOTE, "network": "lab", "state": "joined"},
        "GET /v1/networks": [{"name": "lab", "members": 3, "connected": 2, "created": CREATED}],
        "POST /v1/networks": {"name": "lab", "password": None, "warning": ""},
        "GET /v1/nodes": [rows.node()],
        "GET /v1/nodes/far": DETAIL,
        "GET /v1/proxies": [rows.proxy()],
        "POST /v1/proxies": rows.proxy(),
        "GET /v1/proxies/3": rows.proxy(),
        "POST /v1/proxies/3/enable": rows.proxy(),
        "POST /v1/proxies/3/disable": rows.proxy(state="disabled"),
        "GET /v1/sessions": [{**session, "current": True}],
        "GET /v1/admins": [{"user": "joe", "created": CREATED}],
        "GET /v1/status": rows.status(),
        "POST /v1/nodes/far/ping": rows.ping(),
        "GET /v1/netcheck": rows.netcheck(),
    }.items():
        hived.document(call, document)


@pytest.mark.parametrize(("line", "call", "body"), CALLS)
def test_a_command_makes_its_call_and_gives_its_document(
    hivectl: Hivectl, hived: Server, line: str, call: str, body: Any
) -> None:
    (hivectl.home / "f").write_text("from a file\nand more\n")
    ended = hivectl(*line.split(), "--json", input=" in put\r\n")
    assert (ended.code, ended.err.replace("hivectl: warning: w.\n", "")) == (0, "")
    assert json.loads(ended.out) == hived.peers[LOCAL].answers[call][0].document
    assert hived.calls == [call]
    assert hived.asked[0].body == body


@pytest.mark.parametrize("line", [line for line, _, _ in CALLS])
def test_a_command_says_something_to_a_person(hivectl: Hivectl, line: str) -> None:
    (hivectl.home / "f").write_text("x")
    ended = hivectl(*line.split(), input="x")
    assert ended.code == 0
    assert ended.out.strip()
    assert "\t" not in ended.out
    assert not ended.out.startswith("{")


def test_the_table_of_nodes(hivectl: Hivectl, hived: Server) -> None:
    long = "n" * 63
    hived.document(
        "GET /v1/nodes",
        [
            rows.node(name=long, blocked=True),
            rows.node(latest_contact=None, rtt_ms=None, path="none", alias="x"),
        ],
    )
    head, first, second = (line.split() for line in hivectl("nodes", "--network", "lab").out.splitlines())
    assert head[:3] == ["peer_id", "node_name", "latest_contact"]
    assert first == [REMOTE, long, "2026-01-02T03:04:05Z", "blocked", "1.2", "lab", "-", "0.1.0"]
    assert second == [REMOTE, "far", "never", "none", "-", "lab", "x", "0.1.0"]
    assert hived.asked[0].query == {"network": "lab"}


def test_the_table_of_proxies(hivectl: Hivectl, hived: Server) -> None:
    hived.document(
        "GET /v1/proxies",
        [
            rows.proxy(bind="::1", state="error", error="port 8084 is taken"),
            rows.proxy(id=4, direction="ingress", peer_name="", state="ready"),
            rows.proxy(id=5, warning="far is not connected"),
            rows.proxy(id=6, error="it broke", error_at=CREATED, warning="far is not connected"),
        ],
    )
    lines = hivectl("proxy").out.splitlines()
    assert lines[1].split()[:5] == ["3", "egress", "error", "[::1]:8084", "far:1984"]
    assert lines[1].endswith("  port 8084 is taken")
    assert lines[2].split()[:5] == ["4", "ingress", "ready", f"{REMOTE}:1984", "localhost:8084"]
    assert lines[3].endswith("  far is not connected")
    assert lines[4].endswith(f"  it broke ({CREATED})")


def test_one_proxy_in_full(hivectl: Hivectl, hived: Server) -> None:
    assert "error " not in hivectl("proxy", "show", "3").out
    hived.document("GET /v1/proxies/3", rows.proxy(error="it broke", error_at=CREATED))
    assert f"error        it broke ({CREATED})\n" in hivectl("proxy", "show", "3").out
    # An older hived does not say when.
    older = rows.proxy(error="it broke")
    del older["error_at"]
    hived.document("GET /v1/proxies/3", older)
    assert "error        it broke\n" in hivectl("proxy", "show", "3").out


@pytest.mark.parametrize(
    ("line", "call", "hint"),
    [
        ("nodes", "GET /v1/nodes", "hivectl register ID"),
        ("networks", "GET /v1/networks", "hivectl networks create NAME"),
        ("proxy", "GET /v1/proxies", "hivectl proxy add egress PORT NODE:PORT"),
        ("sessions", "GET /v1/sessions", "hivectl login"),
        ("admin", "GET /v1/admins", "sudo hivectl admin set USER"),
    ],
)
def test_an_empty_list_says_what_to_type(
    hivectl: Hivectl, hived: Server, line: str, call: str, hint: str
) -> None:
    hived.document(call, [])
    ended = hivectl(line)
    assert (ended.code, ended.out) == (0, "")
    assert hint in ended.err
    ended = hivectl(line, "--json")
    assert (ended.code, ended.out, ended.err) == (0, "[]\n", "")


def test_list_is_ls_and_help_knows_one_of_them(hivectl: Hivectl, hived: Server) -> None:
    assert hivectl("nodes", "list", "--network", "lab").code == 0
    assert hived.asked[0].query == {"network": "lab"}
    commands = hivectl("nodes", "--help").out.partition("Commands:")[2].split("\n  ")
    assert [line.split()[0] for line in commands if line.startswith(("ls ", "list "))] == ["ls"]
    ended = hivectl("nodes", "--network", "lab", "list")
    assert (ended.code, "--network stands before 'list'" in ended.err) == (2, True)
    ended = hivectl("proxy", "add", "list")
    assert (ended.code, "there is no command 'list'" in ended.err) == (2, True)


def test_status_at_a_glance(hivectl: Hivectl, hived: Server) -> None:
    lines = hivectl("status").out.splitlines()
    assert lines[0].split() == ["name", "near"]
    assert "version       hived 0.1.0, up 1 d 1 h" in lines
    assert "networks      lab: 3 other nodes, 2 connected" in lines
    assert "proxies       1 listening" in lines
    assert lines[-1].split()[:5] == ["3", "egress", "listening", "*:8084", "far:1984"]
    hived.document("GET /v1/status", rows.status(networks=[], proxies=[], warnings=["cloned"], addresses=[]))
    out = hivectl("status").out
    assert "none: hivectl networks create NAME, or join NAME" in out
    assert "warning       cloned" in out
    assert "proxies       none" in out


def test_one_node_in_full(hivectl: Hivectl) -> None:
    out = hivectl("nodes", "show", "far").out
    assert f"path               relayed via {LOCAL}\n" in out
    assert "/ip4/192.0.2.7/tcp/1 (from record; refused)\n" in out
    assert "/ip4/192.0.2.8/tcp/1 (from seen)\n" in out
    assert "latest_contact     never\n" in out
    assert "blocked            yes\n" in out


def test_the_identity_string_alone(hivectl: Hivectl) -> None:
    ended = hivectl("id", "--base64")
    assert (ended.out, ended.err) == ("CiQIARIg\n", "hivectl: warning: w.\n")


def test_a_generated_password_is_shown_with_what_to_type_next(hivectl: Hivectl, hived: Server) -> None:
    hived.document("POST /v1/networks", {"name": "lab", "password": "s3cret", "warning": "that is short"})
    ended = hivectl("networks", "create", "lab")
    assert ended.out == "Network lab is made.\nIts password: s3cret\n"
    assert "hivectl networks join lab" in ended.err
    assert "hivectl: warning: that is short.\n" in ended.err


def test_a_pending_registration_is_7(hivectl: Hivectl, hived: Server) -> None:
    answer = {"peer_id": REMOTE, "network": "lab", "state": "pending", "detail": "no address answers"}
    hived.document("POST /v1/register", answer)
    ended = hivectl("register", "ID")
    assert (ended.code, ended.out) == (7, f"{REMOTE} is registered for network lab: pending\n")
    line = f"hivectl: registering {REMOTE}: no address answers. hived keeps trying. See: hivectl nodes.\n"
    assert ended.err == line
    ended = hivectl("register", "ID", "--json")
    assert (ended.code, json.loads(ended.out), ended.err) == (7, answer, line)


def test_a_broken_line_of_an_identity_string_is_mended(hivectl: Hivectl, hived: Server) -> None:
    assert hivectl("register", " CiQ\n  IAR ").code == 0
    assert hived.asked[0].body["identity"] == "CiQIAR"
    assert hivectl("register", " ").code == 2


def test_an_added_proxy_says_what_the_other_node_needs(hivectl: Hivectl, hived: Server) -> None:
    ended = hivectl("proxy", "add", "egress", "8084", "far:1984", "--network", "lab")
    assert ended.out == "Proxy 3: port 8084 of all addresses goes to far, port 1984.\n"
    assert f"type on far: hivectl proxy add ingress {LOCAL}:8084 1984 --network lab\n" in ended.err
    hived.document(
        "POST /v1/proxies", rows.proxy(direction="ingress", state="ready", warning="nobody listens")
    )
    ended = hivectl("proxy", "add", "ingress", "far:1984", "8084")
    assert ended.out == "Proxy 3: far, port 1984, may come in to localhost:8084.\n"
    assert f"type on far: hivectl proxy add egress 1984 {LOCAL}:8084\n" in ended.err
    assert "hivectl: warning: nobody listens.\n" in ended.err


def test_a_proxy_that_does_not_run_is_1(hivectl: Hivectl, hived: Server) -> None:
    row = rows.proxy(state="error", error="port 8084 is taken")
    hived.document("POST /v1/proxies", row)
    hived.document("POST /v1/proxies/3/enable", row)
    for words in (["proxy", "add", "egress", "8084", "far:1984"], ["proxy", "enable", "3"]):
        ended = hivectl(*words)
        assert ended.code == 1
        assert (
            "hivectl: proxy 3 does not run: port 8084 is taken. hived keeps trying: hivectl proxy.\n"
            in ended.err
        )


FORWARD = [
    {"event": "listening", "bind": "127.0.0.1", "port": 1984, "peer_id": REMOTE},
    {"event": "connection", "detail": "from 127.0.0.1:5"},
    {"event": "error", "detail": "refused"},
]


def test_forward_tells_what_happens(hivectl: Hivectl, hived: Server) -> None:
    hived.answer("POST /v1/forward", Answer(lines=FORWARD))
    ended = hivectl("forward", "far:1984")
    body = {"peer": "far", "peer_port": 1984, "port": 1984, "network": None, "bind": None}
    assert hived.asked[0].body == body
    assert (ended.code, ended.out) == (3, "")
    assert ended.err.splitlines() == [
        "127.0.0.1:1984 goes to far, port 1984. Ctrl-C ends it.",
        "If it is not done yet, type on far: hivectl proxy add ingress :1984 1984",
        "connection from 127.0.0.1:5",
        "hivectl: a connection failed: refused",
        "hivectl: talking to hived failed: it ended the connection. Look at: journalctl -u hived.",
    ]


def test_forward_from_another_port(hivectl: Hivectl, hived: Server) -> None:
    hived.answer("POST /v1/forward", Answer(lines=FORWARD))
    ended = hivectl("forward", "far:1984", "8080", "--json")
    assert hived.asked[0].body["port"] == 8080
    assert [json.loads(line) for line in ended.out.splitlines()] == FORWARD


@pytest.mark.parametrize(
    ("line", "call", "state"),
    [
        ("nodes", "GET /v1/nodes", [rows.node()]),
        ("proxy ls", "GET /v1/proxies", [rows.proxy()]),
        ("status", "GET /v1/status", rows.status()),
    ],
)
def test_watching(hivectl: Hivectl, hived: Server, line: str, call: str, state: Any) -> None:
    hived.answer(call, Answer(lines=[state, state]))
    ended = hivectl(*line.split(), "--watch", "--json")
    assert [json.loads(text) for text in ended.out.splitlines()] == [state, state]
    assert hived.asked[0].query == {"watch": "true"}
    assert ended.code == 3
    watched = hivectl(*line.split(), "--watch").out
    hived.document(call, state)
    once = hivectl(*line.split()).out
    assert watched == f"{once}\n{once}"


def test_a_watch_comes_as_it_happens(hivectl: Hivectl, hived: Server) -> None:
    hived.answer("GET /v1/nodes", Answer(lines=[[rows.node()]], hold=True))
    with hivectl.start("nodes", "--watch", stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline().startswith("peer_id  ")
        assert process.stdout.readline().startswith(REMOTE)
        process.terminate()


def test_a_stream_may_end_with_a_problem(hivectl: Hivectl, hived: Server) -> None:
    ending = {"title": "watching failed", "detail": "the node left", "kind": "unreachable"}
    hived.answer("GET /v1/nodes", Answer(lines=[[], ending]))
    ended = hivectl("nodes", "--watch", "--json")
    assert (ended.code, ended.out, ended.err) == (7, "[]\n", "hivectl: watching failed: the node left.\n")


def test_version_with_and_without_hived(hivectl: Hivectl) -> None:
    assert hivectl("version").out.splitlines()[1] == "hived 9.9"
    assert json.loads(hivectl("version", "--json").out)["hived"] == "9.9"
    hivectl.env["HIVE_SOCKET"] = "/nowhere"
    ended = hivectl("version")
    assert (ended.code, ended.out.splitlines()[1]) == (0, "hived not reachable")
    assert "there is no socket /nowhere" in ended.err
    ended = hivectl("version", "--json")
    assert (ended.code, json.loads(ended.out)["hived"]) == (0, None)

"""CLI.md line by line on two real nodes: spellings, JSON, exit codes, bad input that changes nothing."""

from __future__ import annotations

import base64
import contextlib
import json
import re
import socket
import subprocess
from collections.abc import Iterator
from typing import Any

import pytest

from hived import __version__
from hived.overlay.identity import PEER_ID_PREFIX, parse_identity
from tests.integration.conftest import NETWORK
from tests.integration.nodes import BIN, PASSWORD, Node, free_port
from tests.integration.peer import Door, Peer, act, peer, push
from tests.integration.rawhttp import call, state

UNKNOWN = "12D3KooWB8ZM6LtL7rcFMB4ZrUPUFotUtXDET6uBQ5Y68w3zrDrN"
ONE_LINE = re.compile(r"hivectl: [^\n]+[.?]\n")

STATUS_FIELDS = {
    "peer_id", "name", "version", "uptime", "addresses", "reachability", "networks", "peers", "proxies",
    "service",
}  # fmt: skip
NODE_FIELDS = {
    "peer_id", "name", "network", "path", "relay", "rtt_ms", "latest_contact", "version", "addresses",
}  # fmt: skip

Pair = tuple[Node, Node]


@contextlib.contextmanager
def unchanged(*nodes: Node) -> Iterator[None]:
    before = [state(node) for node in nodes]
    yield
    assert [state(node) for node in nodes] == before


def remove_proxies(node: Node) -> None:
    for row in call(node.socket, "GET", "/v1/proxies").json():
        call(node.socket, "DELETE", f"/v1/proxies/{row['id']}")


# Reading commands, in all their spellings

READING = [
    (["nodes"], ["nodes", "ls"], ["nodes", "-ls"], ["nodes", "--ls"]),
    (["proxy"], ["proxy", "ls"]),
    (["networks"], ["networks", "ls"]),
    (["admin"], ["admin", "ls"]),
    (["sessions"], ["sessions", "ls"]),
]


@pytest.mark.parametrize("spellings", READING, ids=lambda spellings: spellings[0][0])
def test_groups_list_when_called_bare(pair: Pair, spellings: tuple[list[str], ...]) -> None:
    """Every spelling of a listing says the same, as a document of JSON too, with --json on either side."""
    alpha, _ = pair
    texts = [alpha.ctl(*words).out for words in spellings]
    documents = [alpha.ctl(*words, "--json") for words in spellings] + [alpha.ctl("--json", *spellings[0])]
    assert len({re.sub(r"\d+", "", text) for text in texts}) == 1
    assert len({json.dumps(names_only(done.json())) for done in documents}) == 1
    assert not [done for done in documents if done.err]
    for text in texts:
        assert "\t" not in text
        assert "\x1b" not in text


def names_only(rows: list[dict[str, Any]]) -> list[list[str]]:
    return [sorted(row) for row in rows]


def test_nodes(pair: Pair) -> None:
    """The table starts with peer_id, node_name, latest_contact and is not cut off in a pipe; JSON has the
    field names that scripts rely on."""
    alpha, beta = pair
    lines = alpha.ctl("nodes").out.splitlines()
    assert lines[0].split()[:3] == ["peer_id", "node_name", "latest_contact"]
    assert {line.split()[0] for line in lines[1:]} == {alpha.peer_id, beta.peer_id}
    rows = alpha.json("nodes")
    for row in rows:
        assert set(row) >= NODE_FIELDS
        assert row["network"] == NETWORK
        assert row["version"] == __version__
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z", row["latest_contact"])
        assert row["addresses"]
    assert [row["path"] for row in rows] == ["self", "direct"]
    assert alpha.json("nodes", "ls", "--network", NETWORK)[1]["peer_id"] == rows[1]["peer_id"]


def test_status_and_version(pair: Pair) -> None:
    """``status`` has the fields that scripts rely on; ``version`` names hivectl's and hived's."""
    alpha, beta = pair
    status = alpha.json("status")
    assert set(status) >= STATUS_FIELDS
    assert status["peers"] == 1
    assert status["networks"][0]["name"] == NETWORK
    assert status["service"]["data_dir"] == str(alpha.data)
    assert alpha.peer_id in alpha.ctl("status").out
    assert alpha.json("version") == {"hivectl": __version__, "hived": __version__}
    assert alpha.ctl("--version").out.split()[-1] == __version__
    assert beta.json("version", "--node", "alpha")["hived"] == __version__


def test_watch(pair: Pair) -> None:
    """``--watch --json`` is JSON lines, one for each state."""
    alpha, _ = pair
    seen = alpha.watch(["status", "--watch", "--json"], lambda status: status["peers"] == 1, 5)
    assert seen["name"] == "alpha"
    assert alpha.watch(["proxy", "--watch", "--json"], lambda rows: rows == [], 5) == []


@pytest.mark.parametrize("words", [["id", "-base64"], ["id", "--base64"], ["--json", "id"], ["id"]])
def test_id(pair: Pair, words: list[str]) -> None:
    """``id`` prints the identity string, alone with -base64."""
    alpha, _ = pair
    done = alpha.ctl(*words)
    text = done.json()["identity"] if "--json" in words else done.out.split()[-1]
    if len(words) == 2 and "--json" not in words:
        assert done.out == text + "\n"
        assert re.fullmatch("[A-Za-z0-9_-]+", text)
    identity = parse_identity(text)
    assert identity.peer_id == alpha.peer_id
    assert list(identity.addresses) == list(alpha.listen)


def test_ways_to_name_a_node(pair: Pair) -> None:
    """NODE is a peer ID, a part of at least 6 characters, the last 8, an alias, or a name."""
    alpha, beta = pair
    peer_id = beta.peer_id
    part = peer_id.removeprefix(PEER_ID_PREFIX)
    alpha.ctl("nodes", "alias", "beta", "my-box")
    try:
        for ref in (
            peer_id,
            part[:6],
            part[10:20],
            PEER_ID_PREFIX + part[:6],
            peer_id[-8:],
            "my-box",
            "beta",
        ):
            assert alpha.json("nodes", "show", ref)["peer_id"] == peer_id, ref

        assert alpha.json("--node", "my-box", "version")["hived"] == __version__
        for ref in (part[:5], peer_id[-4:], "BETA", UNKNOWN):
            assert alpha.ctl("nodes", "show", ref, check=False).code == 5, ref
    finally:
        alpha.ctl("nodes", "alias", "my-box", "--rm")
    assert alpha.ctl("nodes", "show", "my-box", check=False).code == 5


# Changing commands, in all their spellings

PROXIES = {
    "egress": (
        ["proxy", "--direction", "egress", "--target", "{peer}:1984", "--port", "{port}"],
        ["proxy", "-direction", "egress", "-target", "{peer}:1984", "-port", "{port}"],
        ["proxy", "--port={port}", "-kind", "tcp", "--target={peer}:1984", "--direction=egress"],
        ["proxy", "add", "egress", "{port}", "{peer}:1984"],
        ["proxy", "add", "egress", "{port}", "beta:1984", "--network", NETWORK],
    ),
    "ingress": (
        ["proxy", "--direction", "ingress", "--origin", "{peer}:1984", "--port", "{port}"],
        ["proxy", "-direction", "ingress", "-origin", "{peer}:1984", "-port", "{port}", "-network", NETWORK],
        ["proxy", "add", "ingress", "{peer}:1984", "{port}"],
        ["proxy", "add", "ingress", "beta:1984", "{port}", "--to", "localhost"],
    ),
}
ROWS = [(direction, words) for direction, all_words in PROXIES.items() for words in all_words]


@pytest.mark.parametrize(
    ("direction", "words"), ROWS, ids=lambda item: item if isinstance(item, str) else " ".join(item[1:3])
)
def test_proxy_spellings(pair: Pair, direction: str, words: list[str]) -> None:
    """Old and new spellings make the same row, with the field names that scripts rely on."""
    alpha, beta = pair
    port = free_port()
    try:
        done = alpha.ctl(*(word.format(peer=beta.peer_id, port=port) for word in words), "--json")
        (row,) = alpha.json("proxy")
        assert done.json()["id"] == row["id"]
        expected = {
            "direction": direction, "kind": "tcp", "network": NETWORK, "peer_id": beta.peer_id, "port": port,
            "peer_port": 1984, "bind": None, "state": {"egress": "listening", "ingress": "ready"}[direction],
            "error": None, "connections": 0, "bytes_in": 0, "bytes_out": 0,
        }  # fmt: skip
        assert {key: row[key] for key in expected} == expected
        assert ("all addresses" in done.err) == (direction == "egress")
    finally:
        remove_proxies(alpha)


def test_proxy_life(pair: Pair) -> None:
    """show, disable, enable and rm; a proxy that exists already, and a taken port, are conflicts."""
    alpha, _ = pair
    port = free_port()
    add = ["proxy", "add", "egress", str(port), "beta:1984", "--bind", "127.0.0.1"]
    try:
        number = str(alpha.json(*add)["id"])
        assert alpha.json("proxy", "show", number)["bind"] == "127.0.0.1"
        with unchanged(alpha):
            twice = alpha.ctl(*add, check=False)
            assert twice.code == 6
            assert ONE_LINE.fullmatch(twice.err)
        alpha.ctl("proxy", "add", "ingress", "beta:7", "9")
        with unchanged(alpha):
            assert alpha.ctl("proxy", "add", "ingress", "beta:7", "9", check=False).code == 6
        alpha.ctl("proxy", "disable", number)
        assert alpha.json("proxy", "show", number)["state"] == "disabled"
        with socket.create_server(("127.0.0.1", port)), unchanged(alpha):
            for words in (
                ["proxy", "enable", number],
                [*add[:3], str(port), "beta:22", "--bind", "127.0.0.1"],
            ):
                taken = alpha.ctl(*words, check=False)
                assert (taken.code, taken.out) == (6, "")
                assert f"port {port} is taken" in taken.err
        alpha.ctl("proxy", "enable", number)
        assert alpha.json("proxy", "show", number)["state"] == "listening"
        alpha.ctl("proxy", "rm", number)
        assert alpha.ctl("proxy", "rm", number, check=False).code == 5
        with socket.create_server(("127.0.0.1", port)):
            pass
    finally:
        remove_proxies(alpha)


def test_register_spellings(pair: Pair) -> None:
    """``register -b64 ID -network N`` and ``register ID --network N`` do the same, again and again."""
    alpha, beta = pair
    identity = beta.identity
    for words in (
        ["register", "-b64", identity, "-network", NETWORK],
        ["register", "--b64", identity, "--network", NETWORK],
        ["register", identity, "--network", NETWORK],
        ["register", identity[:40] + "\n" + identity[40:]],
    ):
        assert alpha.json(*words) == {
            "peer_id": beta.peer_id, "network": NETWORK, "state": "joined", "detail": "",
        }  # fmt: skip
    assert len(alpha.json("nodes")) == 2


def test_networks(pair: Pair, tmp_path: Any) -> None:
    """create prints a strong password once; join takes one from stdin, a file or an option; leave."""
    alpha, beta = pair
    file = tmp_path / "password"
    try:
        made = alpha.json("networks", "create", "second")
        assert re.fullmatch("[A-Za-z0-9_-]{22}", made["password"])
        file.write_text(made["password"] + "\n")
        beta.ctl("networks", "join", "second", "--password-file", str(file))
        alpha.register(beta, "second")
        assert {row["name"] for row in beta.json("networks")} == {NETWORK, "second"}
        with unchanged(alpha):
            for verb in ("create", "join"):
                again = alpha.ctl("networks", verb, "second", "--password", "x", check=False)
                assert again.code == 6
        # In two networks with beta, but not told which.
        ambiguous = alpha.ctl("proxy", "add", "egress", "8084", "beta:1984", check=False)
        assert ambiguous.code == 2
        assert f"{NETWORK}, second" in ambiguous.err
        for node in (alpha, beta):
            node.ctl("networks", "leave", "second")
            assert node.ctl("networks", "leave", "second", check=False).code == 5
        weak = alpha.ctl("networks", "create", "third", "--password-stdin", stdin="short\n")
        assert "fewer than" in weak.err
        assert alpha.json("networks")[1]["name"] == "third"
        assert made["password"] not in "".join(alpha.log.lines)
    finally:
        for node in (alpha, beta):
            for name in ("second", "third"):
                node.ctl("networks", "leave", name, check=False)


def test_rename_and_admin(pair: Pair) -> None:
    """rename, admin set and rm, login and logout on the local node, sessions."""
    alpha, _ = pair
    alpha.ctl("rename", "alpha-two")
    assert alpha.json("status")["name"] == "alpha-two"
    alpha.ctl("rename", "alpha")
    alpha.ctl("admin", "set", "eve", "--password-stdin", stdin="secret\n")
    try:
        (row,) = alpha.json("admin")
        assert row["user"] == "eve"
        wrong = alpha.ctl("login", "--user", "nobody", "--password-stdin", stdin="secret\n", check=False)
        assert (wrong.code, wrong.out) == (4, "")
        assert "wrong user or password" in wrong.err
        soon = alpha.ctl("login", "--user", "eve", "--password-stdin", stdin="secret\n", check=False)
        assert (soon.code, "Try again in" in soon.err) == (4, True)
        assert alpha.json("sessions") == []
        assert alpha.ctl("logout", check=False).code == 4
    finally:
        alpha.ctl("admin", "rm", "eve")
    assert alpha.json("admin") == []


def test_block_and_forget(pair: Pair) -> None:
    """Verbs of nodes on one that is not there: a peer of the test's own, which has left."""
    alpha, _ = pair

    async def scene() -> str:
        async with peer() as member:
            return await leave_record(member)

    async def leave_record(member: Peer) -> str:

        connection = await member.join(Door.of(alpha), NETWORK)
        assert await push(connection, NETWORK, [member.sign(member.record(NETWORK, "guest")).envelope])
        return member.peer_id

    gone = act(scene)
    assert alpha.json("nodes", "show", "guest")["peer_id"] == gone
    alpha.ctl("nodes", "block", "guest")
    assert alpha.json("nodes", "show", "guest")["blocked"]
    alpha.ctl("nodes", "unblock", "guest")
    unreachable = alpha.ctl("status", "--node", "guest", check=False)
    assert (unreachable.code, unreachable.out) == (7, "")
    alpha.ctl("nodes", "forget", "guest")
    assert alpha.row(gone) is None


# Bad input

IDENTITIES = {
    "empty": "",
    "a word": "hello",
    "not base64": "{}{}{}",
    "junk": base64.urlsafe_b64encode(bytes(range(120))).decode(),
    "a peer ID": UNKNOWN,
    "too long": "A" * 20_000,
}
NAMES = ["", "-dash", "with space", "with:colon", "Ünïcode", "x" * 64, "esc\x1b[31m"]
PORTS = ["0", "65536", "-1", "http", "٣", ""]
BAD: dict[str, tuple[list[str], int]] = {
    **{f"register {what}": (["register", text], 2) for what, text in IDENTITIES.items()},
    **{f"rename {name!r}": (["rename", "--", name], 2) for name in NAMES},
    **{f"create {name!r}": (["networks", "create", "--", name], 2) for name in NAMES[1:2]},
    **{f"admin {name!r}": (["admin", "set", "--password-stdin", "--", name], 2) for name in NAMES[1:2]},
    **{f"alias {name!r}": (["nodes", "alias", "--", "beta", name], 2) for name in NAMES[1:2]},
    **{f"egress {port!r}": (["proxy", "add", "egress", "--", port, "beta:80"], 2) for port in PORTS},
    **{f"ingress {port}": (["proxy", "add", "ingress", "--", f"beta:{port}", "80"], 2) for port in PORTS[:2]},
    "old egress port": (["proxy", "-direction", "egress", "-target", "beta:0", "-port", "8084"], 2),
    "no such network": (["register", "{beta}", "--network", "nowhere"], 5),
    "own identity": (["register", "{alpha}"], 2),
    "cut identity": (["register", "{beta[0]}"], 2),
    "unknown peer": (["proxy", "add", "egress", "8084", "nobody:80"], 5),
    "unknown node": (["nodes", "show", "nobody"], 5),
    "alias of unknown": (["nodes", "alias", "nobody", "x"], 5),
    "forget unknown": (["nodes", "forget", "nobody"], 5),
    "block unknown": (["nodes", "block", "nobody"], 5),
    "block itself": (["nodes", "block", "alpha"], 2),
    "proxy to itself": (["proxy", "add", "egress", "8084", "alpha:80"], 2),
    "no port": (["proxy", "add", "egress", "8084", "beta"], 2),
    "bad bind": (["proxy", "add", "egress", "8084", "beta:80", "--bind", "nonsense"], 2),
    "foreign bind": (["proxy", "add", "egress", "8084", "beta:80", "--bind", "192.0.2.1"], 2),
    "bad target": (["proxy", "add", "ingress", "beta:80", "80", "--to", "no host"], 2),
    "to for egress": (["proxy", "add", "egress", "8084", "beta:80", "--to", "localhost"], 2),
    "unknown proxy": (["proxy", "rm", "77"], 5),
    "proxy by word": (["proxy", "show", "seven"], 2),
    "unknown session": (["sessions", "rm", "77"], 5),
    "unknown admin": (["admin", "rm", "nobody"], 5),
    "unknown network": (["networks", "leave", "nowhere"], 5),
    "nodes of nowhere": (["nodes", "--network", "nowhere"], 5),
    "unknown command": (["statsu"], 2),
    "unknown option": (["status", "--jsn"], 2),
    "unknown verb": (["nodes", "lst"], 2),
    "too many words": (["status", "now"], 2),
    "too few words": (["rename"], 2),
    "option of a group": (["nodes", "--network", NETWORK, "show", "beta"], 2),
    "old spelling, half": (["proxy", "--direction", "egress"], 2),
    "no such direction": (["proxy", "--direction", "sideways", "--target", "beta:80", "--port", "80"], 2),
    "TLS": (["proxy", "--direction", "ingress", "-tls", "true", "-key-prefix", "P", "--origin", "beta:443",
             "-port", "80"], 2),
    "SSH": (["proxy", "--direction", "egress", "--target", "u:pass", "--port", "2222", "--kind", "ssh"], 2),
    "empty node": (["status", "--node", ""], 2),
    "no terminal": (["login"], 4),
    "two passwords": (["networks", "join", "x", "--password", "a", "--password-file", "/dev/null"], 2),
    "empty password": (["networks", "join", "x", "--password-stdin"], 2),
    "no password": (["networks", "join", "x"], 2),
    "taken name": (["rename", "beta"], 6),
}  # fmt: skip


@pytest.fixture(scope="module")
def identities(pair: Pair) -> dict[str, str]:
    alpha, beta = pair
    return {"{alpha}": alpha.identity, "{beta}": beta.identity, "{beta[0]}": beta.identity[:-9]}


@pytest.mark.parametrize("what", BAD)
def test_bad_input(pair: Pair, identities: dict[str, str], what: str) -> None:
    """One clear line, the right exit code, nothing on stdout, and nothing changed."""
    words, code = BAD[what]
    with unchanged(*pair):
        done = pair[0].ctl(*(identities.get(word, word) for word in words), check=False)
    assert done.code == code, done
    assert done.out == ""
    assert ONE_LINE.fullmatch(done.err), done.err
    assert "\x1b" not in done.err


@pytest.mark.parametrize(("words", "nearest"), [(["statsu"], "status"), (["status", "--jsn"], "--json")])
def test_nearest(pair: Pair, words: list[str], nearest: str) -> None:
    assert f"Did you mean '{nearest}'?" in pair[0].ctl(*words, check=False).err


def test_changed_identity(pair: Pair, identities: dict[str, str]) -> None:
    """An identity string with any one character changed is refused, or says the very same."""
    alpha, beta = pair
    identity = identities["{beta}"]
    with unchanged(alpha):
        for at in range(0, len(identity), len(identity) // 4):
            other = "A" if identity[at] != "A" else "B"
            done = alpha.ctl("register", identity[:at] + other + identity[at + 1 :], check=False)
            assert (done.code, done.out) == (2, ""), at
            assert ONE_LINE.fullmatch(done.err)
    assert beta.row(alpha) is not None


# Where hived is


def run(node: Node, *words: str, **env: str) -> subprocess.CompletedProcess[str]:
    """hivectl without the harness's --socket."""
    return subprocess.run(
        [str(BIN / "hivectl"), *words],
        env=node.env | env,
        capture_output=True,
        text=True,
        check=False,
        timeout=30,
    )


def test_socket(pair: Pair, tmp_path: Any) -> None:
    """--socket goes before HIVE_SOCKET, on either side of the command; nobody there is exit 3."""
    alpha, beta = pair
    here, there, nowhere = str(alpha.socket), str(beta.socket), str(tmp_path / "control.sock")
    assert run(alpha, "status", "--json", HIVE_SOCKET=here).returncode == 0
    for words in (["--socket", there, "status", "--json"], ["status", "--json", "--socket", there]):
        assert json.loads(run(alpha, *words, HIVE_SOCKET=here).stdout)["name"] == "beta"
    (tmp_path / "file").write_text("")
    for path in (nowhere, str(tmp_path / "file"), str(tmp_path / "file" / "below")):
        done = run(alpha, "status", HIVE_SOCKET=path)
        assert (done.returncode, done.stdout) == (3, "")
        assert ONE_LINE.fullmatch(done.stderr)
        assert path in done.stderr
    version = run(alpha, "version", "--json", HIVE_SOCKET=nowhere)
    assert json.loads(version.stdout) == {"hivectl": __version__, "hived": None}


def test_broken_pipe(pair: Pair) -> None:
    """``hivectl nodes | true`` ends quietly."""
    command = f"'{BIN / 'hivectl'}' --socket '{pair[0].socket}' nodes | true"
    done = subprocess.run(["sh", "-c", command], env=pair[0].env, capture_output=True, text=True, check=True)
    assert done.stderr == ""


def test_password_is_not_shown(pair: Pair) -> None:
    """Neither a network's password nor an admin's is in any answer, message or log."""
    alpha, beta = pair
    said = alpha.ctl("status").out + alpha.ctl("networks", "--json").out + alpha.ctl("nodes", "--json").out
    assert PASSWORD not in said + "".join(alpha.log.lines) + "".join(beta.log.lines)

"""Log-ins: whom a password and a token go to, and who is asked."""

from __future__ import annotations

import json

import pytest

from hivectl import legacy
from tests.unit.hivectl import rows
from tests.unit.hivectl.conftest import Hivectl
from tests.unit.hivectl.server import LOCAL, REMOTE, Server, problem
from tests.unit.hivectl.terminal import Terminal


@pytest.fixture(autouse=True)
def locked(hived: Server) -> None:
    """Both nodes want a log-in, with different passwords and tokens."""
    hived.peers[LOCAL].password, hived.peers[LOCAL].token = "near-pass", "near-token"
    hived.peers[REMOTE].password, hived.peers[REMOTE].token = "far-pass", "far-token"
    for peer in (LOCAL, REMOTE):
        hived.document("GET /v1/nodes", [rows.node()], peer=peer)
        hived.document("POST /v1/logout", {"note": ""}, peer=peer)


def _secrets(hived: Server) -> dict[str, set[str]]:
    """Every password and token that each peer was sent."""
    sent: dict[str, set[str]] = {LOCAL: set(), REMOTE: set()}
    for asked in hived.asked:
        if asked.token:
            sent[asked.peer].add(asked.token)
        if asked.body:
            sent[asked.peer].add(asked.body["password"])
    return sent


def test_login_keeps_a_token_that_later_commands_use(hivectl: Hivectl, hived: Server) -> None:
    ended = hivectl("login", "--password-stdin", input="near-pass\n")
    assert (ended.code, ended.err) == (0, "")
    assert ended.out == f"Logged in to {LOCAL} as admin until 2030-01-01T00:00:00Z.\n"
    file = hivectl.home / "state" / "hive" / f"{LOCAL}.token"
    assert file.read_text() == "near-token\n"
    assert file.stat().st_mode & 0o777 == 0o600
    assert hivectl("nodes").code == 0
    assert hived.asked[-1].token == "near-token"


def test_the_token_is_not_printed(hivectl: Hivectl) -> None:
    ended = hivectl("login", "--user", "joe", "--password-stdin", "--json", input="near-pass\n")
    assert json.loads(ended.out) == {"peer_id": LOCAL, "user": "joe", "expires": "2030-01-01T00:00:00Z"}
    assert "near-token" not in ended.err


def test_a_wrong_password_is_4_and_keeps_nothing(hivectl: Hivectl) -> None:
    ended = hivectl("login", "--password-stdin", input="wrong\n")
    assert ended.code == 4
    assert ended.err == "hivectl: logging in failed: the user or the password is wrong.\n"
    assert not (hivectl.home / "state").exists()


@pytest.mark.parametrize(
    ("line", "code", "hint"),
    [
        ("nodes", 4, "Type: hivectl login."),
        ("login", 4, "Pipe it: hivectl login --user admin --password-stdin."),
        ("login --user joe --node far", 4, "Pipe it: hivectl login --node far --user joe --password-stdin."),
        ("logout", 4, f"you are not logged in to {LOCAL}."),
    ],
)
def test_without_a_terminal(hivectl: Hivectl, line: str, code: int, hint: str) -> None:
    ended = hivectl(*line.split())
    assert (ended.code, ended.out) == (code, "")
    assert hint in ended.err


def test_a_remote_login_without_a_terminal(hivectl: Hivectl, hived: Server) -> None:
    hivectl("login", "--password-stdin", input="near-pass\n")
    ended = hivectl("nodes", "--node", "far")
    assert (ended.code, f"Type: hivectl login --node {REMOTE}." in ended.err) == (4, True)
    ended = hivectl("login", "--node", "far", "--password-stdin", input="far-pass\n")
    assert ended.code == 4
    assert f"this is the first log-in to {REMOTE}" in ended.err
    assert "add --yes" in ended.err
    assert hivectl("login", "--node", "far", "--password-stdin", "--yes", input="far-pass\n").code == 0
    assert hivectl("nodes", "--node", "far").code == 0
    assert _secrets(hived) == {LOCAL: {"near-pass", "near-token"}, REMOTE: {"far-pass", "far-token"}}
    # It is known now, so the next log-in needs no --yes.
    assert hivectl("logout", "--node", "far").code == 0
    assert hivectl("login", "--node", "far", "--password-stdin", input="far-pass\n").code == 0


def test_logout_ends_the_session_and_its_token(hivectl: Hivectl, hived: Server) -> None:
    hivectl("login", "--password-stdin", input="near-pass")
    ended = hivectl("logout")
    assert (ended.code, ended.out) == (0, f"Logged out of {LOCAL}.\n")
    assert (hived.asked[-1].call, hived.asked[-1].token) == ("POST /v1/logout", "near-token")
    assert hivectl("nodes").code == 4


def test_logout_of_a_session_that_ended_already(hivectl: Hivectl, hived: Server) -> None:
    hivectl("login", "--password-stdin", input="near-pass")
    hived.peers[LOCAL].token = "another"
    ended = hivectl("logout")
    assert (ended.code, ended.err) == (0, "The session had ended already.\n")
    assert not (hivectl.home / "state" / "hive" / f"{LOCAL}.token").exists()


def test_an_expired_token_is_dropped_and_root_goes_on_without(hivectl: Hivectl, hived: Server) -> None:
    hivectl("login", "--password-stdin", input="near-pass")
    hived.peers[LOCAL].password = None
    hived.answer(
        "GET /v1/nodes",
        problem("login-required", 401, "reading failed"),
        *(hived.peers[LOCAL].answers["GET /v1/nodes"]),
    )
    assert hivectl("nodes").code == 0
    assert [asked.token for asked in hived.asked if asked.call == "GET /v1/nodes"] == ["near-token", None]
    assert not (hivectl.home / "state" / "hive" / f"{LOCAL}.token").exists()


def test_a_name_that_came_to_mean_another_peer_gets_no_token(hivectl: Hivectl, hived: Server) -> None:
    hived.peers[LOCAL].password = None
    hivectl("login", "--node", "far", "--password-stdin", "--yes", input="far-pass\n")
    hived.names["far"] = LOCAL
    hivectl("nodes", "--node", "far")
    assert "far-token" not in _secrets(hived)[LOCAL]


def test_a_command_logs_in_on_the_terminal_and_goes_on(hivectl: Hivectl, hived: Server) -> None:
    terminal = Terminal(hivectl, "nodes", "--json", pipe_stdout=True)
    terminal.until(f"User on this node, near ({LOCAL}) [admin]: ")
    terminal.type("")
    terminal.until(f"Password of admin on this node, near ({LOCAL}): ")
    terminal.type("near-pass")
    code, out = terminal.end()
    assert (code, json.loads(out)) == (0, [rows.node()])
    assert "near-pass" not in terminal.screen
    assert hived.calls == ["GET /v1/nodes", "POST /v1/login", "GET /v1/nodes"]


def test_on_a_remote_node_each_peer_gets_its_own_password(hivectl: Hivectl, hived: Server) -> None:
    terminal = Terminal(hivectl, "nodes", "--node", "far", "--json", pipe_stdout=True)
    terminal.until("User on this node")
    terminal.type("joe")
    terminal.until("Password of joe on this node")
    terminal.type("near-pass")
    terminal.until(f"First log-in to {REMOTE}. Is that the right node? [y/N]: ")
    terminal.type("y")
    terminal.until(f"User on {REMOTE} [admin]: ")
    terminal.type("ann")
    terminal.until(f"Password of ann on {REMOTE}: ")
    terminal.type("far-pass")
    code, out = terminal.end()
    assert (code, json.loads(out)) == (0, [rows.node()])
    assert _secrets(hived) == {LOCAL: {"near-pass", "near-token"}, REMOTE: {"far-pass", "far-token"}}
    assert [a.body["user"] for a in hived.asked if a.call == "POST /v1/login"] == ["joe", "ann"]
    assert hivectl("nodes", "--node", "far").code == 0


@pytest.mark.parametrize("answer", ["n", "", "what"])
def test_a_peer_that_is_not_confirmed_gets_no_password(hivectl: Hivectl, hived: Server, answer: str) -> None:
    hived.peers[LOCAL].password = None
    terminal = Terminal(hivectl, "login", "--node", "far")
    terminal.until("[y/N]: ")
    terminal.type(answer)
    code, _ = terminal.end()
    assert code == 4
    assert "the peer ID was not confirmed" in terminal.screen
    assert "POST /v1/login" not in hived.calls


def test_a_wrong_password_on_the_terminal_ends_it(hivectl: Hivectl) -> None:
    terminal = Terminal(hivectl, "nodes")
    terminal.until("[admin]: ")
    terminal.type("")
    terminal.until("Password of")
    terminal.type("wrong")
    code, _ = terminal.end()
    assert code == 4
    assert "the user or the password is wrong" in terminal.screen


@pytest.mark.parametrize(("keys", "code"), [("\x03", 130), ("\x04", 1)])
def test_ctrl_c_and_ctrl_d_at_a_prompt(hivectl: Hivectl, keys: str, code: int) -> None:
    for until in ("[admin]: ", "Password of admin"):
        terminal = Terminal(hivectl, "login", *(["--user", "admin"] if "Password" in until else []))
        terminal.until(until)
        terminal.press(keys)
        assert terminal.end()[0] == code
        assert "Traceback" not in terminal.screen


def test_the_old_spellings_of_login(hivectl: Hivectl) -> None:
    assert legacy.rewrite(["login", "-node", "far"]) == ["login", "--node", "far"]
    assert hivectl("login", "-password-stdin", "-user=joe", input="near-pass").code == 0


def test_admin_set_asks_twice_and_for_the_old_password(hivectl: Hivectl, hived: Server) -> None:
    hived.peers[LOCAL].password = None
    refusal = problem("denied", 403, "setting the password failed", "the old password is needed")
    hived.answer("PUT /v1/admins/joe", refusal)
    terminal = Terminal(hivectl, "admin", "set", "joe")
    terminal.until("New password of joe: ")
    terminal.type("new-pass")
    terminal.until("The same again: ")
    terminal.type("new-pass")
    terminal.until("Old password of joe: ")
    hived.document("PUT /v1/admins/joe", {"note": ""})
    terminal.type("old-pass")
    code, _ = terminal.end()
    assert code == 0
    assert [asked.body for asked in hived.asked] == [
        {"password": "new-pass", "old_password": None},
        {"password": "new-pass", "old_password": "old-pass"},
    ]
    assert "joe is an admin of this node, with the new password." in terminal.screen


@pytest.mark.parametrize(("second", "why"), [("other", "the two differ"), ("", "it is empty")])
def test_admin_set_wants_the_same_twice(hivectl: Hivectl, hived: Server, second: str, why: str) -> None:
    terminal = Terminal(hivectl, "admin", "set", "joe")
    terminal.until("New password of joe: ")
    terminal.type("new-pass")
    terminal.until("The same again: ")
    terminal.type(second)
    assert terminal.end()[0] == 2
    assert why in terminal.screen
    assert hived.asked == []


def test_the_old_password_is_not_asked_for_without_a_terminal(hivectl: Hivectl, hived: Server) -> None:
    hived.peers[LOCAL].password = None
    hived.answer("PUT /v1/admins/joe", problem("denied", 403, "setting failed", "the old password is needed"))
    ended = hivectl("admin", "set", "joe", "--password-stdin", input="new-pass")
    assert (ended.code, ended.err) == (4, "hivectl: setting failed: the old password is needed.\n")


def test_joining_asks_for_the_password(hivectl: Hivectl, hived: Server) -> None:
    hived.peers[LOCAL].password = None
    hived.document("POST /v1/networks", {"name": "lab"})
    terminal = Terminal(hivectl, "networks", "join", "lab")
    terminal.until("Password of network lab: ")
    terminal.type("net-pass")
    assert terminal.end()[0] == 0
    assert hived.asked[-1].body == {"name": "lab", "password": "net-pass"}

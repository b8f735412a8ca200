"""The completion scripts, and what they complete."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys

import pytest

from tests.unit.hivectl import rows
from tests.unit.hivectl.conftest import Hivectl
from tests.unit.hivectl.server import LOCAL, REMOTE, Answer, Server, problem
from tests.unit.hivectl.terminal import Terminal

BASH = """
source <(hivectl completion bash)
complete -p hivectl
COMP_WORDS=({words} "{last}")
COMP_CWORD=$(( ${{#COMP_WORDS[@]}} - 1 ))
files="no files"
compopt() {{ [[ "$1 $2" == "-o default" ]] && files=files; }}
_hivectl_completion hivectl "{last}"
echo "${{COMPREPLY[@]}}"
echo "$files"
"""


@pytest.fixture
def on_path(hivectl: Hivectl) -> dict[str, str]:
    """An environment in which the word hivectl is the command."""
    program = hivectl.home / "bin" / "hivectl"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -m hivectl "$@"\n')
    program.chmod(0o755)
    return {**hivectl.environment(), "PATH": f"{program.parent}:{os.environ['PATH']}"}


@pytest.mark.skipif(not shutil.which("bash"), reason="there is no bash")
@pytest.mark.parametrize(
    ("words", "last", "expected"),
    [
        ("hivectl", "no", {"nodes"}),
        ("hivectl nodes", "", {"ls", "show", "alias", "forget", "block", "unblock"}),
        ("hivectl proxy add", "e", {"egress"}),
        ("hivectl nodes ls", "--n", {"--node", "--network"}),
        ("hivectl --json nodes", "sh", {"show"}),
        ("hivectl nodes block --node =", "fa", {"far"}),
        # bash itself knows the files.
        ("hivectl backup", "x", set()),
        ("hivectl --socket", "x", set()),
        ("hivectl nodes block --node = far", "f", {"far"}),
    ],
)
def test_bash(on_path: dict[str, str], hived: Server, words: str, last: str, expected: set[str]) -> None:
    for peer in (LOCAL, REMOTE):
        hived.document("GET /v1/nodes", NODES[:2], peer=peer)
    script = BASH.format(words=words, last=last)
    done = subprocess.run(
        ["bash", "--norc", "-c", script], env=on_path, capture_output=True, text=True, check=True
    )
    registered, found, is_file = done.stdout.splitlines()
    assert is_file == ("files" if last == "x" else "no files")
    assert "-F _hivectl_completion hivectl" in registered
    assert set(found.split()) == expected
    assert done.stderr == ""


NODES = [
    rows.node(name=name, peer_id=peer_id, path=path, alias=alias)
    for name, peer_id, path, alias in (
        ("near", LOCAL, "self", None),
        ("far", REMOTE, "relayed", None),
        ("fast", "12D3KooWFast", "direct", None),
        ("fast~123456", "12D3KooWFast123456", "direct", None),
        ("", "12D3KooWNameless", "none", None),
        ("somebody", "12D3KooWMine", "direct", "mine"),
        ("mine", "12D3KooWLiar", "direct", None),
        ("f$(touch x)", "12D3KooWHostile", "direct", None),
    )
]


def offered(hivectl: Hivectl, *words: str) -> dict[str, str]:
    """What zsh is offered for the last word, and what is said of it; nothing is on the terminal."""
    hivectl.env.update(
        {
            "_HIVECTL_COMPLETE": "zsh_complete",
            "COMP_WORDS": " ".join(["hivectl", *words]),
            "COMP_CWORD": str(len(words)),
        }
    )
    terminal = Terminal(hivectl, pipe_stdout=True)
    code, out = terminal.end()
    assert (code, terminal.screen) == (0, "")
    lines = out.splitlines()
    return dict(zip(lines[1::3], lines[2::3], strict=True))


def test_names_of_nodes(hivectl: Hivectl, hived: Server) -> None:
    hived.document("GET /v1/nodes", NODES)
    direct = "lab, direct"
    assert offered(hivectl, "ping", "") == {
        "far": "lab, relayed",
        "fast": direct,
        "fast~123456": direct,
        "12D3KooWNameless": "lab, not connected",
        "mine": direct,
        # An alias goes before a name, so that this one's name means another node.
        "12D3KooWLiar": direct,
    }
    assert offered(hivectl, "nodes", "show", "fast~") == {"fast~123456": direct}
    assert offered(hivectl, "status", "--node", "fa") == {
        "far": "lab, relayed",
        "fast": direct,
        "fast~123456": direct,
    }


ZSH = """
autoload -Uz compinit && compinit -D
source <(hivectl completion zsh)
show() { print -r -- "$BUFFER" >~/line; exit }
zle -N show
bindkey '^T' show
PS1='ready> '
"""


@pytest.mark.skipif(not shutil.which("zsh"), reason="there is no zsh")
@pytest.mark.parametrize("typed", ["nodes block --node=far", "nodes block far", "nodes block --node far"])
def test_in_zsh_itself_the_line_only_grows(
    on_path: dict[str, str], hivectl: Hivectl, hived: Server, typed: str
) -> None:
    hived.document("GET /v1/nodes", NODES[:2])
    (hivectl.home / ".zshrc").write_text(ZSH)
    shell = {**on_path, "ZDOTDIR": str(hivectl.home), "TERM": "dumb"}
    terminal = Terminal(hivectl, program=[shutil.which("zsh") or "", "-i"], environment=shell)
    terminal.until("ready> ")
    terminal.press(f"hivectl {typed[:-1]}\t\x14")
    terminal.end()
    assert (hivectl.home / "line").read_text() == f"hivectl {typed} \n"


def test_networks_and_proxies_of_another_node(hivectl: Hivectl, hived: Server) -> None:
    network = {"name": "lab", "members": 2, "connected": 1, "created": "2026-01-02T03:04:05Z"}
    hived.document("GET /v1/networks", [network], peer=REMOTE)
    ingress = rows.proxy(id=4, direction="ingress", port=80, peer_port=90)
    hived.document("GET /v1/proxies", [rows.proxy(), ingress], peer=REMOTE)
    far = ("--node", "far")
    assert offered(hivectl, *far, "networks", "leave", "") == {"lab": "2 other nodes"}
    proxies = {"3": "port 8084 to far:1984", "4": "far:90 to port 80"}
    assert offered(hivectl, *far, "proxy", "rm", "") == proxies
    # A network that is to be made has no name yet.
    assert offered(hivectl, "networks", "create", "") == {}


def test_sessions_and_users(hivectl: Hivectl, hived: Server) -> None:
    session = {"id": 7, "user": "ann", "bound_to": "uid:1000", "current": True}
    times = {"created": "2026-01-02T03:04:05Z", "expires": "2026-01-02T15:04:05Z"}
    hived.document("GET /v1/sessions", [session | times])
    hived.document("GET /v1/admins", [{"user": "ann", "created": "2026-01-02T03:04:05Z"}])
    assert offered(hivectl, "sessions", "rm", "") == {"7": "ann, uid:1000"}
    assert offered(hivectl, "admin", "set", "a") == {"ann": "admin"}


def test_an_option_with_its_value_stays_whole(hivectl: Hivectl, hived: Server) -> None:
    hived.document("GET /v1/nodes", NODES[:2])
    assert offered(hivectl, "nodes", "block", "--node=f") == {"--node=far": "lab, relayed"}
    # An unset variable is not this node.
    assert offered(hivectl, "--node=", "networks", "leave", "") == {}


def test_a_token_that_has_ended_stays(hivectl: Hivectl, hived: Server) -> None:
    hived.peers[LOCAL].password = "right"
    assert hivectl("login", "--user", "me", "--password-stdin", input="right\n").code == 0
    (token,) = (hivectl.home / "state").rglob("*.token")
    hived.peers[LOCAL].token = "another"
    assert offered(hivectl, "ping", "") == {}
    assert token.exists()


@pytest.mark.parametrize(
    "answer",
    [problem("login-required", 401, "reading failed"), Answer(lines=[], hold=True), Answer(raw=b"[" * 9999)],
)
def test_no_offer_without_an_answer(hivectl: Hivectl, hived: Server, answer: Answer) -> None:
    """Nobody is asked to log in, and a node that is silent is not waited for."""
    hived.answer("GET /v1/nodes", answer)
    assert offered(hivectl, "ping", "") == {}


def test_no_offer_without_a_node(hivectl: Hivectl) -> None:
    assert offered(hivectl, "ping", "") == {}


def test_zsh(hivectl: Hivectl) -> None:
    ended = hivectl("completion", "zsh")
    assert ended.code == 0
    assert ended.out.startswith("#compdef hivectl\n")
    assert "_HIVECTL_COMPLETE=zsh_complete hivectl" in ended.out
    hivectl.env.update({"_HIVECTL_COMPLETE": "zsh_complete", "COMP_WORDS": "hivectl no", "COMP_CWORD": "1"})
    assert hivectl().out.splitlines()[:2] == ["plain", "nodes"]

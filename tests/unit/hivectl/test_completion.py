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
_hivectl_completion hivectl "{last}"
echo "${{COMPREPLY[@]}}"
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
    ],
)
def test_bash(on_path: dict[str, str], words: str, last: str, expected: set[str]) -> None:
    script = BASH.format(words=words, last=last)
    done = subprocess.run(
        ["bash", "--norc", "-c", script], env=on_path, capture_output=True, text=True, check=True
    )
    registered, found = done.stdout.splitlines()
    assert "-F _hivectl_completion hivectl" in registered
    assert set(found.split()) == expected
    assert done.stderr == ""


NODES = [
    rows.node(name=name, peer_id=peer_id, path=path)
    for name, peer_id, path in (
        ("near", LOCAL, "self"),
        ("far", REMOTE, "relayed"),
        ("fast", "12D3KooWFast", "direct"),
        ("", "12D3KooWNameless", "none"),
        ("f$(touch x)", "12D3KooWHostile", "direct"),
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
    known = {"far": "lab, relayed", "fast": "lab, direct", "12D3KooWNameless": "lab, not connected"}
    assert offered(hivectl, "ping", "") == known
    assert offered(hivectl, "nodes", "show", "fas") == {"fast": "lab, direct"}
    assert offered(hivectl, "status", "--node", "f") == {"far": "lab, relayed", "fast": "lab, direct"}


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


@pytest.mark.parametrize(
    "answer", [problem("login-required", 401, "reading failed"), Answer(lines=[], hold=True)]
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

"""How hivectl starts and ends: its imports, its exit codes, and one line for every failure."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys

import pytest

from tests.unit.hivectl import rows
from tests.unit.hivectl.conftest import Hivectl
from tests.unit.hivectl.server import Answer, Server, problem

HEAVY = ("trio", "libp2p", "sqlalchemy", "dataset", "rich", "cryptography", "msgspec", "hivectl.client")

MODULES = """
import sys
from hivectl import main
code = main.run(sys.argv[1:])
print(*sys.modules, file=sys.stderr)
sys.exit(code)
"""


def test_version_imports_nothing_heavy(hivectl: Hivectl) -> None:
    argv = [sys.executable, "-c", MODULES, "--version"]
    done = subprocess.run(argv, env=hivectl.environment(), capture_output=True, text=True, check=True)
    assert done.stdout.startswith("hivectl ")
    loaded = set(done.stderr.split())
    assert "hivectl.main" in loaded
    assert not loaded.intersection(HEAVY)
    assert not [name for name in loaded if name.startswith("hivectl.commands")]


def test_a_listing_in_a_pipe_imports_no_rich(hivectl: Hivectl, hived: Server) -> None:
    hived.document("GET /v1/nodes", [rows.node()])
    argv = [sys.executable, "-c", MODULES, "nodes"]
    done = subprocess.run(argv, env=hivectl.environment(), capture_output=True, text=True, check=True)
    loaded = set(done.stderr.split())
    assert "hivectl.commands.nodes" in loaded
    assert not loaded.intersection({"trio", "libp2p", "sqlalchemy", "rich", "hivectl.commands.proxy"})


WRONG = [
    ("nodez", "there is no command 'nodez'. Did you mean 'nodes'?"),
    ("nodes lss", "there is no command 'lss'. Did you mean 'ls'?"),
    ("qqqq", "there is no command 'qqqq'. Type: hivectl --help."),
    ("nodes --netwrok x", "there is no option '--netwrok'. Did you mean '--network'?"),
    ("nodes -netwrok x", "there is no option '-netwrok'. Did you mean '--network'?"),
    ("status -x", "there is no option '-x'. Type: hivectl status --help."),
    ("nodes --watch show x", "--watch stands before 'show'; options go after the command."),
    ("nodes --network n ls", "--network stands before 'ls'; options go after the command."),
    ("proxy --watch add egress 1 a:1", "--watch stands before 'add'; options go after the command."),
    ("--network n nodes", "there is no option '--network'"),
    ("--node a nodes --node b", "--node is given twice, with different values."),
    ("nodes --node=", "--node is empty."),
    ("--socket= nodes", "--socket is empty."),
    ("nodes --node", "option '--node' requires an argument."),
    ("nodes --watch=1", "option '--watch' does not take a value."),
    ("--json", "a command is missing."),
    ("proxy add", "a command is missing. Type one of: egress, ingress."),
    ("forward", "NODE:PORT is missing. Usage: hivectl forward [OPTIONS] NODE:PORT [LOCALPORT]."),
    ("nodes show a b", "got unexpected extra argument (b). Usage: hivectl nodes show [OPTIONS] NODE."),
    ("proxy add egress 8084 far", "'far' has no port: write NODE:PORT, such as far:8080."),
    ("proxy add egress far:80 8084", "'far:80' is not a port"),
    ("proxy add ingress far:0 80", "port 0 is out of range: 1 to 65535."),
    ("proxy rm x", "'x' is not an ID"),
    ("networks create ../x", "'../x' is not a name: a name is 1 to 63 of"),
    ("proxy add ssh 2222", "this version has no SSH proxies yet."),
    ("proxy add ingress far:443 8080 --tls P", "this version has no TLS proxies yet."),
    ("completion fish", "'fish' is not one of 'bash', 'zsh'."),
    ("--json completion bash", "--json means nothing to completion."),
    ("networks join n --password a --password-stdin", "--password and --password-stdin exclude each other."),
    ("networks join n --password=", "--password is empty."),
    ("networks join n", "there is no terminal to ask for its password on."),
    ("networks join n --password-file none", "none: No such file or directory."),
    ("admin set joe", "Pipe it: hivectl admin set joe --password-stdin."),
    ("nodes alias far", "either an ALIAS or --rm is needed."),
    ("nodes alias far x --rm", "either an ALIAS or --rm is needed."),
]


@pytest.mark.parametrize(("line", "why"), WRONG)
def test_wrong_usage_is_one_line_and_2(hivectl: Hivectl, line: str, why: str) -> None:
    ended = hivectl(*line.split(" "))
    assert (ended.code, ended.out) == (2, "")
    assert ended.err.startswith("hivectl: ")
    assert ended.err.count("\n") == 1
    assert why in ended.err


def test_bare_it_helps(hivectl: Hivectl) -> None:
    ended = hivectl()
    assert (ended.code, ended.err) == (0, "")
    assert "First steps:" in ended.out


@pytest.mark.parametrize(
    ("kind", "status", "code"),
    [
        ("failed", 500, 1),
        ("usage", 400, 2),
        ("denied", 403, 4),
        ("not-found", 404, 5),
        ("conflict", 409, 6),
        ("unreachable", 502, 7),
        ("a-later-kind", 409, 1),
    ],
)
def test_a_problem_is_its_line_and_its_exit_code(
    hivectl: Hivectl, hived: Server, kind: str, status: int, code: int
) -> None:
    hived.answer(
        "POST /v1/proxies",
        problem(kind, status, "adding the proxy failed", "port 8084 is taken", "Choose another port"),
    )
    ended = hivectl("proxy", "add", "egress", "8084", "far:80", "--json")
    assert ended.err == "hivectl: adding the proxy failed: port 8084 is taken. Choose another port.\n"
    assert (ended.code, ended.out) == (code, "")


def test_the_text_of_a_problem_cannot_command_the_terminal(hivectl: Hivectl, hived: Server) -> None:
    hived.answer("GET /v1/nodes", problem("failed", 500, "it failed", "\x1b]0;owned\x07\nsecond"))
    ended = hivectl("nodes")
    assert ended.err == "hivectl: it failed: \\x1b]0;owned\\x07 second.\n"


def test_no_hived_is_3_and_says_what_to_type(hivectl: Hivectl) -> None:
    ended = hivectl("status")
    assert ended.code == 3
    # As a service where the package is installed.
    assert re.fullmatch(
        rf"hivectl: reaching hived failed: there is no socket {hivectl.socket}\."
        r" Start it: (hived run|sudo systemctl start hived), or name its socket with --socket\.\n",
        ended.err,
    )


def test_not_logged_in_without_a_terminal_is_4(hivectl: Hivectl, hived: Server) -> None:
    hived.peers[next(iter(hived.peers))].password = "secret"
    ended = hivectl("status")
    assert ended.code == 4
    assert ended.err == "hivectl: reading failed: you are not logged in. Type: hivectl login.\n"


def test_a_path_that_is_no_text(hivectl: Hivectl) -> None:
    ended = hivectl("nodes", "--socket", "/\udcff")
    assert ended.code == 3
    assert "there is no socket /\\udcff." in ended.err


def test_an_answer_of_another_shape_is_one_line_and_1(hivectl: Hivectl, hived: Server) -> None:
    hived.document("GET /v1/nodes", [{"peer_id": 5}])
    ended = hivectl("nodes")
    assert ended.code == 1
    assert ended.err.startswith("hivectl: reading hived's answer failed: ")
    assert ended.err.count("\n") == 1


BROKEN = """
from hivectl import cli, main
def fail(argv):
    raise ZeroDivisionError("what\\nnow")
cli.run = fail
raise SystemExit(main.run([]))
"""


@pytest.mark.parametrize("debug", ["", "1"])
def test_a_traceback_only_for_who_asks(hivectl: Hivectl, debug: str) -> None:
    env = {**hivectl.environment(), "HIVE_DEBUG": debug}
    done = subprocess.run(
        [sys.executable, "-c", BROKEN], env=env, capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    line = "hivectl: an unexpected failure: ZeroDivisionError: what\\nnow. Run it again with HIVE_DEBUG=1"
    assert line in done.stderr
    assert ("Traceback" in done.stderr) is bool(debug)


def test_ctrl_c_is_130(hivectl: Hivectl, hived: Server) -> None:
    hived.answer("GET /v1/nodes", Answer(lines=[[rows.node()]], hold=True))
    process = hivectl.start("nodes", "--watch", "--json", stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stdout.readline().startswith("[{")
    process.send_signal(signal.SIGINT)
    out, err = process.communicate()
    assert (process.returncode, out, err) == (130, "", "")


def test_a_closed_pipe_is_quiet(hivectl: Hivectl, hived: Server) -> None:
    hived.document("GET /v1/nodes", [rows.node() for _ in range(2000)])
    for words in (["nodes"], ["nodes", "--json"], ["--help"]):
        read, write = os.pipe()
        os.close(read)
        process = hivectl.start(*words, stdout=write, stderr=subprocess.PIPE)
        os.close(write)
        _, err = process.communicate()
        assert (process.returncode, err) == (141, "")


def test_a_full_disk_is_one_line(hivectl: Hivectl) -> None:
    with open("/dev/full", "w") as full:
        process = hivectl.start("--help", stdout=full, stderr=subprocess.PIPE)
        _, err = process.communicate()
    assert process.returncode == 1
    assert err == "hivectl: writing the output failed: No space left on device.\n"


@pytest.mark.parametrize(
    "line",
    [
        "--socket {s} --json --node far nodes ls",
        "nodes --socket {s} --json --node far",
        "nodes ls --node far --socket {s} --json",
        "--node far nodes --json ls --socket {s}",
        "-node far nodes -ls -json --socket={s}",
    ],
)
def test_global_options_stand_anywhere(hivectl: Hivectl, hived: Server, line: str) -> None:
    hivectl.env["HIVE_SOCKET"] = "/nowhere"
    hived.document("GET /v1/nodes", [], peer=hived.names["far"])
    ended = hivectl(*line.format(s=hived.path).split())
    assert (ended.code, ended.out) == (0, "[]\n")
    assert hived.calls == ["POST /v1/tunnel/far", "GET /v1/nodes"]

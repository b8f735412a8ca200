"""hived as a process: where it keeps things, what ps shows, SIGHUP, and what it refuses to start on."""

from __future__ import annotations

import os
import signal
import stat
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.nodes import BIN, Node, free_port

SECRET = "tell-nobody-of-this"


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    """One node, started in the user's own spelling, with passwords in its arguments."""
    flags = ["-dnc", f"my-network:{SECRET}", "-rc", f"admin:{SECRET}"]
    made = Node(tmp_path_factory.mktemp("daemon"), "alpha", *flags)
    try:
        yield made.start()
    finally:
        made.close()


def test_no_password_is_to_be_seen(node: Node) -> None:
    """Neither in the command line nor the environment of the process, nor in its files and log."""
    assert node.process is not None
    proc = Path(f"/proc/{node.process.pid}")
    for name in ("cmdline", "environ"):
        assert SECRET.encode() not in (proc / name).read_bytes(), name
    assert b"hived" in (proc / "cmdline").read_bytes()
    for path in node.data.iterdir():
        if path.is_file():
            assert SECRET.encode() not in path.read_bytes(), path
    assert SECRET not in "".join(node.log.lines)
    assert not [fd for fd in (proc / "fd").iterdir() if "hived-arguments" in os.readlink(fd)]


@pytest.mark.requires("ps")
def test_ps_shows_no_password(node: Node) -> None:
    done = subprocess.run(["ps", "-ww", "-e", "-o", "args"], capture_output=True, text=True, check=True)
    assert SECRET not in done.stdout


def test_the_flags_did_what_they_say(node: Node) -> None:
    assert [row["name"] for row in node.json("networks")] == ["my-network"]
    assert [row["user"] for row in node.json("admin", "ls")] == ["admin"]


def test_its_directory_is_private(node: Node) -> None:
    assert stat.S_IMODE(node.data.stat().st_mode) == 0o700
    modes = {path.name: stat.S_IMODE(path.lstat().st_mode) for path in node.data.iterdir()}
    assert modes.pop("control.sock") == 0o660
    assert set(modes.values()) == {0o600}, modes


def test_a_second_one_is_refused(node: Node) -> None:
    done = subprocess.run(
        node.command(), env=node.env, capture_output=True, text=True, timeout=30, check=False
    )
    assert done.returncode == 6
    assert node.process is not None
    assert f"process {node.process.pid}" in done.stderr
    assert done.stderr.count("\n") == 1
    assert node.is_alive()


def test_hangup_reads_the_configuration_again(home: Path) -> None:
    """A new name and port are taken over; a wrong file changes nothing; known passwords hold."""
    file, port = home / "hived.toml", free_port()
    file.write_text(f'listen = "/ip4/127.0.0.1/tcp/{port}"\nname = "before"\nadmin = "me:{SECRET}"')
    made = Node(home, "node")
    data = ["--data-dir", str(made.data), "--config", str(file)]
    made.command = lambda *extra: [str(BIN / "hived"), *data]  # type: ignore[method-assign]  # other flags
    try:
        made.start()
        assert made.process is not None

        def hangup(wait_for: str) -> str:
            before = len(made.log.lines)
            assert made.process is not None
            made.process.send_signal(signal.SIGHUP)
            return made.log.wait_for(wait_for, 10, before, made.is_alive)

        assert made.json("status")["name"] == "before"
        other = free_port()
        file.write_text(f'listen = "/ip4/127.0.0.1/tcp/{other}"\nname = "after"\nadmin = "me:other"')
        hangup("configuration read")
        status = made.json("status")
        assert (status["name"], status["addresses"]) == ("after", [f"/ip4/127.0.0.1/tcp/{other}"])
        assert any("stored one holds" in line for line in made.log.lines)
        for wrong in ('name = "a b"', "nonsense", 'listen = "nonsense"', 'log_level = "loud"'):
            file.write_text(wrong)
            assert "why=" in hangup("not taken over")
        file.write_text('socket = "/tmp/elsewhere.sock"\nname = "after"')
        assert "socket" in hangup("need a restart")
        assert made.json("status")["name"] == "after"
        assert made.stop() == 0
    finally:
        made.close()


def test_xdg_directories_of_an_ordinary_user(home: Path) -> None:
    """State, socket and configuration lie where XDG says. Root would take the system's paths: the data
    directories are then named in the environment, which is the same code behind the defaults."""
    made = Node(home, "node")
    state, runtime = home / "state/hive", home / "run/hive"
    made.env |= {"XDG_STATE_HOME": str(home / "state"), "XDG_RUNTIME_DIR": str(home / "run")}
    (home / "run").mkdir()
    words = ["--listen", "/ip4/127.0.0.1/tcp/0", "--log-level", "debug"]
    if os.geteuid() == 0:
        made.env |= {"HIVED_DATA_DIR": str(state), "HIVED_SOCKET": str(state / "control.sock")}
        runtime = state
    made.command = lambda *extra: [str(BIN / "hived"), *words]  # type: ignore[method-assign]  # other flags
    try:
        made.start()
        assert (state / "hive.db").exists()
        assert (runtime / "control.sock").is_socket()
    finally:
        made.close()
    assert not (runtime / "control.sock").exists()


@pytest.mark.root
def test_root_refuses_another_users_directory(home: Path) -> None:
    made = Node(home, "node")
    made.data.mkdir()
    os.chown(made.data, 12345, 12345)
    done = subprocess.run(
        made.command(), env=made.env, capture_output=True, text=True, timeout=30, check=False
    )
    assert done.returncode == 4
    assert "12345" in done.stderr
    assert done.stderr.count("\n") == 1
    assert list(made.data.iterdir()) == []

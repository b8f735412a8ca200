"""hived --daemonize, and hived as process 1."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.integration.nodes import WAIT_SECONDS, Node


def _background(node: Node, *extra: str) -> subprocess.CompletedProcess[str]:
    """What a person sees who types it: the caller's output and exit code, when it has come back."""
    return subprocess.run(
        node.command("--daemonize", *extra),
        env=node.env,
        cwd=node.directory,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def _until(condition: Callable[[], object]) -> None:
    """What happens in a process that is no child of ours has no event here."""
    deadline = time.monotonic() + WAIT_SECONDS
    while not condition():
        assert time.monotonic() < deadline, "in vain"
        time.sleep(0.02)


def _pid(node: Node) -> int:
    return int((node.data / "hived.pid").read_text())


def _is_alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"


def _end(node: Node, number: int = signal.SIGTERM) -> None:
    """End the hived in the background, which is no child of ours."""
    pid = _pid(node)
    os.kill(pid, number)
    _until(lambda: not _is_alive(pid))


@pytest.fixture
def node(tmp_path: Path) -> Node:
    return Node(tmp_path, "alpha")


def test_the_caller_comes_back_when_the_node_is_ready(node: Node) -> None:
    done = _background(node)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    try:
        assert node.ctl("status", "--json").json()["service"]["pid"] == _pid(node)
        # A session of its own, which no terminal can end.
        assert os.getsid(_pid(node)) != os.getsid(0)
        assert not os.isatty(0) or os.readlink(f"/proc/{_pid(node)}/fd/0") == "/dev/null"
        log = node.data / "hived.log"
        assert "hived: ready" in log.read_text()
        assert log.stat().st_mode & 0o777 == 0o600
        twice = _background(node)
        assert twice.returncode == 6
        assert twice.stderr.count("\n") == 1
        assert "runs already" in twice.stderr
    finally:
        _end(node)
    assert not (node.data / "hived.pid").exists()
    assert log.read_text().rstrip().endswith("hived: stopped")


def test_what_a_killed_one_has_left_is_no_obstacle(node: Node) -> None:
    assert _background(node).returncode == 0
    _end(node, signal.SIGKILL)
    assert (node.data / "hived.pid").exists()
    assert _background(node).returncode == 0
    _end(node)


def test_what_fails_at_start_is_said_to_the_caller(node: Node) -> None:
    node.listen = ("/ip4/192.0.2.1/tcp/4483",)
    done = _background(node)
    assert done.returncode == 1
    assert done.stderr.startswith("hived: listening on /ip4/192.0.2.1/tcp/4483 failed")
    assert done.stderr.count("\n") == 1
    assert not (node.data / "hived.pid").exists()
    done = _background(node, "--pid-file", "/proc/none/pid")
    assert done.returncode == 1
    assert "--pid-file" in done.stderr


def test_what_is_no_pid_file_is_left_alone(node: Node) -> None:
    """A typing error costs no file."""
    for content in (b"precious", b"\xff\xfe", b"1" * 40):
        other = node.directory / "other"
        other.write_bytes(content)
        done = _background(node, "--pid-file", str(other))
        assert (done.returncode, done.stderr.count("\n")) == (6, 1)
        assert "no PID file" in done.stderr
        assert other.read_bytes() == content


@pytest.mark.root
def test_nothing_is_made_in_another_users_directory(node: Node) -> None:
    node.data.mkdir()
    (node.data / "hived.log").symlink_to(node.directory / "made")
    os.chown(node.data, 65533, 65533)
    done = _background(node)
    assert done.returncode == 4
    assert "belongs to user ID 65533" in done.stderr
    assert not (node.directory / "made").exists()


def test_a_hangup_while_it_starts_does_not_end_it(node: Node) -> None:
    node.start(wait=False)
    assert node.process is not None
    status = Path(f"/proc/{node.process.pid}/status")
    # Ignored, or caught, which is signal 1.
    _until(
        lambda: any(
            int(line.split()[1], 16) & 1
            for line in status.read_text().splitlines()
            if line[:6] in ("SigIgn", "SigCgt")
        )
    )
    node.process.send_signal(signal.SIGHUP)
    node.ready()
    assert node.stop() == 0


def test_a_log_that_cannot_be_written_changes_nothing(node: Node) -> None:
    """Neither on a reload nor when it goes away later."""
    logs = node.directory / "logs"
    logs.mkdir()
    assert _background(node, "--log-file", str(logs / "log")).returncode == 0
    try:
        (logs / "log").unlink()
        logs.rmdir()
        node.ctl("networks", "create", "blue")
        os.kill(_pid(node), signal.SIGHUP)
        assert node.ctl("status", "--json").json()["networks"][0]["name"] == "blue"
        logs.mkdir()
        node.ctl("networks", "create", "green")
        assert "networks" in (logs / "log").read_text()
    finally:
        _end(node)


def test_hangup_reads_files_named_relative_to_the_callers_directory(node: Node) -> None:
    names = node.directory / "networks"
    names.write_text("first:a-long-password\n")
    assert _background(node, "--network-file", "networks").returncode == 0
    try:
        names.write_text("first:a-long-password\nsecond:a-long-password\n")
        os.kill(_pid(node), signal.SIGHUP)
        _until(lambda: {"first", "second"} == {n["name"] for n in node.ctl("networks", "--json").json()})
    finally:
        _end(node)


def test_a_log_that_was_rotated_goes_on_in_a_new_file(node: Node) -> None:
    assert _background(node).returncode == 0
    try:
        log = node.data / "hived.log"
        log.rename(node.data / "hived.log.1")
        os.kill(_pid(node), signal.SIGHUP)
        _until(lambda: log.exists() and "configuration read" in log.read_text())
    finally:
        _end(node)


@pytest.mark.parametrize(("variable", "word"), [("SYSTEMD_EXEC_PID", "systemd")])
def test_systemd_wants_it_in_the_foreground(node: Node, variable: str, word: str) -> None:
    command = ["bash", "-c", f'export {variable}=$$; exec "$@"', "bash", *node.command("--daemonize")]
    done = subprocess.run(command, env=node.env, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 2
    assert word in done.stderr


# In a PID namespace of its own, as in a container.
_AS_FIRST = ["unshare", "--pid", "--fork", "--mount-proc", "--kill-child"]


@pytest.fixture
def first(node: Node) -> subprocess.Popen[str]:
    """hived as process 1; its standard error is a pipe."""
    return subprocess.Popen(
        [*_AS_FIRST, *node.command()], env=node.env, cwd=node.directory, stderr=subprocess.PIPE, text=True
    )


def _inside(process: subprocess.Popen[str]) -> int:
    """The process number, seen from here, of what is process 1 there."""
    path = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    _until(lambda: path.read_text().split())
    return int(path.read_text().split()[0])


@pytest.mark.requires("netns")
def test_process_1_ends_at_sigterm_and_reaps_orphans(node: Node, first: subprocess.Popen[str]) -> None:
    reader = node.log.follow(first)
    try:
        node.log.wait_for("hived: ready", 30)
        pid = _inside(first)
        orphan = ["nsenter", f"--target={pid}", "--pid", "--mount", "sh", "-c", "sleep 0.1 & exec true"]
        subprocess.run(orphan, check=True, timeout=10)
        children = Path(f"/proc/{pid}/task/{pid}/children")
        _until(lambda: not children.read_text().split())
        os.kill(pid, signal.SIGTERM)
        assert first.wait(10) == 0
        reader.join()
        node.log.wait_for("hived: stopped", 1)
    finally:
        first.kill()
        first.wait()


@pytest.mark.requires("netns")
def test_process_1_heeds_a_signal_while_it_starts(node: Node, first: subprocess.Popen[str]) -> None:
    try:
        status = Path(f"/proc/{_inside(first)}/status")

        def heeds() -> bool:
            """Whether SIGTERM is caught, which is signal 15."""
            line = next(line for line in status.read_text().splitlines() if line.startswith("SigCgt"))
            return bool(int(line.split()[1], 16) & 1 << (signal.SIGTERM - 1))

        _until(heeds)
        assert not node.socket.exists()
        os.kill(_inside(first), signal.SIGTERM)
        assert first.wait(10) == 0
        assert not node.socket.exists()
    finally:
        first.kill()
        _, said = first.communicate()
    assert said == ""


@pytest.mark.requires("netns")
def test_process_1_stays_in_the_foreground(node: Node) -> None:
    done = subprocess.run(
        [*_AS_FIRST, *node.command("--daemonize")],
        env=node.env,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 2
    assert "--detach" in done.stderr

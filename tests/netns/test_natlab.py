"""The lab for people: its shell, its command `on`, and its end."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import re
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from tests.netns.keeper import ROOT

NATLAB = [str(ROOT / "scripts/natlab")]
GONE = "natlab: all of it is gone\n"


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    return {**os.environ, "HOME": str(tmp_path), "TERM": "dumb"}


def directory(greeting: str) -> Path:
    """Where the lab keeps its files."""
    found = re.search(r" (/\S+)/bin/on NAME", greeting)
    assert found is not None
    assert Path(found[1]).name.startswith("natlab-")
    return Path(found[1])


@pytest.mark.requires("natlab")
def test_a_command_on_the_machines(environment: dict[str, str]) -> None:
    script = """
    on home hivectl nodes --json
    on office-router nft list ruleset | grep -c fully-random >&2
    on home ip address | grep -c 'inet6 2600:' >&2
    on nowhere true
    exit $(($? + 40))
    """
    done = subprocess.run(
        [*NATLAB, "--ipv6", "--delay", "5", "bash", "-c", script],
        env=environment,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == 42, done.stderr
    rows = {row["name"]: row for row in json.loads(done.stdout)}
    assert set(rows) == {"pub", "home", "office"}
    assert rows["pub"]["path"] == "direct"
    lines = done.stderr.splitlines()
    table = {line.split()[0]: line.split() for line in lines if line.startswith(("pub ", "home ", "office "))}
    assert table["home"][1:] == ["prc", "192.168.1.10", "5.5.5.11", "2600:5:2::a", rows["home"]["peer_id"]]
    assert table["office"][1] == "sym"
    assert "    on home hivectl nodes" in lines
    at = lines.index("1")
    assert lines[at : at + 2] == ["1", "1"]
    assert lines[at + 2].startswith(
        "on: NAME COMMAND..., where NAME is one of: internet pub home-switch home-"
    )
    assert done.stderr.endswith(GONE)
    assert not directory(done.stderr).exists()


@contextlib.contextmanager
def terminal(environment: dict[str, str], *options: str) -> Iterator[tuple[subprocess.Popen[bytes], int]]:
    """A lab with a shell on a terminal, whose other end this is."""
    ours, theirs = pty.openpty()
    with subprocess.Popen(
        [*NATLAB, "--lan", "home=prc", *options],
        env=environment,
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        start_new_session=True,
        # So that Ctrl-C means something there.
        preexec_fn=lambda: os.close(os.open(os.ttyname(0), os.O_RDWR)),
    ) as process:
        os.close(theirs)
        try:
            yield process, ours
        finally:
            process.kill()
            os.close(ours)


def until(terminal: int, text: str) -> str:
    """What is shown up to a text."""
    shown = ""
    while text not in shown:
        try:
            shown += os.read(terminal, 4096).decode()
        except OSError:
            raise AssertionError(f"the terminal was closed before {text!r}:\n{shown}") from None
    return shown


@pytest.mark.requires("natlab")
def test_a_shell(environment: dict[str, str]) -> None:
    with terminal(environment) as (process, tty):
        greeting = until(tty, "(natlab)")
        # Ctrl-C else throws away what the terminal has not shown yet, the next prompt for example.
        os.write(tty, b"stty noflsh; on home hivectl status; echo status=$?\n")
        assert "home" in until(tty, "status=0")
        os.write(tty, b"on home sed -u s/no/yes/\nno\n")
        until(tty, "yes\r\n")
        os.write(tty, b"\x03")
        until(tty, "(natlab)")
        # The nodes have not been interrupted with it.
        os.write(tty, b"on pub hivectl nodes | grep -c direct; exit 3\n")
        until(tty, "\r\n1\r\n")
        assert process.wait(60) == 3
    assert not directory(greeting).exists()


@pytest.mark.requires("natlab")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_shell_whose_lab_is_ended(environment: dict[str, str], number: int) -> None:
    with terminal(environment, "--hosts", "0") as (process, tty):
        greeting = until(tty, "(natlab)")
        children = psutil.Process(process.pid).children(recursive=True)
        names = [child.name() for child in children]
        assert {"bash", "hived"} < set(names)
        # The shell is the person's.
        lab = [child for child, name in zip(children, names, strict=True) if name != "bash"]
        process.send_signal(number)
        assert process.wait(30) == (-number if number == signal.SIGKILL else 128 + number)
        _, alive = psutil.wait_procs(lab, timeout=15)
        assert not alive
    assert not directory(greeting).exists()


def test_what_is_wrong_is_said(environment: dict[str, str]) -> None:
    done = subprocess.run(
        [*NATLAB, "--lan", "home=cone"], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert "'home=cone' is not NAME=MODE with a MODE of none, full, prc" in done.stderr


@pytest.mark.requires("natlab")
def test_a_lab_that_cannot_be(environment: dict[str, str]) -> None:
    words = ["--lan", "pub=prc", "--hosts", "0"]
    done = subprocess.run([*NATLAB, *words], env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (1, "natlab: 'pub': there is one already\n")

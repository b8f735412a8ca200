"""The README's first ten minutes, command by command, as a stranger would type them."""

from __future__ import annotations

import contextlib
import os
import re
import shlex
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.nodes import BIN, LogReader, environment, free_port

README = Path(__file__).parents[2] / "README.md"
HEADING = "## First ten minutes"
MOST_COMMANDS = 8
WAIT_SECONDS = 30.0
PAGE = "<h1>Hello from home</h1>"


def commands() -> list[str]:
    """The lines after ``$ `` in the section's console blocks."""
    text = README.read_text()
    section = text.split(f"\n{HEADING}\n", 1)[1].split("\n## ", 1)[0]
    blocks = re.findall(r"```console\n(.*?)```", section, re.DOTALL)
    return [line[2:] for block in blocks for line in block.splitlines() if line.startswith("$ ")]


def elsewhere(lines: list[str], directory: Path) -> list[str]:
    """The commands with free ports and directories of the test's own, each replaced throughout."""
    text = "\n".join(lines)
    ports = set(re.findall(r"(?<=/tcp/)\d+|(?<=http.server )\d+|(?<=egress )\d+", text))
    places = set(re.findall(r"/tmp/[\w-]+", text))
    assert ports, "the README's commands have changed: look for their ports anew"
    assert places, "the README's commands have changed: look for their directories anew"
    for port in ports:
        text = re.sub(rf"\b{port}\b", str(free_port()), text)
    for place in places:
        text = re.sub(rf"{place}\b", str(directory / Path(place).name), text)
    return text.split("\n")


class Shell:
    """A bash that is typed into, as on a terminal. Its jobs get SIGTERM in the end, as ``kill %1`` does."""

    def __init__(self, directory: Path) -> None:
        env = environment(directory) | {
            "PATH": f"{BIN}:{os.environ['PATH']}",
            "PYTHONUNBUFFERED": "1",
            "no_proxy": "127.0.0.1",
        }
        self.process = subprocess.Popen(
            ["bash", "--noprofile", "--norc"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            bufsize=1,
            cwd=directory,
            env=env,
            start_new_session=True,
        )
        self.err = LogReader(directory / "stderr")
        self._reader = self.err.follow(self.process)

    def type(self, command: str) -> tuple[str, int]:
        """What a command printed, and its exit code; one that ends with ``&`` goes on."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(f'{command}\necho " [exit $?]"\n')
        lines = []
        for line in self.process.stdout:
            if found := re.search(r" \[exit (\d+)\]$", line):
                lines.append(line[: found.start()])
                return "".join(lines), int(found[1])
            lines.append(line)
        raise AssertionError(f"bash ended at: {command}\n{''.join(self.err.lines)}")

    def wait_for(self, text: str) -> None:
        """Wait for a line with ``text`` from a command that goes on."""
        assert self.process.stdout is not None
        assert any(text in line for line in self.process.stdout), f"no {text!r}"

    def close(self) -> None:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write("kill $(jobs -p); wait\n")
        self.process.stdin.close()
        try:
            self.process.wait(10)
        finally:
            # Nothing may stay behind, whatever the README says.
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
            self._reader.join()
            self.process.stdout.close()
            if self.process.stderr is not None:
                self.process.stderr.close()


@pytest.fixture
def shell(tmp_path: Path) -> Iterator[Shell]:
    running = Shell(tmp_path)
    try:
        yield running
    finally:
        running.close()


@pytest.mark.requires("curl")
def test_the_first_ten_minutes(shell: Shell, tmp_path: Path) -> None:
    """At most 8 commands, each of which works; the last one prints the page that the other node serves."""
    (tmp_path / "index.html").write_text(PAGE)
    assert 2 <= len(commands()) <= MOST_COMMANDS
    out = ""
    for line in elsewhere(commands(), tmp_path):
        seen = len(shell.err.lines)
        out, code = shell.type(line)
        assert code == 0, f"{line}: {out}{''.join(shell.err.lines[seen:])}"
        # The README says: wait for each to say "ready".
        if shlex.split(line)[0] == "hived":
            shell.err.wait_for("hived: ready", WAIT_SECONDS, seen)
        elif "http.server" in line:
            shell.wait_for("Serving")
    assert out == PAGE

"""`make machine`: what people get, as they get it."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.netns.keeper import ROOT

pytestmark = pytest.mark.requires("machines")


def shell(*words: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "tests.system.shell", *words]
    return subprocess.run(command, cwd=ROOT, input=stdin, capture_output=True, text=True, check=False)


def directories() -> set[Path]:
    return set(Path("/var/tmp").glob("machine-*"))


def test_a_command_on_one_of_two_machines(layers: list[Path]) -> None:
    before = directories()
    done = shell("--machines", "2", "--", "hivectl status && exit 7")
    assert done.returncode == 7
    assert re.search(r"^name +one$", done.stdout, re.MULTILINE)
    doors = re.findall(r"^(\w+): [0-9.]+, from another terminal: (nsenter .*)$", done.stderr, re.MULTILINE)
    assert [name for name, _ in doors] == ["one", "two"]
    # All of it is gone.
    assert directories() <= before
    for _, door in doors:
        tried = subprocess.run([*door.split(), "-c", "true"], capture_output=True, check=False)
        assert tried.returncode != 0


def test_a_shell_and_a_reboot(layers: list[Path]) -> None:
    done = shell(stdin="echo first on $(hostname)\nreboot; sleep 1000\n")
    assert "first on one\n" in done.stdout
    # What was typed ahead is lost with the shell; the next one finds the end of the input.
    assert "machine: one goes off\nmachine: one has booted\n" in done.stderr
    assert done.returncode == 0


def test_bare(base: Path, deb: Path) -> None:
    done = shell("--bare", "--", "command -v hived; ls /root")
    assert done.stdout == f"{deb.name}\n"

"""What is kept between runs: made once, and not thrown away under those who use it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.netns.keeper import ROOT
from tests.system import cache

ASK = """
import sys
from tests.system import cache
print(cache.directory("kind", sys.argv[1], lambda to: (to / "made").touch()), flush=True)
sys.stdin.read()
"""


@pytest.fixture(autouse=True)
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HIVE_CACHE", str(tmp_path))
    return tmp_path


def ask(name: str) -> subprocess.Popen[str]:
    """A process that has asked for a thing, and lives until its input ends."""
    words = [sys.executable, "-c", ASK, name]
    process = subprocess.Popen(words, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline().endswith(f"{name}\n")
    return process


def test_a_thing_is_made_once_and_old_ones_go(root: Path) -> None:
    with ask("first") as first:
        first.communicate()
    for number in range(cache.KEPT):
        with ask(f"later-{number}") as later:
            later.communicate()
    kept = {path.name for path in (root / "kind").iterdir()}
    assert kept == {f"later-{number}" for number in range(cache.KEPT)}
    made = cache.directory("kind", "later-0", lambda to: pytest.fail("it is there"))
    assert [path.name for path in made.iterdir()] == ["made"]


def test_what_a_process_uses_stays(root: Path) -> None:
    with ask("first") as first:
        os.utime(root / "kind" / "first", (0, 0))
        for number in range(cache.KEPT + 1):
            with ask(f"later-{number}") as later:
                later.communicate()
        assert (root / "kind" / "first" / "made").exists()
        first.communicate()
    with ask("last") as last:
        last.communicate()
    assert not (root / "kind" / "first").exists()


def test_what_could_not_be_made_is_tried_anew(root: Path) -> None:
    def fail(to: Path) -> None:
        (to / "half").touch()
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        cache.directory("kind", "thing", fail)
    assert list((root / "kind").iterdir()) == []
    made = cache.directory("kind", "thing", lambda to: (to / "whole").touch())
    assert [path.name for path in made.iterdir()] == ["whole"]

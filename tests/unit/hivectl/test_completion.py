"""The completion scripts, and what they complete."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys

import pytest

from tests.unit.hivectl.conftest import Hivectl

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


def test_zsh(hivectl: Hivectl) -> None:
    ended = hivectl("completion", "zsh")
    assert ended.code == 0
    assert ended.out.startswith("#compdef hivectl\n")
    assert "_HIVECTL_COMPLETE=zsh_complete hivectl" in ended.out
    hivectl.env.update({"_HIVECTL_COMPLETE": "zsh_complete", "COMP_WORDS": "hivectl no", "COMP_CWORD": "1"})
    assert hivectl().out.splitlines()[:2] == ["plain", "nodes"]

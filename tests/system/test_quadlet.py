"""packaging/container/hived.container, read by podman's own generator."""

from __future__ import annotations

import re
from itertools import pairwise
from pathlib import Path

import pytest

from tests.netns.keeper import ROOT
from tests.system import quadlet
from tests.system.container import LOCKED_DOWN, STATE

pytestmark = pytest.mark.requires("podman")
FILE = ROOT / "packaging/container/hived.container"


def options(command: list[str]) -> set[str]:
    """Those of a `podman run`, each with its value as one word."""
    return {*command, *(f"{option}={value}" for option, value in pairwise(command))}


@pytest.mark.parametrize("user", [True, False])
def test_it_becomes_a_service_that_is_as_locked_down_as_in_the_docs(tmp_path: Path, user: bool) -> None:
    made = options(quadlet.exec_start(quadlet.unit(tmp_path, FILE.read_text(), user=user)))
    assert made >= {*LOCKED_DOWN, f"-v=hive:{STATE}", "--publish=4483:4483", "--sdnotify=container"}


def test_its_proposals_are_right_too(tmp_path: Path) -> None:
    text, proposals = re.subn(r"^#(?=[A-Z][A-Za-z]*=)", "", FILE.read_text(), flags=re.MULTILINE)
    assert proposals == 5
    command = quadlet.exec_start(quadlet.unit(tmp_path, text))
    assert len([word for word in command if word.startswith("hive-")]) == 2
    assert len([word for word in command if "/run/secrets/hive-" in word]) == 2


def test_a_key_that_podman_does_not_know_would_be_seen(tmp_path: Path) -> None:
    with pytest.raises(quadlet.QuadletError, match="ReadOnlyRoot"):
        quadlet.unit(tmp_path, FILE.read_text().replace("ReadOnly=", "ReadOnlyRoot="))

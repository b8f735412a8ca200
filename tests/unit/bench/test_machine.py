"""The results say what they were measured on."""

from __future__ import annotations

import platform

import hived
from bench.machine import _said, machine


def test_versions_of_what_takes_part() -> None:
    found = machine()
    assert hived.__version__ in found["versions"]["hive"]
    assert found["versions"]["python"] == platform.python_version()
    assert found["versions"]["libp2p"][0].isdigit()
    assert found["machine"]["cores"] >= 1
    assert platform.machine() in found["machine"]["processor"]


def test_a_program_that_is_not_there_or_fails_has_none() -> None:
    assert _said("no-such-program", "--version") is None
    assert _said("sh", "-c", "echo 1.2; exit 3") is None
    assert _said("sh", "-c", "echo tool version 1.2 >&2", pattern=r"version (\S+)") == "1.2"

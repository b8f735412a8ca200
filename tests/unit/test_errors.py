"""Failures as people see them: one line, and one exit code and status for each kind."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hived import errors
from hived.errors import HiveError, Kind


@pytest.mark.parametrize(
    ("make", "kind", "status", "code"),
    [
        (errors.usage, Kind.USAGE, 400, 2),
        (errors.failed, Kind.FAILED, 500, 1),
        (errors.denied, Kind.DENIED, 403, 4),
        (errors.not_found, Kind.NOT_FOUND, 404, 5),
        (errors.conflict, Kind.CONFLICT, 409, 6),
        (errors.unreachable, Kind.UNREACHABLE, 502, 7),
    ],
)
def test_each_kind_has_its_status_and_exit_code(make: object, kind: Kind, status: int, code: int) -> None:
    """The numbers are CLI.md's; scripts rely on them."""
    assert callable(make)
    error = make("opening it failed", "it is gone", "Make it anew")
    assert isinstance(error, HiveError)
    assert (error.kind, error.kind.status, error.kind.exit_code) == (kind, status, code)
    assert str(error) == "opening it failed: it is gone. Make it anew."


def test_wire_names_are_distinct_and_round_trip() -> None:
    assert len({kind.wire for kind in Kind}) == len(Kind)
    assert [Kind.from_wire(kind.wire) for kind in Kind] == list(Kind)
    assert Kind.from_wire("of a later version") is Kind.FAILED


@pytest.mark.parametrize(
    ("parts", "line"),
    [
        (("it failed",), "it failed."),
        (("it failed", "why"), "it failed: why."),
        (("it failed", "", "do this"), "it failed. do this."),
        (("it failed", "why", "really?"), "it failed: why. really?"),
        (("it\nfailed", "a\r\nb", " c\td "), "it failed: a b. c d."),
    ],
)
def test_the_line(parts: tuple[str, ...], line: str) -> None:
    assert errors.failed(*parts).line() == line


@given(st.text(min_size=1), st.text(), st.text())
def test_it_is_always_one_line(what: str, why: str, hint: str) -> None:
    """Whatever a peer or a file put into the texts."""
    line = errors.failed(what, why, hint).line()
    assert len(line.splitlines()) <= 1
    assert line.endswith((".", "?"))

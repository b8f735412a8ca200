"""Columns, quantities and times."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hivectl import output

NOW = datetime(2026, 1, 1, 12, 0, 0, tzinfo=UTC)


@given(st.text())
def test_clean_text_is_printable_and_printable_text_is_kept(text: str) -> None:
    assert output.clean(text).isprintable()
    if text.isprintable():
        assert output.clean(text) == text


@given(st.lists(st.tuples(st.text(), st.text(), st.text()), min_size=1))
def test_columns_keep_every_cell_in_its_place(rows: list[tuple[str, str, str]]) -> None:
    lines = output.columns(rows)
    widths = [max(len(output.clean(row[at])) for row in rows) for at in range(3)]
    for row, line in zip(rows, lines, strict=True):
        assert "\t" not in line
        cells = [output.clean(cell).ljust(width) for cell, width in zip(row, widths, strict=True)]
        assert line == "  ".join(cells).rstrip()


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0B"),
        (1023, "1023B"),
        (1024, "1.00KiB"),
        (1536 * 1024, "1.50MiB"),
        (int(1.04 * 1024**3), "1.04GiB"),
        (int(9.996 * 1024**3), "10.0GiB"),
        (int(10.44 * 1024**3), "10.4GiB"),
        (int(99.96 * 1024**3), "100GiB"),
        (1000 * 1024**3, "1000GiB"),
        (1024**3 - 1, "1.00GiB"),
        (5 * 1024**5, "5120TiB"),
    ],
)
def test_size(count: int, text: str) -> None:
    assert output.size(count) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(-1, "0 s"), (0.4, "0 s"), (59.9, "59 s"), (60, "1 min"), (3725, "1 h 2 min"), (90061, "1 d 1 h")],
)
def test_duration(seconds: float, text: str) -> None:
    assert output.duration(seconds) == text


@pytest.mark.parametrize(
    ("time", "text"),
    [
        ("2026-01-01T11:59:18Z", "42 s ago"),
        ("2026-01-01T12:59:18+01:00", "42 s ago"),
        ("2026-01-01T12:00:01Z", "2026-01-01T12:00:01Z"),
        ("2026-01-01T11:00:00", "2026-01-01T11:00:00"),
        ("soon", "soon"),
    ],
)
def test_ago(time: str, text: str) -> None:
    assert output.ago(time, NOW) == text


def test_a_time_in_a_pipe_is_as_the_api_says_it() -> None:
    assert output.when("2026-01-01T11:59:18Z") == "2026-01-01T11:59:18Z"
    assert output.when(None) == "never"


def test_pairs(capsys: pytest.CaptureFixture[str]) -> None:
    output.pairs([("name", "web"), ("addresses", ["a", "b"])])
    assert capsys.readouterr().out == "name       web\naddresses  a\n           b\n"


def test_words_about_the_data_go_to_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    output.note("")
    output.warn("")
    output.note("a\x1b[2J")
    output.warn("the network's password is short.")
    output.show(output.Table(("a",), [], "Nothing yet"))
    taken = capsys.readouterr()
    assert taken.out == ""
    assert taken.err.splitlines() == [
        "a\\x1b[2J",
        "hivectl: warning: the network's password is short.",
        "Nothing yet",
    ]


def test_json(capsys: pytest.CaptureFixture[str]) -> None:
    output.document(b'{"a":[1]}')
    output.record(b'{\n"a":\n[1]}')
    assert capsys.readouterr().out == '{\n  "a": [\n    1\n  ]\n}\n{"a": [1]}\n'

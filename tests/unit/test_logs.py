"""Events as lines: one each, quoted, in text and JSON, with journald's priorities."""

from __future__ import annotations

import io
import json
import logging
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hived import logs
from hived.errors import HiveError
from hived.logs import Log


@pytest.fixture(autouse=True)
def restored() -> Iterator[None]:
    """The root logger is pytest's again after each test."""
    root, hived = logging.getLogger(), logging.getLogger("hived")
    before = root.handlers[:], root.level, hived.level
    yield
    root.handlers[:], root.level = before[0], before[1]
    hived.setLevel(before[2])


def lines(level: str, form: str) -> io.StringIO:
    stream = io.StringIO()
    logs.setup(level, form, stream)
    return stream


def test_text(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("JOURNAL_STREAM", raising=False)
    out = lines("info", "text")
    Log("hived.some.room").warning("it broke", port=80, why="a b", empty="")
    when, rest = out.getvalue().split(" ", 1)
    assert when.endswith("Z")
    assert rest == 'warning some.room: it broke port=80 why="a b" empty=""\n'


def test_a_peer_is_named_where_its_name_is_known() -> None:
    assert logs.who("12D3KooWx", "gpu") == {"peer": "12D3KooWx", "name": "gpu"}
    assert logs.who("12D3KooWx", "") == {"peer": "12D3KooWx"}


def test_json_holds_the_fields() -> None:
    out = lines("debug", "json")
    Log("hived.room").debug("hello", number=1, other=b"x")
    line = json.loads(out.getvalue().split(">", 1)[-1])
    assert (line["event"], line["level"], line["logger"], line["number"]) == (
        "hello",
        "debug",
        "hived.room",
        1,
    )


@pytest.mark.parametrize(("name", "priority"), [("debug", 7), ("info", 6), ("warning", 4), ("error", 3)])
def test_the_journal_gets_priorities_and_no_time(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str, priority: int
) -> None:
    with (tmp_path / "journal").open("w") as journal:
        file = os.fstat(journal.fileno())
        monkeypatch.setenv("JOURNAL_STREAM", f"{file.st_dev}:{file.st_ino}")
        logs.setup("debug", "text", journal)
        getattr(Log("hived"), name)("event")
    assert (tmp_path / "journal").read_text() == f"<{priority}>{name} hived: event\n"


def test_what_a_shell_sent_elsewhere_is_no_journal(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """JOURNAL_STREAM names one stream, and what it started inherits the variable."""
    monkeypatch.setenv("JOURNAL_STREAM", "8:1")
    with (tmp_path / "log").open("w") as file:
        logs.setup("info", "text", file)
        Log("hived").info("event")
    assert not (tmp_path / "log").read_text().startswith("<")


def test_a_log_file_that_was_moved_away_is_begun_anew(tmp_path: Path) -> None:
    logs.setup("info", "text", file=tmp_path / "log")
    Log("hived").info("first")
    (tmp_path / "log").rename(tmp_path / "log.1")
    Log("hived").info("second")
    assert (tmp_path / "log").read_text().endswith("hived: second\n")
    with pytest.raises(HiveError, match="--log-file"):
        logs.setup("info", "text", file=tmp_path / "none" / "log")


@pytest.mark.parametrize("form", logs.FORMATS)
def test_a_traceback_is_one_line(form: str) -> None:
    out = lines("error", form)
    try:
        raise ValueError("first\nsecond")
    except ValueError:
        Log("hived").exception("a defect")
    assert out.getvalue().count("\n") == 1
    assert "ValueError" in out.getvalue()


def test_levels_filter() -> None:
    out = lines("warning", "text")
    Log("hived").info("not this")
    Log("hived").error("but this")
    assert "not this" not in out.getvalue()
    assert "but this" in out.getvalue()


def test_setup_again_changes_level_and_stream() -> None:
    first, second = lines("error", "text"), lines("debug", "text")
    Log("hived").debug("event")
    assert first.getvalue() == ""
    assert second.getvalue().count("\n") == 1


def test_libraries_stay_silent() -> None:
    """py-libp2p reports ordinary churn as errors."""
    out = lines("debug", "text")
    logging.getLogger("libp2p.network").error("churn")
    assert out.getvalue() == ""


@given(st.text() | st.binary())
def test_a_hostile_value_breaks_no_line(value: str | bytes) -> None:
    """Line breaks and terminal escapes of a peer's text do not reach the log raw."""
    for form in logs.FORMATS:
        record = logging.LogRecord("hived", logging.INFO, "", 0, "event", None, None)
        record.fields = {"value": value}
        line = logs.Formatter(form, journal=False).format(record)
        assert line.isprintable()
        assert len(line.splitlines()) == 1

"""What is different on a terminal: tables by rich, colours, times as ages, a watch in its place."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from tests.unit.hivectl import rows
from tests.unit.hivectl.conftest import Hivectl
from tests.unit.hivectl.server import REMOTE, Answer, Server
from tests.unit.hivectl.terminal import Terminal


def test_a_table_on_a_terminal_is_not_cut(hivectl: Hivectl, hived: Server) -> None:
    name = "n" * 63
    hived.document("GET /v1/nodes", [rows.node(name=name, path="direct")])
    terminal = Terminal(hivectl, "nodes")
    assert terminal.end()[0] == 0
    assert REMOTE in terminal.screen
    assert name in terminal.screen
    assert " ago" in terminal.screen
    assert "\x1b[32mdirect" in terminal.screen


def test_an_error_on_a_terminal_says_how_long_ago(hivectl: Hivectl, hived: Server) -> None:
    when = (datetime.now(UTC) - timedelta(minutes=3, seconds=5)).isoformat()
    hived.document("GET /v1/proxies", [rows.proxy(error="it broke", error_at=when)])
    terminal = Terminal(hivectl, "proxy")
    terminal.end()
    assert "it broke (3 min " in terminal.screen
    assert " ago)" in terminal.screen


def test_no_color(hivectl: Hivectl, hived: Server) -> None:
    hivectl.env["NO_COLOR"] = "1"
    hived.document("GET /v1/nodes", [rows.node(path="direct")])
    terminal = Terminal(hivectl, "nodes")
    terminal.end()
    assert "direct" in terminal.screen
    assert "\x1b[3" not in terminal.screen


def test_a_dumb_terminal_gets_plain_columns(hivectl: Hivectl, hived: Server) -> None:
    hivectl.env["TERM"] = "dumb"
    hived.document("GET /v1/nodes", [rows.node()])
    terminal = Terminal(hivectl, "nodes")
    terminal.end()
    assert "\x1b" not in terminal.screen
    assert "2026-01-02T03:04:05Z" in terminal.screen


def test_markup_and_escapes_in_a_row_are_text(hivectl: Hivectl, hived: Server) -> None:
    hived.document("GET /v1/proxies", [rows.proxy(bind="::", error="[red]bad[/red]\x1b[2J")])
    terminal = Terminal(hivectl, "proxy")
    terminal.end()
    assert "[::]:8084" in terminal.screen
    assert "[red]bad[/red]\\x1b[2J" in terminal.screen


def test_a_watch_stays_in_its_place(hivectl: Hivectl, hived: Server) -> None:
    hived.answer("GET /v1/nodes", Answer(lines=[[rows.node()], [rows.node(name="renamed")]], hold=True))
    terminal = Terminal(hivectl, "nodes", "--watch")
    terminal.until("renamed")
    assert terminal.screen.count("\x1b[H\x1b[2J") == 2
    terminal.press("\x03")
    assert terminal.end()[0] == 130

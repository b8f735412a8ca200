"""What a command prints: tables for people, columns for pipes, JSON for programs.

Data goes to stdout, words about it to stderr. Text from other machines is cleaned of
control characters first, so that a node cannot send escape sequences to a terminal.
"""

from __future__ import annotations

import os
import sys
from datetime import UTC, datetime
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

EXIT_BROKEN_PIPE = 141  # what a shell reports of a program that SIGPIPE ended
CLEAR = "\x1b[H\x1b[2J"

# What deserves a colour in a table on a terminal.
STYLES = {
    "listening": "green",
    "ready": "green",
    "direct": "green",
    "relayed": "yellow",
    "disabled": "dim",
    "none": "dim",
    "error": "red",
}


class Table(NamedTuple):
    """Columns and rows, and what to type next when there are no rows."""

    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    empty: str = ""


def clean(text: str) -> str:
    """The text with control and other unprintable characters written out."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def on_terminal() -> bool:
    """Whether stdout is a terminal that can show more than plain text."""
    return sys.stdout is not None and sys.stdout.isatty() and os.environ.get("TERM", "dumb") != "dumb"


def say(text: str) -> None:
    """A line of the command's own result, on stdout."""
    print(clean(text))


def note(text: str) -> None:
    """A line for the person, on stderr; nothing when there is nothing to say."""
    if text:
        print(clean(text), file=sys.stderr)


def warn(text: str) -> None:
    """A warning, on stderr; nothing when there is none."""
    if text:
        note(f"hivectl: warning: {text.rstrip('.')}.")


def document(raw: bytes) -> None:
    """One JSON document as the API gave it, indented."""
    import msgspec  # not at the top: it is a third of the start of a command that prints none

    print(msgspec.json.format(raw, indent=2).decode())


def value(made: object) -> None:
    """A JSON document that no API call answers as it is."""
    import msgspec

    document(msgspec.json.encode(made))


def count(number: int, noun: str) -> str:
    """``1 other node``, ``2 other nodes``."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def end_with_reader() -> None:
    """End quietly when whoever reads our pipe goes: a watch may have nothing to write for hours."""
    import select
    import stat
    import threading

    try:
        fd = sys.stdout.fileno()
        if not stat.S_ISFIFO(os.fstat(fd).st_mode):
            return
    except (OSError, ValueError):
        return

    def wait() -> None:
        poll = select.poll()
        poll.register(fd, 0)  # errors are told unasked
        if any(events & select.POLLERR for _, events in poll.poll()):
            os._exit(EXIT_BROKEN_PIPE)

    threading.Thread(target=wait, daemon=True).start()


def record(raw: bytes) -> None:
    """One JSON document on one line, at once."""
    import msgspec

    print(msgspec.json.format(raw, indent=0).decode(), flush=True)


def show(table: Table) -> None:
    """A table on stdout; without rows nothing there, and the hint on stderr."""
    if not table.rows:
        note(table.empty)
    elif on_terminal():
        _rich_table(table)
    else:
        for line in columns([table.columns, *table.rows]):
            print(line)


def pairs(items: Iterable[tuple[str, str | Sequence[str]]]) -> None:
    """Names and values, one a line; a value of several goes on below itself."""
    rows = []
    for name, value in items:
        values = [value] if isinstance(value, str) else value
        rows += [(name if at == 0 else "", text) for at, text in enumerate(values)]
    for line in columns(rows):
        print(line)


def columns(rows: Sequence[Sequence[str]]) -> list[str]:
    """Rows as aligned lines with two spaces between columns; nothing is cut."""
    cells = [[clean(cell) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = ("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in cells)
    return [line.rstrip() for line in lines]


def frame(draw: Callable[[], None], first: bool) -> None:
    """One state of something watched: in the place of the one before on a terminal, below it elsewhere."""
    if on_terminal():
        print(CLEAR, end="")
    elif not first:
        print()
    draw()
    sys.stdout.flush()


def size(count: int) -> str:
    """Bytes in binary units with three digits, without a space: it stands in columns."""
    if count < 1024:
        return f"{count}B"
    value = float(count)
    for unit in ("KiB", "MiB", "GiB", "TiB"):
        value /= 1024
        if value < 1023.5 or unit == "TiB":
            break
    # Compared with what would be rounded up to one more digit.
    decimals = 2 if value < 9.995 else 1 if value < 99.95 else 0
    return f"{value:.{decimals}f}{unit}"


def duration(seconds: float) -> str:
    """Seconds as the two largest units."""
    rest = max(0, int(seconds))
    parts: list[str] = []
    for unit, length in (("d", 86400), ("h", 3600), ("min", 60), ("s", 1)):
        count, rest = divmod(rest, length)
        if count or (unit == "s" and not parts):
            parts.append(f"{count} {unit}")
    return " ".join(parts[:2])


def when(time: str | None, now: datetime | None = None) -> str:
    """An RFC 3339 time: how long ago on a terminal, as it is in a pipe, ``never`` when there is none."""
    if not time:
        return "never"
    if not on_terminal():
        return time
    return ago(time, now or datetime.now(UTC))


def ago(time: str, now: datetime) -> str:
    """How long before ``now`` an RFC 3339 time was; the time itself when it is none or yet to come."""
    try:
        passed = (now - datetime.fromisoformat(time)).total_seconds()
    except (ValueError, TypeError):
        return time
    if passed < 0:
        return time
    return f"{duration(passed)} ago"


def _rich_table(table: Table) -> None:
    from rich.console import Console
    from rich.table import Table as RichTable
    from rich.text import Text

    rich = RichTable(box=None, pad_edge=False, header_style="bold", show_edge=False)
    for name in table.columns:
        rich.add_column(name, no_wrap=True)
    for row in table.rows:
        cells = [clean(cell) for cell in row]
        rich.add_row(*(Text(cell, style=STYLES.get(cell, "")) for cell in cells))
    console = Console(highlight=False, markup=False)
    # A cut peer ID is of no use: a line too long for the terminal is wrapped by it.
    needed = console.measure(rich, options=console.options.update(max_width=10_000)).maximum
    console.width = max(console.width, needed)
    console.print(rich, soft_wrap=True)

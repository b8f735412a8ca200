"""Questions to the person at the terminal; they go to stderr, answers are not echoed where secret."""

from __future__ import annotations

import sys

from hived.errors import HiveError, failed, usage


def interactive() -> bool:
    """Whether somebody is there to answer."""
    return _is_terminal(sys.stdin) and _is_terminal(sys.stderr)


def ask(question: str, default: str) -> str:
    """A line from the terminal; ``default`` when it is empty."""
    print(f"{question} [{default}]: ", end="", file=sys.stderr, flush=True)
    return _line().strip() or default


def confirm(question: str) -> bool:
    """Yes or no; anything but yes is no."""
    print(f"{question} [y/N]: ", end="", file=sys.stderr, flush=True)
    return _line().strip().lower() in ("y", "yes")


def password(question: str) -> str:
    """A password, typed without echo. Raises HiveError when it is empty."""
    import getpass

    try:
        text = getpass.getpass(f"{question}: ", stream=None)
    except EOFError as error:
        raise _closed() from error
    if not text:
        raise usage("reading the password failed", "it is empty")
    return text


def new_password(question: str) -> str:
    """A new password, typed twice."""
    text = password(question)
    if password("The same again") != text:
        raise usage("reading the password failed", "the two differ", "Run the command again")
    return text


def _line() -> str:
    line = sys.stdin.readline()
    if not line:
        raise _closed()
    return line


def _closed() -> HiveError:
    return failed("reading the answer failed", "the terminal was closed")


def _is_terminal(stream: object) -> bool:
    try:
        return bool(stream.isatty())  # type: ignore[attr-defined]  # whatever stands for a stream
    except (AttributeError, ValueError):  # closed, or not there at all
        return False

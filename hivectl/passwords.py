"""Where a password or a backup's passphrase comes from: an option, stdin, a file, or the terminal."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import click

from hivectl.parameters import FILE
from hivectl.usage import wrong
from hived.errors import HiveError, usage

if TYPE_CHECKING:
    from collections.abc import Callable

F = TypeVar("F", bound="Callable[..., object]")

MAX_LENGTH = 1024  # schema.Password's


def stdin_option(function: F) -> F:
    """Add ``--password-stdin`` to a command."""
    return click.option("--password-stdin", is_flag=True, help="Read the password from standard input.")(
        function
    )


def options(function: F) -> F:
    """Add ``--password-stdin``, ``--password-file`` and ``--password`` to a command."""
    plain = click.option(
        "--password", metavar="P", help="The password itself; others may see it while the command runs."
    )
    file = click.option(
        "--password-file", metavar="FILE", type=FILE, help="Read the password from the first line of a file."
    )
    return stdin_option(file(plain(function)))


def passphrase_options(function: F) -> F:
    """Add ``--passphrase-stdin`` and ``--passphrase-file`` to a command."""
    file = click.option(
        "--passphrase-file", metavar="F", type=FILE, help="Read the passphrase from the first line of a file."
    )
    stdin = click.option("--passphrase-stdin", is_flag=True, help="Read the passphrase from standard input.")
    return stdin(file(function))


def passphrase(passphrase_stdin: bool, passphrase_file: str | None) -> str | None:
    """The passphrase that the options name; None when they name none. Raises HiveError."""
    if passphrase_stdin and passphrase_file is not None:
        raise wrong("--passphrase-stdin and --passphrase-file exclude each other", "Give one of them")
    if passphrase_stdin:
        return from_stdin("passphrase")
    return None if passphrase_file is None else _from_file(passphrase_file, "passphrase")


def given(password: str | None, password_stdin: bool, password_file: str | None) -> str | None:
    """The password that the options name; None when they name none.

    Raises HiveError when they name more than one, and when it is empty or unreadable.
    """
    named = {
        "--password": password is not None,
        "--password-stdin": password_stdin,
        "--password-file": password_file is not None,
    }
    typed = [name for name, is_typed in named.items() if is_typed]
    if len(typed) > 1:
        raise wrong(f"{' and '.join(typed)} exclude each other", "Give one of them")
    if password_stdin:
        return from_stdin()
    if password_file is not None:
        return _from_file(password_file)
    return None if password is None else _checked(password, "--password")


def from_stdin(what: str = "password") -> str:
    """The first line of standard input."""
    try:
        line = sys.stdin.readline() if sys.stdin else ""
    except (OSError, UnicodeDecodeError) as error:
        raise _unreadable("standard input", error, what) from error
    return _checked(line.rstrip("\r\n"), "standard input", what)


def _from_file(name: str, what: str = "password") -> str:
    try:
        with Path(name).open() as file:
            line = file.readline()
    except (OSError, UnicodeDecodeError) as error:
        raise _unreadable(name, error, what) from error
    return _checked(line.rstrip("\r\n"), name, what)


def _unreadable(name: str, error: Exception, what: str) -> HiveError:
    reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
    return usage(f"reading the {what} failed", f"{name}: {reason}")


def _checked(text: str, whence: str, what: str = "password") -> str:
    if not text:
        raise usage(f"reading the {what} failed", f"{whence} is empty")
    if len(text) > MAX_LENGTH:
        raise usage(f"reading the {what} failed", f"it is longer than {MAX_LENGTH} characters")
    return text

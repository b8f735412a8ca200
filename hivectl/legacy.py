"""The first spellings of the command line, rewritten into the conventional ones.

Pure: words in, words out. :data:`SPELLINGS` is the whole of it, one row a spelling,
and the first row that fits decides. Options that a row does not name pass through to
the conventional command, which judges them.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from hived.errors import HiveError, usage

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

ANY = ""

# Options whose next word is their value. It is never rewritten, whatever it looks like.
NEW_VALUES = frozenset(
    (
        "node",
        "socket",
        "network",
        "user",
        "password",
        "password-file",
        "passphrase-file",
        "bind",
        "to",
        "grace",
        "count",
        "c",
        "interval",
        "i",
    )
)
OLD_VALUES = frozenset(("b64", "direction", "target", "origin", "port", "tls", "key-prefix", "kind"))
VALUES = NEW_VALUES | OLD_VALUES
FLAGS = frozenset(
    (
        "json",
        "base64",
        "ls",
        "watch",
        "yes",
        "rm",
        "password-stdin",
        "passphrase-stdin",
        "force",
        "replace",
        "join",
        "now",
        "cancel",
        "help",
        "version",
    )
)
GLOBAL = frozenset(("node", "socket", "json"))


@dataclass(frozen=True)
class Spelling:
    """One old spelling.

    ``command`` is how it starts. ``options`` are those it must have, and the value that
    each must have (ANY: whatever it is); ``drops`` may stand there with this value and
    say nothing. ``becomes`` is the conventional form, where ``{name}`` stands for an
    option's value. Where this version has no such thing, ``refuse`` says so instead:
    why, and what to do.
    """

    command: str
    options: Mapping[str, str] = field(default_factory=dict)
    becomes: str = ""
    drops: Mapping[str, str] = field(default_factory=dict)
    refuse: tuple[str, str] | None = None


NO_TLS = ("this version has no TLS proxies yet", "Leave --tls and --key-prefix out")
NO_SSH = ("this version has no SSH proxies yet", "Type: hivectl proxy add --help")
TCP = {"kind": "tcp"}

SPELLINGS = (
    Spelling("nodes", {"ls": ANY}, "nodes ls"),
    Spelling("register", {"b64": ANY}, "register {b64}"),
    Spelling("proxy", {"tls": ANY}, refuse=NO_TLS),
    Spelling("proxy", {"key-prefix": ANY}, refuse=NO_TLS),
    Spelling("proxy", {"kind": "ssh"}, refuse=NO_SSH),
    Spelling("proxy add ssh", refuse=NO_SSH),
    Spelling(
        "proxy",
        {"direction": "egress", "target": ANY, "port": ANY},
        "proxy add egress {port} {target}",
        TCP,
    ),
    Spelling(
        "proxy",
        {"direction": "ingress", "origin": ANY, "port": ANY},
        "proxy add ingress {origin} {port}",
        TCP,
    ),
)

# An option that only a row's old form has: with it, and no row that fits, the old spelling is not whole.
MARKERS = {"proxy": "direction"}


@dataclass(frozen=True)
class _Part:
    """A word that is no option, or an option with its value."""

    words: tuple[str, ...]
    name: str = ""
    value: str | None = None


def rewrite(words: Sequence[str]) -> list[str]:
    """The conventional form of a command line; one that is conventional already stays as it is.

    Raises HiveError (wrong usage) for an old spelling of what this version does not
    have, and for one that is not whole.
    """
    parts = list(_read(words))
    start = next((at for at, part in enumerate(parts) if part.name not in GLOBAL), len(parts))
    before, line = parts[:start], parts[start:]
    command = " ".join(part.words[0] for part in line if not part.name)
    options = {part.name: part.value for part in line if part.name}
    for row in SPELLINGS:
        if _fits(row, command, options):
            if row.refuse:
                raise usage(f"{row.command} failed", *row.refuse)
            return _flat([*before, *_become(row, line)])
    first = command.partition(" ")[0]
    if MARKERS.get(first, "-") in options:
        raise _incomplete(first)
    return _flat(parts)


def _read(words: Sequence[str]) -> Iterator[_Part]:
    """The words as parts, with the known options in their two-dash form."""
    at = 0
    while at < len(words):
        word = words[at]
        at += 1
        if word == "--":
            yield from (_Part((rest,)) for rest in ("--", *words[at:]))
            return
        name, equals, value = word.lstrip("-").partition("=")
        dashes = len(word) - len(word.lstrip("-"))
        if dashes not in (1, 2) or name not in VALUES | FLAGS:
            yield _Part((word,))
            continue
        # One letter has one dash.
        written = f"--{name}" if len(name) > 1 else f"-{name}"
        if equals:
            yield _Part((f"{written}={value}",), name, value)
        elif name in FLAGS:
            yield _Part((written,), name, ANY)
        elif at == len(words):
            yield _Part((written,), name)
        else:
            yield _Part((written, words[at]), name, words[at])
            at += 1


def _fits(row: Spelling, command: str, options: Mapping[str, str | None]) -> bool:
    if not f"{command} ".startswith(f"{row.command} "):
        return False
    return all(
        options.get(name) is not None and want in (ANY, options[name]) for name, want in row.options.items()
    )


def _become(row: Spelling, line: Sequence[_Part]) -> list[_Part]:
    """The row's conventional words, and then what the row does not name."""
    values: dict[str, str] = {}
    rest: list[_Part] = []
    command = row.command.split()
    for part in line:
        if command and part.words == (command[0],):
            command.pop(0)
        elif part.name in row.options:
            if part.name in values:
                raise usage(f"{row.command} failed", f"--{part.name} is given twice")
            values[part.name] = part.value or ANY
        elif part.name not in row.drops or part.value != row.drops[part.name]:
            rest.append(part)
    for name, value in values.items():
        # As a word of its own, such a value would be read as an option.
        if value.startswith("-"):
            raise usage(
                f"{row.command} failed", f"--{name} has no value", f"Type: hivectl {row.command} --help"
            )
    words = [word.format_map(values) for word in row.becomes.split()]
    return [_Part((word,)) for word in words] + rest


def _flat(parts: Sequence[_Part]) -> list[str]:
    return [word for part in parts for word in part.words]


def _incomplete(command: str) -> HiveError:
    """What the old spellings of this command need, from their rows."""
    forms = [
        " ".join(f"--{name} {value or name.upper()}" for name, value in row.options.items())
        for row in SPELLINGS
        if row.becomes and row.command == command
    ]
    return usage(
        f"{command} failed",
        f"its old spelling is {' or '.join(forms)}",
        f"The new one is easier: hivectl {command} --help",
    )

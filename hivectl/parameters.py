"""The kinds of argument: ports, PEER:PORT, nodes and names."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import click

from hivectl.options import Settings
from hived.schema import check_name

if TYPE_CHECKING:
    from collections.abc import Callable

    from click.shell_completion import CompletionItem

T = TypeVar("T")

NAME_RULE = "1 to 63 of a-z A-Z 0-9 . _ -, starting with a letter or digit"
NODE_LENGTH = 128
_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


class Target(NamedTuple):
    """A port of a node: ``peer`` as the user spells it."""

    peer: str
    port: int


def parse_port(text: str) -> int:
    """A TCP port, 1 to 65535, in ASCII digits. Raises ValueError with the reason."""
    if not (text.isascii() and text.isdigit()):
        raise ValueError(f"{text!r} is not a port: a number from 1 to 65535 is needed")
    # Compared as text first: Python refuses to convert numbers of thousands of digits.
    if len(text.lstrip("0")) > 5 or not 1 <= int(text) <= 65535:
        raise ValueError(f"port {text if len(text) <= 20 else text[:20] + '...'} is out of range: 1 to 65535")
    return int(text)


def parse_node(text: str) -> str:
    """A NODE: its peer ID, a part of it, an alias or a name. Raises ValueError with the reason."""
    if not text:
        raise ValueError("the node's name is empty")
    if ":" in text:
        raise ValueError(f"{text!r} is not a node: name it by its peer ID, alias or name, not by an address")
    if len(text) > NODE_LENGTH or not text.isprintable() or any(letter.isspace() for letter in text):
        raise ValueError(
            f"{text[:NODE_LENGTH]!r} is not a node: a peer ID, a part of one, an alias or a name is needed"
        )
    return text


def parse_target(text: str) -> Target:
    """PEER:PORT. Names hold dots and dashes but never colons. Raises ValueError with the reason."""
    peer, colon, port = text.rpartition(":")
    if not colon:
        raise ValueError(f"{text!r} has no port: write NODE:PORT, such as {text or 'NODE'}:8080")
    return Target(parse_node(peer), parse_port(port))


def parse_name(text: str) -> str:
    """A network's, node's or user's name. Raises ValueError with the reason."""
    if not check_name(text):
        raise ValueError(f"{text[:NODE_LENGTH]!r} is not a name: a name is {NAME_RULE}")
    return text


def parse_id(text: str) -> int:
    """The number of a row, as the lists show it. Raises ValueError with the reason."""
    if not (text.isascii() and text.isdigit() and len(text) <= 18):
        raise ValueError(f"{text[:NODE_LENGTH]!r} is not an ID: a number from the list is needed")
    return int(text)


def parse_duration(text: str) -> float:
    """A time such as 90s, 30m, 12h or 7d, in seconds. Raises ValueError with the reason."""
    number, unit = text[:-1], text[-1:]
    if unit not in _UNITS or not (number.isascii() and number.isdigit() and len(number) <= 9):
        raise ValueError(f"{text[:NODE_LENGTH]!r} is not a time: write for example 30m, 12h or 7d")
    return float(int(number) * _UNITS[unit])


class Parsed(click.ParamType[T]):
    """A click type made of a function that raises ValueError with the reason.

    ``offer`` is the function of hivectl.offers that knows what a shell may complete it to.
    """

    def __init__(self, name: str, parse: Callable[[str], T], offer: str = "") -> None:
        self.name = name
        self._parse = parse
        self._offer = offer

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> T:
        """Parse a value of the command line."""
        try:
            return self._parse(str(value))
        except ValueError as error:
            self.fail(str(error), param, ctx)

    def shell_complete(
        self, ctx: click.Context, param: click.Parameter, incomplete: str
    ) -> list[CompletionItem]:
        """What the node of this command line knows, and begins like it."""
        if not self._offer:
            return []
        from hivectl import offers

        return offers.found(getattr(offers, self._offer), ctx.ensure_object(Settings), incomplete)


# For its completion; what is wrong with a file is said by whoever opens it.
FILE = click.Path(readable=False)
PORT = Parsed("port", parse_port)
TARGET = Parsed("node:port", parse_target)
NODE = Parsed("node", parse_node, "nodes")
NAME = Parsed("name", parse_name)
NETWORK = Parsed("name", parse_name, "networks")
USER = Parsed("name", parse_name, "users")
PROXY = Parsed("id", parse_id, "proxies")
SESSION = Parsed("id", parse_id, "sessions")
DURATION = Parsed("TIME", parse_duration)

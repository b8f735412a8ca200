"""What the shell offers for an argument, out of what the node knows when Tab is pressed.

Nothing is asked of the person, nothing is said, and it does not take long: where the node does not answer,
or does not answer this user, there is nothing to offer.
"""

from __future__ import annotations

import io
import os
import signal
from contextlib import contextmanager, redirect_stderr
from typing import TYPE_CHECKING, NamedTuple

from click.shell_completion import CompletionItem

from hivectl import output
from hived.schema import AdminRow, NetworkRow, Node, Proxy, SessionRow, check_name

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from hivectl.options import Settings
    from hivectl.session import Session

SECONDS = 2.0
# systemd has this link while the unit runs.
_INVOCATION = "/run/systemd/units/invocation:hived.service"


class Offer(NamedTuple):
    """A word, and what it is, which zsh shows beside it."""

    word: str
    is_what: str


def nodes(session: Session) -> Iterator[Offer]:
    """The nodes but this one, by alias or name; by peer ID where neither means that node."""
    rows = session.call("GET", "/v1/nodes", list[Node]).value
    aliases = {row.alias for row in rows}
    for row in rows:
        if row.path != "self":
            # An alias goes before another node's name.
            name = row.name if row.name not in aliases else ""
            state = "blocked" if row.blocked else {"none": "not connected"}.get(row.path, row.path)
            yield Offer(row.alias or name or row.peer_id, f"{row.network}, {state}".lstrip(", "))


def networks(session: Session) -> Iterator[Offer]:
    """The networks that the node is in."""
    for row in session.call("GET", "/v1/networks", list[NetworkRow]).value:
        yield Offer(row.name, output.count(row.members, "other node"))


def proxies(session: Session) -> Iterator[Offer]:
    """The proxies, by ID."""
    for row in session.call("GET", "/v1/proxies", list[Proxy]).value:
        ends = (f"port {row.port}", f"{row.peer_name or row.peer_id}:{row.peer_port}")
        yield Offer(str(row.id), " to ".join(ends if row.direction == "egress" else reversed(ends)))


def sessions(session: Session) -> Iterator[Offer]:
    """The sessions, by ID."""
    for row in session.call("GET", "/v1/sessions", list[SessionRow]).value:
        yield Offer(str(row.id), f"{row.user}, {row.bound_to}")


def users(session: Session) -> Iterator[Offer]:
    """The admin users."""
    for row in session.call("GET", "/v1/admins", list[AdminRow]).value:
        yield Offer(row.user, "admin")


def found(ask: Callable[[Session], Iterator[Offer]], settings: Settings, start: str) -> list[CompletionItem]:
    """The offers that begin with what is typed already, each once."""
    from hivectl.client import socket_path
    from hivectl.session import Session

    if "" in (settings.node, settings.socket):
        return []  # a script's unset variable: it is no node
    try:
        # What is said, were it only a hint, would stand in the line that is typed.
        with _within(SECONDS), redirect_stderr(io.StringIO()):
            path = socket_path(settings.socket)
            offers = [] if _is_asleep(path) else [*ask(Session(path, settings.node, looks=True))]
    except Exception:
        return []  # whatever is wrong is said when the line is run
    # What a hostile hived sends must not get into a command line.
    fit = {offer.word: offer for offer in offers if offer.word.startswith(start) and _is_word(offer.word)}
    return [CompletionItem(offer.word, help=output.clean(offer.is_what)) for offer in fit.values()]


def _is_word(text: str) -> bool:
    """Whether it is a name, a number or an ID, as hived makes them: ``~`` tells nodes of one name apart."""
    return check_name(text.replace("~", "", 1))


def _is_asleep(path: str) -> bool:
    """Whether systemd would start hived at a connection: a command may have that done, a key may not."""
    from hivectl.client import SYSTEM_SOCKET, SYSTEM_UNIT

    return path == SYSTEM_SOCKET and os.path.exists(SYSTEM_UNIT) and not os.path.lexists(_INVOCATION)


@contextmanager
def _within(seconds: float) -> Iterator[None]:
    """Raises TimeoutError when the block takes longer."""

    def late(*_: object) -> None:
        raise TimeoutError

    before = signal.signal(signal.SIGALRM, late)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)

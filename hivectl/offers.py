"""What the shell offers for an argument, out of what the node knows when Tab is pressed.

Nothing is asked of the person, nothing is said, and it does not take long: where the node does not answer,
or does not answer this user, there is nothing to offer.
"""

from __future__ import annotations

import io
import signal
from contextlib import contextmanager, redirect_stderr
from typing import TYPE_CHECKING, NamedTuple

from click.shell_completion import CompletionItem

from hivectl import output
from hivectl.options import Settings
from hived.errors import HiveError
from hived.schema import AdminRow, NetworkRow, Node, Proxy, SessionRow, check_name

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from hivectl.session import Session

SECONDS = 2.0


class Offer(NamedTuple):
    """A word, and what it is, which zsh shows beside it."""

    word: str
    is_what: str


def nodes(session: Session) -> Iterator[Offer]:
    """The nodes but this one, by name where they have one."""
    for row in session.call("GET", "/v1/nodes", list[Node]).value:
        if row.path != "self":
            state = "blocked" if row.blocked else {"none": "not connected"}.get(row.path, row.path)
            yield Offer(row.name or row.peer_id, f"{row.network}, {state}".lstrip(", "))


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


def found(
    ask: Callable[[Session], Iterator[Offer]], settings: Settings | None, start: str
) -> list[CompletionItem]:
    """The offers that begin with what is typed already, each once."""
    try:
        # Without a terminal to speak to, nobody is asked for a password.
        with _within(SECONDS), redirect_stderr(io.StringIO()):
            offers = [*ask((settings or Settings()).session())]
    except (HiveError, OSError):
        return []
    # What a hostile hived sends must not get into a command line.
    fit = {offer.word: offer for offer in offers if offer.word.startswith(start) and check_name(offer.word)}
    return [CompletionItem(offer.word, help=output.clean(offer.is_what)) for offer in fit.values()]


@contextmanager
def _within(seconds: float) -> Iterator[None]:
    """Raises TimeoutError, an OSError, when the block takes longer."""

    def late(*_: object) -> None:
        raise TimeoutError

    before = signal.signal(signal.SIGALRM, late)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)

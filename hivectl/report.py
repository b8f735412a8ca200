"""How a command asks the API and prints what it answers."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, TypeVar
from urllib.parse import urlencode

from hivectl import output
from hived.schema import Done

if TYPE_CHECKING:
    from collections.abc import Callable

    from hivectl.options import Settings
    from hivectl.session import Reply
    from hived.schema import Request

T = TypeVar("T")


def reply(settings: Settings, answer: Reply[T], human: Callable[[T], None]) -> None:
    """Print an answer: as it came with --json, else as ``human`` does."""
    if settings.json:
        output.document(answer.raw)
    else:
        human(answer.value)


def fetch(
    settings: Settings,
    path: str,
    answer: type[T],
    human: Callable[[T], None],
    *,
    watch: bool = False,
    query: dict[str, str] | None = None,
) -> None:
    """GET and print; with ``watch`` print each state as it comes, until interrupted."""
    session = settings.session()
    query = {**(query or {}), **({"watch": "true"} if watch else {})}
    url = f"{path}?{urlencode(query)}" if query else path
    if not watch:
        reply(settings, session.call("GET", url, answer), human)
        return
    output.end_with_reader()
    for at, state in enumerate(session.stream("GET", url, answer)):
        if settings.json:
            output.record(state.raw)
        else:
            output.frame(partial(human, state.value), first=at == 0)


def change(settings: Settings, method: str, path: str, said: str, body: Request | None = None) -> None:
    """Ask for a change that answers Done, and say that it is done."""

    def human(done: Done) -> None:
        output.say(said)
        output.note(done.note)

    reply(settings, settings.session().call(method, path, Done, body), human)

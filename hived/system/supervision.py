"""What a service manager hears of a running node: its status line, and that it lives."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping

import trio

from ..logs import Log
from .notify import Notifier

log = Log("hived.system.supervision")

# Between two status lines, however fast things change.
STATUS_SECONDS = 1.0
# Of the watchdog's time: one ping may be late, and there is still one before the end.
PING_SHARE = 1 / 3


async def tell_status(
    notifier: Notifier, text: Callable[[], str], changed: Callable[[], Awaitable[None]]
) -> None:
    """Keep the status line what ``text`` says, after each change. Until cancelled."""
    if not notifier.listened_to:
        return
    told = ""
    while True:
        if (line := text()) != told:
            notifier.status(line)
            told = line
        await changed()
        await trio.sleep(STATUS_SECONDS)


async def ping_watchdog(notifier: Notifier, parts: Mapping[str, Callable[[], Awaitable[None]]]) -> None:
    """Ping while every part of hived answers: each is asked in turn, and waited for. Until cancelled.

    A part that hangs is named in the log, then the service manager ends hived and starts it anew.
    """
    if notifier.watchdog is None:
        return
    pause = notifier.watchdog * PING_SHARE
    while True:
        for name, answer in parts.items():
            await _answered(name, answer, pause)
        notifier.alive()
        await trio.sleep(pause)


async def _answered(name: str, answer: Callable[[], Awaitable[None]], patience: float) -> None:
    async def complain() -> None:
        await trio.sleep(patience)
        log.error("a part of hived does not answer", part=name, seconds=round(patience))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(complain)
        await answer()
        nursery.cancel_scope.cancel()

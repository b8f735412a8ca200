"""What systemd says of the unit that hived runs in: org.freedesktop.systemd1(5) over D-Bus."""

from __future__ import annotations

import os
import time
from typing import Any

import trio

from ..logs import Log
from ..schema import UnitState

log = Log("hived.system.dbusunit")

ANSWER_SECONDS = 2.0
# Whoever watches a busy node's status does not have systemd asked more often than this.
FRESH_SECONDS = 1.0
_SYSTEMD = "org.freedesktop.systemd1"
_PATH = "/org/freedesktop/systemd1"
_PROPERTIES = "org.freedesktop.DBus.Properties"


def under_systemd() -> bool:
    """Whether systemd has started this very process (systemd.exec(5): SYSTEMD_EXEC_PID)."""
    return os.environ.get("SYSTEMD_EXEC_PID") == str(os.getpid())


class Unit:
    """The unit of this process. :meth:`state` asks anew, in a thread: dbus-next is made for asyncio alone."""

    def __init__(self) -> None:
        self._state: UnitState | None = None
        self._asked = float("-inf")
        self._said = ""
        self._asking = trio.Lock()
        # Threads that hang with the bus are one at most, and none of those that others need.
        self._thread = trio.CapacityLimiter(1)

    async def state(self) -> UnitState | None:
        """None where systemd did not start hived, or does not answer."""
        if not under_systemd():
            return None
        async with self._asking:
            if self._thread.available_tokens and time.monotonic() - self._asked > FRESH_SECONDS:
                self._state = await self._ask()
                self._asked = time.monotonic()
        return self._state

    async def _ask(self) -> UnitState | None:
        try:
            with trio.fail_after(ANSWER_SECONDS + 0.5):
                return await trio.to_thread.run_sync(_ask, abandon_on_cancel=True, limiter=self._thread)
        except Exception as error:  # dbus-next raises what its parser, asyncio and sockets raise
            self._complain(str(error) or type(error).__name__)
        return None

    def _complain(self, why: str) -> None:
        if why != self._said:
            self._said = why
            log.info("systemd was not asked about this unit", why=why)


def _ask() -> UnitState:
    # As below: what only a node under systemd needs is imported there.
    import asyncio

    return asyncio.run(asyncio.wait_for(_query(), ANSWER_SECONDS))


async def _query() -> UnitState:
    from dbus_next.aio.message_bus import MessageBus
    from dbus_next.constants import BusType, MessageType
    from dbus_next.message import Message

    # systemd.exec(5): MANAGERPID is set by user managers.
    kind = BusType.SESSION if "MANAGERPID" in os.environ else BusType.SYSTEM
    bus = await MessageBus(bus_type=kind).connect()

    async def call(path: str, interface: str, member: str, signature: str, *body: object) -> Any:
        reply = await bus.call(
            Message(_SYSTEMD, path, interface, member, signature=signature, body=list(body))
        )
        if reply is None or reply.message_type is MessageType.ERROR:
            raise OSError(str(reply.body[0]) if reply and reply.body else "no answer")
        return reply.body[0]

    async def properties(path: str, interface: str) -> Any:
        return await call(path, _PROPERTIES, "GetAll", "s", f"{_SYSTEMD}.{interface}")

    try:
        path = await call(_PATH, f"{_SYSTEMD}.Manager", "GetUnitByPID", "u", os.getpid())
        unit = await properties(path, "Unit")
        service = await properties(path, "Service")
        failed = []
        for name in unit["TriggeredBy"].value:
            trigger = await call(_PATH, f"{_SYSTEMD}.Manager", "LoadUnit", "s", name)
            if (await properties(trigger, "Unit"))["ActiveState"].value == "failed":
                failed.append(name)
    finally:
        bus.disconnect()  # type: ignore[no-untyped-call]
    return UnitState(
        name=unit["Id"].value,
        state=f"{unit['ActiveState'].value} ({unit['SubState'].value})",
        enabled=unit["UnitFileState"].value,
        restarts=service["NRestarts"].value,
        watchdog=service["WatchdogUSec"].value / 1e6,
        failed_sockets=sorted(failed),
    )

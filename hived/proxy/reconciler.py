"""Makes what runs equal to what the store says: at start, after every change, and when a listener dies."""

from __future__ import annotations

import contextlib
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

import trio

from ..errors import HiveError, Kind, conflict, failed, not_found
from ..logs import Log
from ..store.proxies import Proxies, ProxyRow
from ..transport.listeners import Kept, NothingKept
from . import egress
from .counters import Counters, Trouble
from .egress import EgressProxy, Overlay, Route
from .ingress import Ingress, IngressProxy, Origin
from .listeners import Listeners

log = Log("hived.proxy")

RETRY_SECONDS = 3.0


@dataclass(eq=False)
class Running:
    """A proxy of the store as it runs: its state as the API tells it, and how to stop it."""

    row: ProxyRow
    counters: Counters
    state: str = "disabled"
    error: str | None = None
    error_at: float = 0.0
    egress: EgressProxy | None = None
    ingress: IngressProxy | None = None
    scope: trio.CancelScope | None = None
    ended: trio.Event | None = None

    @property
    def trouble(self) -> Trouble | None:
        """What is wrong with it now; None for nothing."""
        return Trouble(self.error, self.error_at) if self.error else self.counters.trouble

    def fail(self, why: str) -> None:
        """It does not run. What is so again, at another try, is so since it first was."""
        if self.error != why:
            self.error_at = time.time()
        self.state, self.error = "error", why


class Reconciler:
    """Runs the proxies. ``on_change`` is called whenever a state changes."""

    def __init__(
        self,
        store: Proxies,
        ingress: Ingress,
        overlay: Overlay,
        on_change: Callable[[], None],
        kept: Kept | None = None,
    ) -> None:
        self.running: dict[int, Running] = {}
        self._store = store
        self._ingress = ingress
        self.overlay = overlay
        self._listeners = Listeners(kept or NothingKept())
        self._on_change = on_change
        self._lock = trio.Lock()
        self._wake = trio.Event()
        self._nursery: trio.Nursery | None = None
        self._stopping = False
        self._unused = trio.CancelScope()

    async def run(self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Start everything, then retry what failed, until cancelled. Started when listeners are bound."""
        async with trio.open_nursery() as self._nursery:
            await self.reconcile()
            self._nursery.start_soon(self._turn_away)
            task_status.started()
            while True:
                self._wake = trio.Event()
                broken = any(item.state == "error" for item in self.running.values())
                with trio.move_on_after(RETRY_SECONDS if broken else float("inf")):
                    await self._wake.wait()
                try:
                    await self.reconcile()
                except HiveError as error:
                    log.error("the proxies could not be compared with the store", why=error.line())

    async def _turn_away(self) -> None:
        with self._unused:
            await self._listeners.turn_away()

    async def reconcile(self, bound: dict[int, list[socket.socket]] | None = None) -> None:
        """Compare with the store and act. ``bound`` are listeners made ahead for new rows, by ID."""
        async with self._lock:
            wanted = {row.id: row for row in await self._store.all()}
            for proxy_id, item in list(self.running.items()):
                if wanted.get(proxy_id) != item.row:
                    await self._stop(item)
                    if proxy_id not in wanted:
                        del self.running[proxy_id]
            for proxy_id, row in wanted.items():
                item = self.running.setdefault(
                    proxy_id, Running(row, Counters(self.overlay.plane, on_change=self._on_change))
                )
                if item.row != row:
                    item.row = row
                if row.enabled and item.scope is None and not self._stopping:
                    self._start(item, (bound or {}).get(proxy_id))
                elif not row.enabled:
                    item.state, item.error = "disabled", None
        self._on_change()

    async def drain(self, seconds: float) -> int:
        """Stop accepting; live connections have ``seconds`` to end by themselves. How many have not."""
        self._stopping = True
        # Who comes from now on may wait for the hived that is started next.
        self._unused.cancel()
        self._ingress.accepting = False
        for item in self.running.values():
            if item.egress:
                item.egress.drain()
        with trio.move_on_after(seconds):
            for item in self.running.values():
                await item.counters.idle()
        return sum(item.counters.connections for item in self.running.values())

    # Changes, for the API

    async def add(self, row: ProxyRow) -> Running:
        """Add a proxy: the listener is bound first, so that a taken port leaves nothing behind."""
        for item in self.running.values():
            if _same(item.row, row):
                twin = (item.row.peer_id, item.row.peer_port) == (row.peer_id, row.peer_port)
                why = "does the same already" if twin else f"listens on port {row.port} already"
                raise conflict(
                    "adding the proxy failed",
                    f"proxy {item.row.id} {why}",
                    f"See hivectl proxy show {item.row.id}",
                )
        sockets = self.bind(row.bind, row.port) if row.direction == "egress" else []
        try:
            kept = await self._store.add(row)
        except BaseException:
            _close(sockets)
            raise
        await self.reconcile({kept.id: sockets})
        return self.get(kept.id)

    def bind(self, host: str | None, port: int) -> list[socket.socket]:
        """Listeners that nobody else has; a conflict names the proxy of this node that holds the port."""
        holder = next((i.row.id for i in self.running.values() if i.egress and i.row.port == port), None)
        try:
            # What was given is there also while a proxy of ours listens on it.
            given = self._listeners.given(host, port) if holder is None else []
            return given or egress.bind(host, port)
        except HiveError as error:
            if holder is None and error.kind is Kind.FAILED and self._listeners.is_given(port):
                why = f"port {port} is open for hived on all addresses, not on {host}"
                raise failed(error.what, why, "Add --bind ::") from error
            if holder is None or error.kind not in (Kind.CONFLICT, Kind.FAILED):
                raise
            raise conflict(
                error.what, f"proxy {holder} listens on port {port}", f"See hivectl proxy show {holder}"
            ) from error

    def idle_ports(self) -> list[int]:
        """The ports that a socket unit opened for hived in vain."""
        return self._listeners.idle()

    def peer_is_back(self, peer_id: str) -> None:
        """A peer is connected again: what failed for want of it is no news any more."""
        for item in self.running.values():
            if item.row.peer_id == peer_id:
                item.counters.last_error = None

    def get(self, proxy_id: int) -> Running:
        """Raises HiveError (not_found)."""
        if proxy_id not in self.running:
            raise not_found(
                f"finding proxy {proxy_id} failed", "there is none with this ID", "See hivectl proxy"
            )
        return self.running[proxy_id]

    async def remove(self, proxy_id: int) -> None:
        self.get(proxy_id)
        await self._store.remove(proxy_id)
        await self.reconcile()

    async def enable(self, proxy_id: int, enabled: bool) -> Running:
        """Enable or disable. Enabling an egress proxy whose port is taken changes nothing (conflict)."""
        item = self.get(proxy_id)
        sockets: list[socket.socket] = []
        if enabled and not item.row.enabled and item.row.direction == "egress":
            sockets = self.bind(item.row.bind, item.row.port)
        try:
            await self._store.enable(proxy_id, enabled)
        except BaseException:
            _close(sockets)
            raise
        await self.reconcile({proxy_id: sockets})
        return self.get(proxy_id)

    # Running one

    def _start(self, item: Running, sockets: list[socket.socket] | None) -> None:
        row = item.row
        assert self._nursery is not None
        if row.direction == "ingress":
            origin = Origin(row.network, row.peer_id, row.peer_port, row.port)
            item.ingress = IngressProxy(origin, row.target, item.counters, name=self.overlay.name)
            self._ingress.add(item.ingress)
            item.scope, item.ended = trio.CancelScope(), None
            item.state, item.error = "ready", None
            return
        try:
            before = [] if sockets else self._listeners.before(row.id, row.bind, row.port)
            sockets = sockets or before or self.bind(row.bind, row.port)
        except HiveError as error:
            if item.error != error.why:
                log.error("an egress proxy cannot listen", id=row.id, port=row.port, why=error.why)
            item.fail(error.why)
            return
        self._listeners.keep(sockets, row.id, row.port)
        route = Route(row.network, row.peer_id, row.port, row.peer_port)
        item.egress = EgressProxy(route, sockets, self.overlay, item.counters)
        item.scope, item.ended = trio.CancelScope(), trio.Event()
        item.state, item.error = "listening", None
        if row.bind is None:
            log.info("an egress proxy listens on all addresses", id=row.id, port=row.port)
        self._nursery.start_soon(self._run_egress, item, item.egress, item.scope, item.ended)

    async def _run_egress(
        self, item: Running, proxy: EgressProxy, scope: trio.CancelScope, ended: trio.Event
    ) -> None:
        try:
            with scope:
                await proxy.run()
        except Exception:
            log.exception("an egress proxy died; it is started again", id=item.row.id)
        finally:
            ended.set()
            if item.scope is scope and not scope.cancel_called and not self._stopping:
                item.scope, item.egress = None, None
                item.fail("the listener died")
                self._wake.set()

    async def _stop(self, item: Running) -> None:
        """Stop a listener and cut its live connections; returns when the port is free."""
        if item.ingress is not None:
            self._ingress.remove(item.ingress)
        if item.scope is not None:
            item.scope.cancel()
        if item.ended is not None:
            await item.ended.wait()
            self._listeners.drop(item.row.id, item.row.bind, item.row.port)
        item.egress = item.ingress = item.scope = item.ended = None
        item.state, item.error = "disabled", None
        item.row = replace(item.row, enabled=False)


def _same(one: ProxyRow, other: ProxyRow) -> bool:
    """Whether two rows cannot both be: one port pair is one ingress; an equal egress is a twin."""
    if one.direction != other.direction or one.port != other.port:
        return False
    if one.direction == "egress":
        return one.bind == other.bind and one.enabled
    return (one.network, one.peer_id, one.peer_port) == (other.network, other.peer_id, other.peer_port)


def _close(sockets: list[socket.socket]) -> None:
    for sock in sockets:
        with contextlib.suppress(OSError):
            sock.close()

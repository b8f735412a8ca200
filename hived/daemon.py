"""The one place that builds everything, starts it, and stops it in order."""

from __future__ import annotations

import faulthandler
import gc
import os
import resource
import secrets
import signal
import sqlite3
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path

import trio

from . import __version__, logs
from .api import refusal, server
from .api.auth import OVERFLOW_UID, Auth
from .api.node import Node
from .api.passwords import HashingThread
from .api.remote import API
from .api.views import status_line
from .config import Config
from .configured import Configured, set_up_logs, validate
from .errors import HiveError, failed, unreachable
from .logs import Log
from .overlay.book import Book, DialPolicy
from .overlay.connection import Connection
from .overlay.contacts import Contacts
from .overlay.dialer import Dialer
from .overlay.exchange import SYNC, SYNC_FIRST
from .overlay.gossip import Gossip
from .overlay.host import Host
from .overlay.identify import IDENTIFY, PING, IdentifyService, serve_ping
from .overlay.identity import SEED_BYTES, Identity
from .overlay.listening import Listening
from .overlay.membership import Membership
from .overlay.paths import Paths
from .overlay.peers import Peers, Wishes
from .overlay.probation import Probation
from .overlay.records import NodeRecord
from .overlay.rekey import Rekeys
from .overlay.sync import Sync
from .proxy.egress import Overlay
from .proxy.header import PROXY
from .proxy.ingress import Ingress
from .proxy.reconciler import Reconciler
from .store import restore, seal
from .store.admins import Admins
from .store.database import FILE_NAME, Database
from .store.networks import Networks
from .store.peers import Peers as PeerStore
from .store.proxies import Proxies
from .store.records import Records
from .store.settings import IdentityKeys, Settings
from .system import initprocess, netlink, runlock, supervision, wakeups
from .system.dbusunit import under_systemd
from .system.manager import Manager
from .transport import native, planethread
from .transport.plane import Plane

log = Log("hived")

DRAIN_SECONDS = 3.0
NEIGHBOUR_SECONDS = 120.0
SWITCH_SECONDS = 0.0002
GC_THRESHOLDS = (20_000, 20, 20)


class Daemon:
    """One node, from its configuration. ``reload`` reads that again, for SIGHUP."""

    def __init__(
        self, settings: Config, reload: Callable[[], Config], manager: Manager | None = None
    ) -> None:
        self.config = settings
        self._reload = reload
        self._manager = manager or Manager()
        self._book = Book()
        self._tasks: trio.Nursery | None = None
        self._met = trio.Event()
        self._anew = False
        self._reading = trio.Lock()
        # Proxied connections that did not end in the time that a stop gives them.
        self._cut = 0

    async def run(self) -> bool:
        """Run until SIGTERM or SIGINT; True to be started anew. Raises HiveError when it cannot start."""
        lock = runlock.take(self.config.data_dir)
        self._manager.sockets.begin()
        try:
            _raise_file_limit()
            if os.geteuid() == OVERFLOW_UID:
                log.warning("user 65534 is shared by many: nobody is admin here without a log-in (--admin)")
            if restore.take_up(self.config.data_dir):
                log.warning("the state out of a backup is in force now")
            path = self.config.data_dir / FILE_NAME
            state_key = seal.load(self.config.data_dir, self.config.state_key, path.exists())
            database = await Database.open(path)
            try:
                await self._run(database, state_key)
                return self._anew
            finally:
                await database.close()
        finally:
            os.close(lock)

    async def _run(self, database: Database, state_key: seal.StateKey) -> None:
        with HashingThread() as hashing:
            await self._build(database, state_key, hashing)
            await self._load()
            await self._serve()

    async def _serve(self) -> None:
        async with planethread.running(self.plane):
            await self._serve_on_plane()
        log.info("stopped", **({"proxied_cut": self._cut} if self._cut else {}))

    async def _serve_on_plane(self) -> None:
        with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT, signal.SIGHUP) as signals:
            async with trio.open_nursery() as overlay:
                self._tasks = overlay
                await overlay.start(self.host.run)
                await self.configured.listen()
                await overlay.start(self.sync.run)
                await overlay.start(self.gossip.run)
                await overlay.start(self.rekeys.run)
                await self._publish()
                async with trio.open_nursery() as services:
                    await services.start(self.reconciler.run)
                    await overlay.start(self.peers.run)
                    await overlay.start(self.paths.run)
                    control = self._listen_for_clients()
                    try:
                        async with trio.open_nursery() as api:
                            await api.start(self.server.run, control)
                            api.start_soon(netlink.watch_addresses, self._on_network_change)
                            api.start_soon(wakeups.watch_sleep, self._on_network_change)
                            api.start_soon(self.contacts.run)
                            api.start_soon(self._meet)
                            api.start_soon(self.probation.run)
                            self._supervise(api)
                            log.info(
                                "ready",
                                version=__version__,
                                peer=self.identity.peer_id,
                                name=self.configured.name,
                                socket=self.node.config.socket,
                                listen=" ".join(self.host.listening),
                                data_plane="compiled" if native.found() else "python",
                            )
                            self._manager.ready()
                            await self._until_stopped(signals)
                            api.cancel_scope.cancel()
                    finally:
                        control.socket.close()
                        if not self._manager.sockets.has_control:
                            server.remove(self.node.config.socket)
                    self.host.stop_listening()
                    self._cut = await self.reconciler.drain(DRAIN_SECONDS)
                    services.cancel_scope.cancel()
                await self.contacts.save()
                await self._save_records()
                overlay.cancel_scope.cancel()

    def _listen_for_clients(self) -> trio.SocketListener:
        """The control socket: a socket unit's, else one of hived's own."""
        given = self._manager.sockets.control()
        if given is None:
            return server.listen(self.node.config.socket)
        path = Path(given.getsockname())
        if path != self.node.config.socket:
            log.info("the control socket is the one of the socket unit", socket=path)
            self.node.config = replace(self.node.config, socket=path)
        return trio.SocketListener(trio.socket.from_stdlib_socket(given))

    def _supervise(self, api: trio.Nursery) -> None:
        """Tell the service manager from now on how it goes, and that it goes on."""
        notifier = self._manager.notifier

        async def changed() -> None:
            await self.node.changed.wait()

        api.start_soon(supervision.tell_status, notifier, partial(status_line, self.node), changed)
        parts: dict[str, Callable[[], Awaitable[None]]] = {
            "event loop": trio.lowlevel.checkpoint,
            "data plane": partial(planethread.answer, self.plane),
            "store": self.node.database.answer,
        }
        api.start_soon(supervision.ping_watchdog, notifier, parts)
        if initprocess.is_init():
            api.start_soon(initprocess.reap)

    async def _until_stopped(self, signals: AsyncIterator[int]) -> None:
        """Returns at a signal to stop, or when hived is to start anew."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._follow_signals, signals, nursery.cancel_scope)
            await self.node.restart.wait()
            self._anew = not nursery.cancel_scope.cancel_called
            log.info("starting anew")
            nursery.cancel_scope.cancel()

    async def _follow_signals(self, signals: AsyncIterator[int], stop: trio.CancelScope) -> None:
        async for number in signals:
            if number == signal.SIGHUP:
                await self._on_hangup()
            else:
                log.info("stopping", signal=signal.Signals(number).name)
                self._manager.notifier.stopping()
                stop.cancel()
                return

    # Building

    async def _build(self, database: Database, state_key: seal.StateKey, hashing: HashingThread) -> None:
        settings = Settings(database)
        self.networks = Networks(database, state_key)
        self.peer_store = PeerStore(database)
        self.admins = Admins(database)
        self.identity = await _identity(IdentityKeys(database, state_key))
        clock = time.monotonic
        self.plane = Plane()
        kept = self._manager.sockets
        self.host = Host(self.identity, self._book.is_blocked, self.plane, kept)
        self.listening = Listening(self.host, settings)
        self.membership = Membership(self.host, self._is_known, clock)
        self.sync = Sync(self.identity, self.membership, Records(database))
        self.gossip = Gossip(self.sync, self.membership)
        self.membership.name = self.sync.last_name
        changes = trio.Lock()
        self.rekeys = Rekeys(self.networks, self.membership, self.sync.clock, changes)
        self.rekeys.on_change = self._notify
        self.paths = Paths(self.host, self.membership, self.sync, self.listening.addresses, self._say)
        self.sync.author.capabilities = lambda network: [
            *self.rekeys.capabilities(network),
            *self.paths.capabilities(network),
        ]
        self.sync.author.relays = self.paths.relays
        policy = DialPolicy(
            self._book,
            self.sync,
            networks=lambda: list(self.membership.keys),
            proxied=lambda: [
                *(item.row.peer_id for item in self.reconciler.running.values()),
                *(relay for relay in self.paths.reservations.held if relay not in self.paths.outside),
            ],
            own_peer_id=self.identity.peer_id,
            on_lan=self.paths.discovery.found,
        )
        self.paths.puncher.on_direct.append(lambda peer_id: self.peers.kick(peer_id))
        self.paths.discovery.on_found.append(lambda peer_id: self.peers.refresh())
        self.peers = Peers(
            self.host,
            self.membership,
            Wishes(
                addresses=policy.addresses,
                networks=policy.joins,
                wanted=lambda: policy.wanted(self.peers.linked()),
                refused=self._refused,
                name=self.sync.last_name,
            ),
            Dialer(self.host, policy.addresses, self.paths.relays_of, self.paths.circuits, self._to_relay),
        )
        self.contacts = Contacts(
            self.host, self.peers, self._book, settings, self.peer_store, self._is_listed
        )
        self.sync.was_met = self.contacts.was_met
        self.probation = Probation(settings, self.sync, self.host)
        self.ingress = Ingress(self.membership.network_of, self.membership.require, self.sync.last_name)
        self.host.greeter = self.ingress.greet
        self.reconciler = Reconciler(
            Proxies(database),
            self.ingress,
            Overlay(self.plane, find=self.host.find, connect=self.peers.connection, name=self.sync.last_name),
            self._notify,
            kept,
        )
        self.node = Node(
            config=self.config,
            identity=self.identity,
            book=self._book,
            host=self.host,
            membership=self.membership,
            sync=self.sync,
            peers=self.peers,
            proxies=self.reconciler,
            admins=self.admins,
            networks=self.networks,
            auth=Auth(self.admins, hashing, clock),
            peer_store=self.peer_store,
            database=database,
            state_key=state_key,
            rename=lambda name: self.configured.rename(name),
            reload=self._read_again,
            addresses=self.paths.addresses,
            paths=self.paths,
            name=lambda: self.configured.name,
            publish=self._publish,
            misconfigured=lambda: self.configured.warnings,
            rekeys=self.rekeys,
            changes=changes,
            probation=self.probation,
            unit=self._manager.unit.state,
            is_service=under_systemd,
        )
        self.configured = Configured(self.node, settings, self.listening, self._reload, self._say)
        self.server = server.Server(self.node)
        identify = IdentifyService(self.identity, self.paths.addresses, lambda: self.host.handlers)
        self.host.handlers.update({IDENTIFY: identify.serve, PING: serve_ping})
        self.host.member_handlers.update(
            {
                SYNC: self.gossip.serve,
                SYNC_FIRST: self.gossip.serve_first,
                PROXY: self.ingress.serve,
                API: self.server.serve_member,
            }
        )
        self.host.on_connected.append(lambda connection: self._notify())
        self.host.on_disconnected.append(lambda connection: self._notify())
        self.membership.on_joined.append(
            lambda connection, network: self._on_joined(network, connection.peer_id)
        )
        self.sync.on_change.append(self._on_record)

    async def _load(self) -> None:
        book = self._book
        networks = await self.networks.all()
        self.rekeys.load(networks, await self.networks.moved())
        for network in networks:
            book.created[network.name] = network.created
        book.peers.update({peer.peer_id: peer for peer in await self.peer_store.all()})
        book.addresses.update(await self.peer_store.addresses())
        book.registrations.update({(r.peer_id, r.network): r for r in await self.networks.registrations()})
        book.owners.update(await self.peer_store.names())
        await self.contacts.load()
        await self.sync.load()
        await self.configured.load()

    # What is told of this node

    async def _publish(self) -> None:
        await self.sync.publish(self.configured.name, self.paths.addresses(), list(self.membership.keys))
        self.paths.discovery.changed()
        self._notify()

    async def _on_network_change(self) -> None:
        """Addresses or routes are others now, or the machine has slept."""
        self.paths.network_changed()
        await self._say()
        self.peers.kick()

    async def _say(self) -> None:
        """Publish, where nobody waits to hear that it failed."""
        try:
            await self._publish()
        except HiveError as error:
            log.error("what has changed of this node could not be kept", why=error.line())

    async def _to_relay(self, relay: str) -> Connection:
        """A direct connection to a relay that a member names. Raises HiveError."""
        network = self.paths.network_of(relay)
        if network is None:
            raise unreachable("reaching a relay failed", "it is no member of a network of this node")
        connection = await self.peers.connection(relay, network)
        if connection.relay is not None:
            raise unreachable("reaching a relay failed", "it is itself behind a relay")
        return connection

    async def _on_hangup(self) -> None:
        # Why it failed stands in the log already.
        with suppress(HiveError):
            await self._read_again()

    async def _read_again(self) -> list[str]:
        """Read the configuration again, as the service manager is to know. Raises HiveError."""
        async with self._reading:
            self._manager.notifier.reloading()
            try:
                return await self.configured.read_again()
            except HiveError as error:
                log.error("the configuration was not taken over", why=error.line())
                raise
            finally:
                self._manager.notifier.ready()

    # What the dialer and the proxies ask

    def _is_known(self, peer_id: str, network: str) -> bool:
        """Whom the user registered is no stranger either."""
        return self.node.knows(peer_id, network)

    def _is_listed(self, peer_id: str) -> bool:
        return any(self.node.knows(peer_id, network) for network in self.membership.keys)

    def _refused(self, peer_id: str, network: str, count: int) -> None:
        registration = self._book.registrations.get((peer_id, network))
        if registration is not None:
            self._book.register(peer_id, network, count)
            self._soon(self.networks.register, peer_id, network, count)

    # What changes

    def _soon(self, function: Callable[..., Awaitable[None]], *arguments: object) -> None:
        """Write to the store without making the event that told us wait for it."""

        async def write() -> None:
            try:
                await function(*arguments)
            except (HiveError, sqlite3.Error) as error:
                log.warning("keeping a change failed", why=error)

        if self._tasks is not None:
            self._tasks.start_soon(write)

    def _notify(self) -> None:
        self.node.notify()

    def _on_joined(self, network: str, peer_id: str) -> None:
        if self.sync.is_hidden(network, peer_id):
            # It is there: a member that no list shows would be worse than one that was forgotten.
            self._soon(self._reveal, network, peer_id)
        self.reconciler.peer_is_back(peer_id)
        self._notify()

    async def _reveal(self, network: str, peer_id: str) -> None:
        await self.sync.reveal(network, peer_id)
        self.peers.refresh()
        self._notify()

    def _on_record(self, network: str, record: NodeRecord) -> None:
        author = record.peer_id
        self.contacts.claim(record.name, author)
        if author in self.peers.links:
            if self.host.find(author) is None:
                # A new address may be why it was not reached.
                self.peers.kick(author)
        elif author != self.identity.peer_id:
            self._met.set()
        self._notify()

    async def _meet(self) -> None:
        """Choose neighbours, once for each burst of new members; now and then in the place of lost ones."""
        took = 0.0
        while True:
            with trio.move_on_after(NEIGHBOUR_SECONDS):
                await self._met.wait()
                # To choose among thousands takes milliseconds: a hundredth of the time at most.
                await trio.sleep(max(0.1, 100 * took))
            self._met = trio.Event()
            began = time.perf_counter()
            self.peers.refresh()
            took = time.perf_counter() - began

    async def _save_records(self) -> None:
        self.sync.tick()
        try:
            await self.sync.save()
        except HiveError as error:
            log.error("what was learned last could not be kept", why=error.line())


async def _identity(keys: IdentityKeys) -> Identity:
    """The node's identity, made at the first start and kept."""
    seed = await keys.load()
    if seed is None:
        seed = secrets.token_bytes(SEED_BYTES)
        await keys.save(seed, Identity.from_seed(seed).peer_id)
    return Identity.from_seed(seed)


def _raise_file_limit() -> None:
    """Two descriptors a proxied connection: take what the system lets us have."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def main(settings: Config, reload: Callable[[], Config], ready: Callable[[], None] = lambda: None) -> int:
    """Run the daemon; its exit code. ``ready`` is called when it has started, and at each start anew."""
    # Where it hung is in the log then: a watchdog ends hived with SIGABRT.
    faulthandler.enable()
    # The store's thread runs Python too: the event loop must not wait 5 ms for each turn.
    sys.setswitchinterval(SWITCH_SECONDS)
    # What was imported stays: to look through all of it for garbage takes 70 ms each time.
    gc.freeze()
    # A connection is some twenty objects, none in a cycle: the default looks for garbage every 30 of them.
    gc.set_threshold(*GC_THRESHOLDS)
    logs.setup(settings.log_level, settings.log_format)
    manager = Manager(ready)
    try:
        set_up_logs(settings)
        validate(settings)
        daemon = Daemon(settings, reload, manager)
        while trio.run(daemon.run):
            daemon = Daemon(daemon.configured.settings, reload, manager)
    except* HiveError as group:
        error = group.exceptions[0]
        while isinstance(error, BaseExceptionGroup):
            error = error.exceptions[0]
        assert isinstance(error, HiveError)
        logs.say(f"hived: {error.line()}")
        _refuse_clients(manager, error)
        return_code = error.kind.exit_code
    except* Exception:
        log.exception("a defect in hived; please report it")
        _refuse_clients(manager, failed("a defect in it", hint="Please report what its log says of it"))
        return_code = 1
    else:
        return_code = 0
    return return_code


def _refuse_clients(manager: Manager, error: HiveError) -> None:
    # One that did start is started again, and those who wait then are not told of a failure that is over.
    if not manager.was_ready:
        refusal.refuse(manager.sockets.control(), manager.sockets.opened(), error)

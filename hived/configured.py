"""What hived.toml, the environment and the flags say, put in force: at start, and again at a reload."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import replace
from typing import cast

import trio

from . import config, logs
from .api.node import Node
from .api.passwords import decode_hash
from .config import Config
from .errors import HiveError, failed, usage
from .logs import Log
from .overlay.identity import outside_relay, parse_identity
from .overlay.listening import Listening, check_addresses
from .overlay.networkkeys import derive_key
from .overlay.relay import Mode
from .store.settings import Settings

log = Log("hived.configured")

READ_SECONDS = 10.0


class Configured:
    """A node's configuration. ``read`` reads all of its layers again; ``say`` tells others of the node.

    ``settings`` are those in force as they were given; what hived was handed instead is in ``node.config``.
    ``name`` is the node's, from the configuration or from ``hivectl rename``; it is there after ``load``.
    """

    def __init__(
        self,
        node: Node,
        store: Settings,
        listening: Listening,
        read: Callable[[], Config],
        say: Callable[[], Awaitable[None]],
    ) -> None:
        self.name = node.config.name
        # What is wrong with it, a line each, for whoever looks at the node.
        self.warnings: list[str] = []
        self.settings = node.config
        self._node = node
        self._store = store
        self._listening = listening
        self._read = read
        self._say = say
        self._reading = trio.CapacityLimiter(1)

    async def load(self) -> None:
        """What the store keeps, and what it lacks."""
        await self._load_name(self._node.config)
        await self._create_missing(self._node.config)

    async def listen(self) -> None:
        """Be found where the configuration says. Raises HiveError."""
        await self._listening.apply(self._node.config)
        self._apply_paths(self._node.config)

    async def rename(self, name: str) -> None:
        """Another name from now on; others hear of it."""
        await self._store.set("name", name)
        self.name = name
        await self._node.publish()

    async def read_again(self) -> list[str]:
        """Read it again, and name the settings that need a restart.

        Raises HiveError, and nothing of it is in force then but networks and admins that were added already.
        """
        try:
            return await self._take_over()
        except HiveError as error:
            self.warnings = [
                f"the configuration was not taken over: {error.line()} hived goes on with the former one,"
                " and a restart may fail"
            ]
            raise

    async def _take_over(self) -> list[str]:
        settings, ignored = config.merged(self.settings, await self._layers())
        validate(settings)
        if self.settings.config and not settings.config:
            what = f"reading {self.settings.config} failed"
            raise usage(what, "it is gone", "Put it back; a restart goes on without it")
        node, before = self._node, self._node.host.listening
        try:
            set_up_logs(settings)
            await self._listening.apply(settings)
            async with node.changes:
                await self._create_missing(settings)
            await self._load_name(settings)
        except BaseException:
            with suppress(HiveError), trio.CancelScope(shield=True):
                set_up_logs(self.settings)
                await self._listening.apply(self.settings)
            raise
        if node.host.listening != before:
            node.paths.reachability.forget()
        self.settings = settings
        node.config = replace(settings, socket=node.config.socket)
        self._apply_paths(settings)
        if ignored:
            log.warning("these settings need a restart", settings=" ".join(ignored))
        await self._say()
        node.peers.refresh()
        node.peers.kick()
        log.info("configuration read", listen=" ".join(node.host.listening), name=self.name)
        return ignored

    async def _layers(self) -> Config:
        """Read in a thread: a file may be a pipe that nobody writes to, or on a disk that does not answer."""
        try:
            with trio.fail_after(READ_SECONDS):
                return await trio.to_thread.run_sync(
                    self._read, abandon_on_cancel=True, limiter=self._reading
                )
        except trio.TooSlowError:
            what = "reading the configuration failed"
            why = f"a file of it could not be read to its end within {READ_SECONDS:.0f} s"
            raise failed(what, why, "Is one a pipe, or its disk gone?") from None

    async def _load_name(self, settings: Config) -> None:
        """A configured name counts when it is new; else the one of before holds, hivectl rename's too."""
        kept = await self._store.get("name")
        if settings.name_given and await self._store.get("configured_name") != settings.name:
            await self._store.set("configured_name", settings.name)
            kept = None
        if kept is None:
            await self._store.set("name", settings.name)
        elif settings.name_given and kept != settings.name:
            log.info("the name given by hivectl rename holds", name=kept, configured=settings.name)
        self.name = kept or settings.name

    async def _create_missing(self, settings: Config) -> None:
        """Networks, admins and bootstrap peers of the configuration that the store does not have yet."""
        node = self._node
        self.warnings = []
        for wanted in settings.networks:
            key = await trio.to_thread.run_sync(derive_key, wanted.name, wanted.password)
            if wanted.name not in node.membership.keys:
                kept = await node.networks.add(wanted.name, key)
                node.book.created[kept.name] = kept.created
                node.membership.set_network(kept.name, kept.key)
                log.info("network added", network=wanted.name)
            elif node.membership.keys[wanted.name][-1] != key:
                self._not_in_force("network", wanted.name, "hivectl networks rekey")
        for user in settings.admins:
            if await node.auth.create(user.name, user.password):
                log.info("admin added", user=user.name)
            elif await node.auth.differs(user.name, user.password):
                self._not_in_force("admin", user.name, "hivectl admin set")
        for text in settings.bootstrap:
            peer = parse_identity(text)
            if peer.peer_id == node.identity.peer_id:
                continue
            node.book.addresses[peer.peer_id] = list(peer.addresses)
            await node.peer_store.set_addresses(peer.peer_id, list(peer.addresses))
            for network in node.membership.keys:
                if (peer.peer_id, network) not in node.book.registrations:
                    await node.networks.register(peer.peer_id, network)
                    node.book.register(peer.peer_id, network)

    def _not_in_force(self, what: str, name: str, command: str) -> None:
        log.warning("a configured password is not the stored one; the stored one holds", of=what, name=name)
        self.warnings.append(
            f"{what} {name} has another password in the configuration, which is not in force:"
            f" correct it there, or change the {what}'s: {command} {name}"
        )

    def _apply_paths(self, settings: Config) -> None:
        paths = self._node.paths
        paths.set_mode(cast(Mode, settings.relay))
        paths.discovery.enabled = settings.mdns == "on"
        paths.discovery.changed()
        named = {text: outside_relay(text) for text in settings.use_relay}
        paths.outside = {relay: text for text, relay in named.items() if relay}


def validate(settings: Config) -> None:
    """Read all of a configuration before any of it is put in force. Raises HiveError (usage)."""
    check_addresses(settings)
    for text in settings.bootstrap:
        parse_identity(text)
    for admin in settings.admins:
        decode_hash(admin.password)


def set_up_logs(settings: Config) -> None:
    """Log as it says, first of the files in it that are not as secret as they should be. Raises HiveError."""
    logs.setup(settings.log_level, settings.log_format, file=settings.log_file)
    for path in settings.exposed:
        log.warning(config.exposure(path))

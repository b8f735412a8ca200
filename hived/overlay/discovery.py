"""Members on one LAN find each other: multicast DNS (RFC 6762, RFC 6763), by the zeroconf library.

What is announced is a peer ID, a port, and for each network a tag of the day, made of the network's name
only: who does not know the name learns no more than that a node is there, which anybody may ask it.
A tag proves nothing; the proof is the join.
"""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import ipaddress
import logging
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Final

import trio
from zeroconf import Error as ZeroconfError
from zeroconf import IPVersion, ServiceBrowser, ServiceInfo, ServiceStateChange, Zeroconf

from ..logs import Log
from .addresses import Endpoint, interface_addresses, parse
from .identity import is_peer_id

log = Log("hived.overlay.discovery")
# Of its own accord it warns, with tracebacks, of what any change of the network brings.
logging.getLogger("zeroconf").setLevel(logging.CRITICAL)

SERVICE: Final = "_hive._tcp.local."
DAY: Final = 86400
TAG_CHARS: Final = 16
LOOKUP_MS: Final = 3000
# Names looked up at once: one that nobody answers for holds up few others.
_LOOKUPS = 8
MAX_FOUND: Final = 1000
# One of the announcement's strings holds 255 bytes.
_TAGS_A_STRING: Final = 14
_STRINGS: Final = ("t", "t2", "t3", "t4")
_MAX_TAGS: Final = _TAGS_A_STRING * len(_STRINGS)
# Addresses change in bursts.
_SETTLE_SECONDS: Final = 1.0


def tag(network: str, day: int) -> str:
    """A network's tag on a day, counted from the epoch."""
    key = hashlib.sha256(b"hive-mdns" + network.encode()).digest()
    return hmac.digest(key, day.to_bytes(8, "big"), hashlib.sha256).hex()[:TAG_CHARS]


def tags(networks: Iterable[str], now: float) -> dict[str, str]:
    """The networks by their tags around now: the others' clock may have another day."""
    today = int(now // DAY)
    return {tag(network, day): network for network in networks for day in (today - 1, today, today + 1)}


def told_tags(info: ServiceInfo) -> list[str]:
    """The tags in an announcement."""
    return ",".join(_text(info, key.encode()) for key in _STRINGS).split(",")[:_MAX_TAGS]


@dataclass
class Found:
    """A node on the LAN that says it is in ``networks``."""

    addresses: list[str]
    networks: set[str] = field(default_factory=set)


class Discovery:
    """``listening``: the listeners' addresses, wildcards as they are. Without one that others can reach
    nothing is sent or heard.

    ``found``: peers by ID. ``on_found`` is called with each that is new or has another address.
    """

    def __init__(
        self, peer_id: str, networks: Callable[[], Iterable[str]], listening: Callable[[], Iterable[str]]
    ) -> None:
        self.enabled = True
        self.active = False
        self.found: dict[str, Found] = {}
        self.on_found: list[Callable[[str], None]] = []
        self._peer_id = peer_id
        self._networks = networks
        self._listening = listening
        self._kick = trio.Event()
        self._saying: tuple[bool, int, list[str], list[str]] | None = None
        self._names: dict[str, str] = {}
        self._looking: trio.MemorySendChannel[tuple[Zeroconf, str]] | None = None
        self._token: trio.lowlevel.TrioToken | None = None

    def kick(self) -> None:
        """Networks, addresses or settings have changed: say so anew."""
        self._kick.set()

    def changed(self) -> None:
        """Networks or addresses may be others now."""
        if self._said() != self._saying:
            self.kick()

    def _said(self) -> tuple[bool, int, list[str], list[str]]:
        """All that goes into an announcement."""
        return self.enabled, self._port(), sorted(self._networks()), interface_addresses()

    async def run(self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Announce and listen until cancelled."""
        self._token = trio.lowlevel.current_trio_token()
        task_status.started()
        while True:
            self._kick = trio.Event()
            self._saying = self._said()
            async with trio.open_nursery() as nursery:
                if self.enabled and self._port() and list(self._networks()):
                    nursery.start_soon(self._on_lan)
                # The tags are of a day.
                with trio.move_on_after(DAY - time.time() % DAY + 1):
                    await self._kick.wait()
                    await trio.sleep(_SETTLE_SECONDS)
                nursery.cancel_scope.cancel()
            self.active = False

    def _port(self) -> int:
        """The port of a listener that others on the LAN can reach; 0 for none."""
        for text in self._listening():
            end = parse(text)
            if not ipaddress.ip_address(end.host).is_loopback:
                return end.port
        return 0

    async def _on_lan(self) -> None:
        """One life of the library's sockets: they are of the interfaces of now."""
        try:
            own = _own_addresses()
            zeroconf = await trio.to_thread.run_sync(lambda: Zeroconf(own, ip_version=IPVersion.All))
        except OSError as error:
            log.info("members on the LAN will not be found", why=error.strerror or error)
            return
        send, receive = trio.open_memory_channel[tuple[Zeroconf, str]](100)
        self._looking = send
        try:
            info = self._announcement()
            await trio.to_thread.run_sync(lambda: zeroconf.register_service(info, allow_name_change=True))
            ServiceBrowser(zeroconf, SERVICE, handlers=[self._heard])
            self.active = True
            async with trio.open_nursery() as nursery:
                for _ in range(_LOOKUPS):
                    nursery.start_soon(self._look_up_all, zeroconf, receive)
        except (OSError, ValueError, ZeroconfError) as error:
            log.info("members on the LAN will not be found", why=str(error) or type(error).__name__)
        finally:
            self._looking, self.active = None, False
            with trio.CancelScope(shield=True):
                await trio.to_thread.run_sync(zeroconf.close)

    def _announcement(self) -> ServiceInfo:
        today = int(time.time() // DAY)
        shown = sorted(tag(network, today) for network in self._networks())[:_MAX_TAGS]
        parts = [shown[at : at + _TAGS_A_STRING] for at in range(0, len(shown) or 1, _TAGS_A_STRING)]
        name = f"{self._peer_id[-12:]}"
        return ServiceInfo(
            SERVICE,
            f"{name}.{SERVICE}",
            port=self._port(),
            properties={"p": self._peer_id, **dict(zip(_STRINGS, map(",".join, parts), strict=False))},
            server=f"hive-{name}.local.",
            parsed_addresses=_own_addresses(),
        )

    def _heard(
        self, zeroconf: Zeroconf, service_type: str, name: str, state_change: ServiceStateChange
    ) -> None:
        """On the library's thread."""
        if self._token is not None:
            with contextlib.suppress(trio.RunFinishedError):
                self._token.run_sync_soon(self._note, zeroconf, name, state_change)

    def _note(self, zeroconf: Zeroconf, name: str, change: ServiceStateChange) -> None:
        if change is ServiceStateChange.Removed:
            peer_id = self._names.pop(name, None)
            if peer_id is not None:
                self.found.pop(peer_id, None)
        elif not name.endswith(f".{SERVICE}"):
            return
        elif self._looking is not None and len(self._names) < MAX_FOUND:
            # A flood of names loses some; a name that stays is heard again.
            with contextlib.suppress(trio.WouldBlock):
                self._looking.send_nowait((zeroconf, name))

    async def _look_up_all(
        self, zeroconf: Zeroconf, names: trio.MemoryReceiveChannel[tuple[Zeroconf, str]]
    ) -> None:
        async for which, name in names:
            if which is zeroconf:
                try:
                    await self._look_up(zeroconf, name)
                except (OSError, ValueError, ZeroconfError) as error:
                    log.debug("a name on the LAN that is none", name=name, why=type(error).__name__)

    async def _look_up(self, zeroconf: Zeroconf, name: str) -> None:
        info = await trio.to_thread.run_sync(lambda: zeroconf.get_service_info(SERVICE, name, LOOKUP_MS))
        if info is None or not info.port:
            return
        peer_id = _text(info, b"p")
        if not is_peer_id(peer_id) or peer_id == self._peer_id:
            return
        known = tags(self._networks(), time.time())
        networks = {known[t] for t in told_tags(info) if t in known}
        addresses = [_address(text, info.port) for text in info.parsed_scoped_addresses(IPVersion.All)[:8]]
        usable = [address for address in addresses if address]
        if not networks or not usable:
            return
        self._names[name] = peer_id
        before = self.found.get(peer_id)
        self.found[peer_id] = Found(usable, networks)
        if before != self.found[peer_id]:
            log.info("a node of a network of ours is on the LAN", peer=peer_id, addresses=" ".join(usable))
            for callback in self.on_found:
                callback(peer_id)


def _own_addresses() -> list[str]:
    return [text for text in interface_addresses() if not ipaddress.ip_address(text).is_loopback]


def _text(info: ServiceInfo, key: bytes) -> str:
    return (info.properties.get(key) or b"").decode("ascii", "replace")


def _address(host: str, port: int) -> str:
    """A multiaddr; empty for one that is no use here."""
    try:
        ip = ipaddress.ip_address(host)
    except ValueError:
        return ""
    if ip.is_link_local or ip.is_loopback or ip.is_multicast:
        return ""
    return str(Endpoint(f"ip{ip.version}", str(ip), port))

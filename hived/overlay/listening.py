"""Where this node listens, as configured; the default port gives way when it is taken."""

from __future__ import annotations

import secrets
import socket
from collections.abc import Sequence

from ..config import DEFAULT_PORT, Config
from ..errors import HiveError, Kind, conflict, usage
from ..logs import Log
from ..store.settings import Settings
from .addresses import announced, parse_setting
from .host import Host
from .identity import outside_relay

log = Log("hived.overlay.listening")

_KEPT_PORT = "listen_port"
# Below the range that Linux gives to outgoing connections (ip_local_port_range).
_FREE_PORTS = range(20000, 32000)
_TRIES = 100


class Listening:
    """Applies the settings ``listen`` and ``announce`` to the host."""

    def __init__(self, host: Host, settings: Settings) -> None:
        self._host = host
        self._settings = settings
        self._announce: tuple[str, ...] = ()

    async def apply(self, config: Config) -> None:
        """Listen as configured. Raises HiveError, and changes nothing, when that cannot be.

        Where nobody named a port and the default one is taken, a free port is chosen once, and kept.
        """
        check_addresses(config)
        if config.listen_named:
            self._host.listen(config.listen)
        else:
            await self._listen_by_default()
        self._announce = config.announce

    def addresses(self) -> list[str]:
        """What others should dial."""
        return announced(self._host.listening, self._announce)

    async def _listen_by_default(self) -> None:
        kept = await self._settings.get(_KEPT_PORT)
        try:
            self._host.listen(_everywhere(int(kept) if kept else DEFAULT_PORT))
        except HiveError as error:
            if error.kind is not Kind.CONFLICT or kept:
                raise
            port = self._listen_on_free_port()
            await self._settings.set(_KEPT_PORT, str(port))
            log.warning("the default port is taken; another one is used from now on", port=port)

    def _listen_on_free_port(self) -> int:
        for _ in range(_TRIES):
            port = secrets.choice(_FREE_PORTS)
            try:
                self._host.listen(_everywhere(port))
            except HiveError:
                continue
            return port
        raise conflict(
            "listening failed",
            f"port {DEFAULT_PORT} is taken, and no free one was found",
            "Name one: --listen /ip4/0.0.0.0/tcp/PORT",
        )


def check_addresses(config: Config) -> None:
    """Raises HiveError (usage) for the first malformed address of ``listen`` and ``announce``."""
    for setting, addresses in (("listen", config.listen), ("announce", config.announce)):
        for address in addresses:
            parse_setting(address, setting)
    for text in config.use_relay:
        if outside_relay(text) is None:
            raise usage(
                "reading use-relay failed",
                f"{text!r} is no relay's address",
                "Write for example --use-relay /ip4/203.0.113.7/tcp/4001/p2p/ID",
            )


def _everywhere(port: int) -> Sequence[str]:
    wildcards = [f"/ip4/0.0.0.0/tcp/{port}"]
    if _has_ipv6():
        wildcards.append(f"/ip6/::/tcp/{port}")
    return wildcards


def _has_ipv6() -> bool:
    """Whether the kernel has IPv6 now (it may be compiled in and switched off)."""
    try:
        with socket.socket(socket.AF_INET6, socket.SOCK_STREAM) as sock:
            sock.bind(("::", 0))
    except OSError:
        return False
    return True

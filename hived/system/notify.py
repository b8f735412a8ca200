"""What the service manager is told: sd_notify(3), its watchdog and its file descriptor store."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Mapping

import sdnotify

from ..logs import Log

log = Log("hived.system.notify")

# The manager reads at once; where it does not, hived has better things to do than to wait.
SEND_SECONDS = 1.0


class Notifier:
    """Tells the service manager; without one, nobody.

    ``watchdog``: seconds within which the manager wants to hear :meth:`alive` again, None for never.
    """

    def __init__(self) -> None:
        self.watchdog = _watchdog_seconds(os.environ)
        self._sender: sdnotify.SystemdNotifier | None = None
        self._socket: socket.socket | None = None
        if os.environ.get("NOTIFY_SOCKET"):
            try:
                self._sender = sdnotify.SystemdNotifier(debug=True)
            except OSError as error:
                log.warning("there is no service manager to tell", why=error.strerror)
            else:
                self._socket = self._sender.socket
                self._socket.settimeout(SEND_SECONDS)
        # What hived starts speaks for itself.
        for name in ("NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID"):
            os.environ.pop(name, None)

    @property
    def listened_to(self) -> bool:
        """Whether there is a service manager."""
        return self._socket is not None

    def ready(self) -> None:
        """Started, or done with reading the configuration again."""
        self._tell("READY=1")

    def reloading(self) -> None:
        """The configuration is read again, until :meth:`ready`."""
        self._tell(f"RELOADING=1\nMONOTONIC_USEC={time.monotonic_ns() // 1000}")

    def stopping(self) -> None:
        self._tell("STOPPING=1")

    def status(self, text: str) -> None:
        """One line for people, which ``systemctl status`` shows."""
        self._tell(f"STATUS={' '.join(text.split())}")

    def alive(self) -> None:
        """The watchdog's ping."""
        self._tell("WATCHDOG=1")

    def keep(self, name: str, sock: socket.socket) -> None:
        """Have the manager keep a socket, and give it to the next hived under this name."""
        if self._socket is None:
            return
        state = f"FDSTORE=1\nFDNAME={name}".encode()
        try:
            socket.send_fds(self._socket, [state], [sock.fileno()])
        except OSError as error:
            log.warning("a listener is not kept over a restart", name=name, why=error.strerror or error)

    def release(self, name: str) -> None:
        """Have the manager forget the sockets of that name."""
        self._tell(f"FDSTOREREMOVE=1\nFDNAME={name}")

    def _tell(self, state: str) -> None:
        if self._sender is None:
            return
        try:
            self._sender.notify(state)
        except OSError as error:
            log.warning("telling the service manager failed", what=state.split("=")[0], why=error)


def _watchdog_seconds(environ: Mapping[str, str]) -> float | None:
    """sd_watchdog_enabled(3)."""
    micros = environ.get("WATCHDOG_USEC", "")
    for_whom = environ.get("WATCHDOG_PID", "")
    if not micros.isdecimal() or not int(micros) or (for_whom and for_whom != str(os.getpid())):
        return None
    return int(micros) / 1_000_000

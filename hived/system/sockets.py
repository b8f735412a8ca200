"""Sockets that hived did not make in this life: of socket units, and its own out of the fd store.

The service manager hands them over at start (sd_listen_fds(3)). Those that hived has it keep are also
kept here: a hived that starts anew within its process finds them again, and nobody is refused meanwhile.
"""

from __future__ import annotations

import contextlib
import ipaddress
import os
import socket
from collections.abc import Collection, Iterable, Iterator

from ..logs import Log
from .notify import Notifier

log = Log("hived.system.sockets")

CONTROL = "control"
WEB = "web"
_FIRST_FD = 3


class Sockets:
    """What was handed over, by name, and what is to be handed on. Its calls are those of transport.Kept."""

    def __init__(self, notifier: Notifier, handed: Iterable[tuple[str, socket.socket]] = ()) -> None:
        self._notifier = notifier
        self._control: socket.socket | None = None
        self._web: list[socket.socket] = []
        self._kept: dict[str, socket.socket] = {}
        self._used: set[str] = set()
        for name, sock in handed:
            # Else each copy would make the file that it shares with all others blocking, for a moment.
            sock.setblocking(False)
            if name == CONTROL and sock.family == socket.AF_UNIX and self._control is None:
                self._control = sock
            elif name == WEB and sock.family in (socket.AF_INET, socket.AF_INET6) and _is_listener(sock):
                self._web.append(sock)
            elif "_" in name and name not in self._kept:
                self._kept[name] = sock
            else:
                log.warning("a socket that hived has no use for was handed over", name=name)
                sock.close()

    def begin(self) -> None:
        """A node starts: until :meth:`sweep` it says what it still uses."""
        self._used.clear()

    @property
    def has_control(self) -> bool:
        """Whether a socket unit made the control socket, and will remove it."""
        return self._control is not None

    def control(self) -> socket.socket | None:
        """The control socket, where a socket unit made it; the caller's to close."""
        return self._control.dup() if self._control else None

    def take(self, owner: str, host: str, port: int) -> socket.socket | None:
        """The kept listener of that name; one that is not what its name says is dropped."""
        name = _name(owner, host, port)
        sock = self._kept.get(name)
        if sock is None:
            return None
        if not _listens(sock, host, port):
            log.warning("a kept socket does not listen where it should; a new one is made", name=name)
            self._drop(name)
            return None
        self._used.add(name)
        return sock.dup()

    def keep(self, owner: str, host: str, port: int, sock: socket.socket) -> None:
        if not self._notifier.listened_to or any(_same(sock, given) for given in self._web):
            return
        name = _name(owner, host, port)
        before = self._kept.get(name)
        if before is None or not _same(before, sock):
            self._drop(name)
            try:
                self._kept[name] = sock.dup()
            except OSError as error:
                log.warning("a listener is not kept over a restart", name=name, why=error.strerror)
                return
            self._notifier.keep(name, sock)
        self._used.add(name)

    def retain(self, owner: str, ends: Collection[tuple[str, int]]) -> None:
        names = {_name(owner, host, port) for host, port in ends}
        for name in [name for name in self._kept if name.startswith(f"{owner}_") and name not in names]:
            self._drop(name)

    def drop(self, owner: str, host: str, port: int) -> None:
        self._drop(_name(owner, host, port))

    def given(self, host: str | None, port: int) -> list[socket.socket]:
        return [sock.dup() for sock in self._web if _fits(sock, host, port)]

    def opened(self) -> list[socket.socket]:
        return [sock.dup() for sock in self._web]

    def sweep(self) -> None:
        """Everything listens that should: what was kept for nobody is let go."""
        for name in set(self._kept) - self._used:
            log.info("a kept listener is of no more use", name=name)
            self._drop(name)

    def _drop(self, name: str) -> None:
        sock = self._kept.pop(name, None)
        self._used.discard(name)
        if sock is None:
            return
        # At once, for everybody who holds it; that the manager lets go of its copy may take a moment.
        with contextlib.suppress(OSError):
            sock.shutdown(socket.SHUT_RDWR)
        sock.close()
        self._notifier.release(name)


def handed_over() -> Iterator[tuple[str, socket.socket]]:
    """Name and socket of each descriptor that the manager hands over; the variables go with the first use."""
    count = os.environ.pop("LISTEN_FDS", "")
    pid = os.environ.pop("LISTEN_PID", "")
    names = os.environ.pop("LISTEN_FDNAMES", "").split(":")
    if not count.isdecimal() or pid != str(os.getpid()):
        return
    for index in range(int(count)):
        fd = _FIRST_FD + index
        os.set_inheritable(fd, False)
        name = names[index] if index < len(names) else ""
        try:
            sock = socket.socket(fileno=fd)
        except OSError:
            log.warning("what was handed over is no socket", name=name)
            os.close(fd)
            continue
        yield name, sock


def _same(one: socket.socket, other: socket.socket) -> bool:
    return os.path.sameopenfile(one.fileno(), other.fileno())


def _name(owner: str, host: str, port: int) -> str:
    # FDNAME= allows no colon.
    return f"{owner}_{str(ipaddress.ip_address(host)).replace(':', '-')}_{port}"


def _is_listener(sock: socket.socket) -> bool:
    try:
        return bool(sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN))
    except OSError:
        return False


def _listens(sock: socket.socket, host: str, port: int) -> bool:
    """Whether a socket listens there; port 0 is any port."""
    if not _is_listener(sock):
        return False
    try:
        bound_host, bound_port = sock.getsockname()[:2]
        same = ipaddress.ip_address(bound_host) == ipaddress.ip_address(host)
    except (OSError, ValueError):
        return False
    return same and port in (0, bound_port)


def _fits(sock: socket.socket, host: str | None, port: int) -> bool:
    return any(_listens(sock, wanted, port) for wanted in ([host] if host else ["0.0.0.0", "::"]))

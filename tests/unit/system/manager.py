"""The other end of sd_notify(3): a datagram socket that keeps what it is told and handed."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest


class ServiceManager:
    """Listens where NOTIFY_SOCKET says."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(str(path))
        self._socket.settimeout(5)

    def hears(self) -> tuple[str, list[int]]:
        """The next message, and the descriptors that came with it; TimeoutError when none comes."""
        data, fds, _, _ = socket.recv_fds(self._socket, 4096, 8)
        return data.decode(), fds

    def heard_nothing(self) -> bool:
        self._socket.setblocking(False)
        try:
            self._socket.recv(1, socket.MSG_PEEK)
        except BlockingIOError:
            return True
        finally:
            self._socket.settimeout(5)
        return False

    def close(self) -> None:
        self._socket.close()


@contextmanager
def service_manager(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, watchdog: float = 0.0
) -> Iterator[ServiceManager]:
    """One that this process is a service of."""
    manager = ServiceManager(tmp_path / "notify")
    monkeypatch.setenv("NOTIFY_SOCKET", str(manager.path))
    if watchdog:
        monkeypatch.setenv("WATCHDOG_USEC", str(int(watchdog * 1e6)))
        monkeypatch.setenv("WATCHDOG_PID", str(os.getpid()))
    try:
        yield manager
    finally:
        manager.close()

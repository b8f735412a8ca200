"""One network namespace, and what is done in it."""

from __future__ import annotations

import ctypes
import os
import socket
import subprocess
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import IO, Any, TypeVar

from tests.needs import program
from tests.netns.keeper import Identity, Keeper, identity
from tests.netns.shuttle import CLONE_NEWNET, enter

T = TypeVar("T")
_libc = ctypes.CDLL(None, use_errno=True)


class LabError(Exception):
    """Something in the lab could not be made or changed; the text says what the kernel said."""


class Namespace:
    """A network namespace that lasts as long as its keeper.

    Nothing here touches the namespace that the caller is in: each thing is done by a thread that entered
    first, or by a child of such a thread.
    """

    def __init__(self, name: str, keeper: Keeper) -> None:
        self.name = name
        self._keeper = keeper
        self._file = _in_thread(_unshared)
        keeper.hold(self._file)
        self.ip("link set dev lo up")
        # What the machine has set is inherited, and is not this lab's.
        for key in ("all", "default"):
            self.sysctl(f"net/ipv4/conf/{key}/rp_filter", "0")
        # An IPv6 address counts at once, not when a second has shown that nobody else has it.
        self.sysctl("net/ipv6/conf/default/accept_dad", "0")
        self.sysctl("net/ipv6/conf/default/accept_ra", "0")

    @property
    def path(self) -> str:
        """The file that nsenter(1) and ip(8) take for it, as long as this process lives."""
        return f"/proc/{os.getpid()}/fd/{self._file}"

    @property
    def identity(self) -> Identity:
        """The device and inode that identify it, as of /proc/PID/ns/net."""
        return identity(os.fstat(self._file))

    @property
    def inside(self) -> list[str]:
        """What goes before a command that is to run here. It becomes that command: the process ID stays."""
        return [_path("nsenter"), f"--net={self.path}", "--"]

    def call(self, function: Callable[[], T]) -> T:
        """Call a function here, in a thread. Sockets that it makes stay here, and so do its children."""

        def within() -> T:
            enter(self.path)
            return function()

        return _in_thread(within)

    def socket(self, family: int = socket.AF_INET, kind: int = socket.SOCK_STREAM) -> socket.socket:
        """A socket here, for the caller to use from where it is."""
        return self.call(lambda: socket.socket(family, kind))

    def run(self, command: Sequence[str], stdin: str = "") -> str:
        """What a command prints; LabError when it fails."""
        done = self.call(
            lambda: subprocess.run(
                [_path(command[0]), *command[1:]], input=stdin, capture_output=True, text=True, check=False
            )
        )
        if done.returncode:
            said = (done.stderr or done.stdout).strip()
            raise LabError(f"{self.name}: {' '.join(command)}: {said}\n{stdin}")
        return done.stdout

    def popen(
        self,
        command: Sequence[str],
        *,
        stdout: int | IO[Any] | None = subprocess.DEVNULL,
        cwd: Path | None = None,
    ) -> subprocess.Popen[str]:
        """Start a command here, apart from the terminal; it is killed in the end if it still runs."""
        process = self.call(
            lambda: subprocess.Popen(
                list(command),
                stdin=subprocess.DEVNULL,
                stdout=stdout,
                text=True,
                cwd=cwd,
                start_new_session=True,
            )
        )
        self._keeper.reap(process)
        return process

    def ip(self, *lines: str) -> None:
        """Lines of ip(8), in order, all of them or up to the first that fails."""
        self.run(["ip", "-batch", "-"], "\n".join(lines) + "\n")

    def nft(self, rules: str) -> None:
        """Rules of nft(8), all or none of them."""
        self.run(["nft", "-f", "-"], rules)

    def sysctl(self, key: str, value: str) -> None:
        """Set what sysctl(8) sets; the key with slashes."""
        self.call(lambda: Path("/proc/sys", key).write_text(value))


def _unshared() -> int:
    if _libc.unshare(CLONE_NEWNET):
        raise OSError(ctypes.get_errno(), "unshare")
    return os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)


def _in_thread(function: Callable[[], T]) -> T:
    """Call it in a thread that ends: a thread's namespace is its own."""
    results: list[T] = []
    errors: list[BaseException] = []

    def call() -> None:
        try:
            results.append(function())
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=call)
    thread.start()
    thread.join()
    if errors:
        raise errors[0]
    return results[0]


def _path(name: str) -> str:
    found = program(name)
    if found is None:
        raise LabError(f"no {name} on this machine")
    return found

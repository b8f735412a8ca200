"""A pseudo-terminal with a program on it, for tests that type."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.unit.hivectl.conftest import Hivectl

# The program must have the terminal as its controlling one, where getpass looks for it.
LAUNCH = (
    "import fcntl,os,sys,termios; fcntl.ioctl(0, termios.TIOCSCTTY, 0); os.execv(sys.argv[1], sys.argv[1:])"
)


class Terminal:
    """hivectl, or another program, on a terminal; stdout too, unless it goes to a pipe."""

    def __init__(
        self,
        hivectl: Hivectl,
        *words: str,
        pipe_stdout: bool = False,
        program: list[str] | None = None,
        environment: dict[str, str] | None = None,
    ) -> None:
        self._master, slave = pty.openpty()
        self._process = subprocess.Popen(
            [sys.executable, "-c", LAUNCH, *(program or hivectl.argv(*words))],
            stdin=slave,
            stdout=subprocess.PIPE if pipe_stdout else slave,
            stderr=slave,
            env={"TERM": "xterm", **(environment or hivectl.environment())},
            cwd=hivectl.home,
            start_new_session=True,
        )
        os.close(slave)
        self.screen = ""

    def until(self, text: str) -> None:
        """Read until ``text`` stands on the screen, after what was waited for before."""
        seen = len(self.screen)
        while text not in self.screen[seen:]:
            chunk = self._read()
            assert chunk, f"it ended without {text!r}: {self.screen!r}"
            self.screen += chunk

    def type(self, line: str) -> None:
        """Type a line."""
        self.press(f"{line}\n")

    def press(self, keys: str) -> None:
        """Press keys, Ctrl-C and Ctrl-D among them."""
        os.write(self._master, keys.encode())

    def end(self) -> tuple[int, str]:
        """Wait for the end: the exit code, and what went to the pipe."""
        out = self._process.stdout.read().decode() if self._process.stdout else ""
        while chunk := self._read():
            self.screen += chunk
        code = self._process.wait()
        os.close(self._master)
        if self._process.stdout:
            self._process.stdout.close()
        return code, out

    def _read(self) -> str:
        try:
            return os.read(self._master, 4096).decode()
        except OSError:  # EIO: nobody has the other end open any more
            return ""

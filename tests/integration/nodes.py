"""Real nodes for tests: hived processes with directories of their own, driven by hivectl alone."""

from __future__ import annotations

import contextlib
import json
import os
import queue
import random
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

T = TypeVar("T")
BIN = Path(sys.executable).parent
START_SECONDS = 30.0
WAIT_SECONDS = 15.0
PASSWORD = "correct-horse-battery-staple"


def environment(home: Path) -> dict[str, str]:
    """An environment that takes nothing from the node, settings or tokens of this machine."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("HIVE", "XDG_", "NOTIFY"))}
    # Which form of the data plane is tested.
    kept |= {key: value for key, value in os.environ.items() if key == "HIVE_NATIVE"}
    kept |= {"HOME": str(home), "XDG_STATE_HOME": str(home / "state"), "NO_COLOR": "1"}
    # Nothing is sent to the machine's own LANs.
    kept["HIVED_MDNS"] = "off"
    return {**kept, "PYTHONWARNINGS": "default::ResourceWarning"}


def _state(task: Path) -> str:
    """A thread's state as proc(5) has it: R, S, T ...; "" for one that is gone."""
    with contextlib.suppress(OSError):
        return (task / "stat").read_text().rpartition(")")[2].split()[0]
    return ""


@dataclass
class Result:
    """How a command ended."""

    code: int
    out: str
    err: str

    @classmethod
    def of(
        cls, command: list[str], *, env: dict[str, str] | None = None, stdin: str = "", seconds: float = 30.0
    ) -> Result:
        """Run a command to its end."""
        done = subprocess.run(
            command, env=env, input=stdin, capture_output=True, text=True, timeout=seconds, check=False
        )
        return cls(done.returncode, done.stdout, done.stderr)

    def json(self) -> Any:
        return json.loads(self.out)


@dataclass
class LogReader:
    """A process's stderr, line by line, with an event for each new one."""

    path: Path
    lines: list[str] = field(default_factory=list)
    _new: threading.Condition = field(default_factory=threading.Condition)

    def follow(self, process: subprocess.Popen[str]) -> threading.Thread:
        """Read until the process has ended, and with it the thread."""

        def read() -> None:
            assert process.stderr is not None
            with self.path.open("a") as copy:
                for line in process.stderr:
                    copy.write(line)
                    copy.flush()
                    with self._new:
                        self.lines.append(line)
                        self._new.notify_all()
            with self._new:
                self._new.notify_all()

        thread = threading.Thread(target=read, daemon=True)
        thread.start()
        return thread

    def wait_for(
        self, text: str, seconds: float, after: int = 0, alive: Callable[[], bool] = lambda: True
    ) -> str:
        """The first line after number ``after`` that holds ``text``; AssertionError when none comes."""
        deadline = time.monotonic() + seconds
        with self._new:
            while True:
                for line in self.lines[after:]:
                    if text in line:
                        return line
                left = deadline - time.monotonic()
                if left <= 0 or not alive():
                    raise AssertionError(f"no {text!r} in the log:\n{''.join(self.lines[-40:])}")
                self._new.wait(min(left, 0.5))


class Node:
    """One hived process. ``ctl`` runs hivectl against it."""

    def __init__(self, directory: Path, name: str, *flags: str) -> None:
        self.directory = directory / name
        self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.name = name
        self.data = self.directory / "data"
        self.flags = flags
        self.env = environment(self.directory)
        self.log = LogReader(self.directory / "log")
        self.process: subprocess.Popen[str] | None = None
        self._reader: threading.Thread | None = None
        self._before = 0
        self.listen: tuple[str, ...] = (f"/ip4/127.0.0.1/tcp/{free_port()}",)
        self._peer_id = ""

    @property
    def socket(self) -> Path:
        return self.data / "control.sock"

    def command(self, *extra: str) -> list[str]:
        listen = [item for address in self.listen for item in ("--listen", address)]
        flags = ["--data-dir", str(self.data), "--name", self.name, *listen, "--log-level", "debug"]
        return [str(BIN / "hived"), "run", *flags, *self.flags, *extra]

    def start(self, *extra: str, wait: bool = True) -> Node:
        """Start hived; returns when it is ready."""
        assert self.process is None or self.process.poll() is not None
        if self._reader is not None:
            # So that no line of the former process is taken for one of the new.
            self._reader.join()
        self._before = len(self.log.lines)
        self.process = subprocess.Popen(
            self.command(*extra),
            env=self.env,
            stderr=subprocess.PIPE,
            stdin=subprocess.DEVNULL,
            text=True,
            cwd=self.directory,
        )
        self._reader = self.log.follow(self.process)
        if wait:
            self.ready()
        return self

    def ready(self) -> None:
        """Wait until the hived that was started last is ready."""
        self.log.wait_for("hived: ready", START_SECONDS, self._before, self.is_alive)

    def is_alive(self) -> bool:
        return self.process is not None and self.process.poll() is None

    def kill(self) -> None:
        """kill -9, as a power cut would."""
        assert self.process is not None
        self.process.kill()
        self.process.wait()

    @contextlib.contextmanager
    def frozen(self) -> Iterator[None]:
        """SIGSTOP, as a machine that hangs, until the end: none of its threads runs within."""
        assert self.process is not None
        tasks = Path(f"/proc/{self.process.pid}/task")
        self.process.send_signal(signal.SIGSTOP)
        try:
            # The signal is sent; each thread stops when it comes to it.
            deadline = time.monotonic() + WAIT_SECONDS
            while not all(_state(task) in {"T", ""} for task in tasks.iterdir()):
                assert time.monotonic() < deadline, "hived does not stop"
                time.sleep(0.002)
            yield
        finally:
            self.process.send_signal(signal.SIGCONT)

    def stop(self, seconds: float = 10.0) -> int:
        """SIGTERM; the exit code."""
        assert self.process is not None
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(seconds)

    def hivectl(self, *arguments: str) -> list[str]:
        """The command that runs hivectl against this node."""
        return [str(BIN / "hivectl"), "--socket", str(self.socket), *arguments]

    def ctl(self, *arguments: str, stdin: str = "", check: bool = True, seconds: float = 30.0) -> Result:
        """Run hivectl; with ``check`` its failure is the test's."""
        result = Result.of(self.hivectl(*arguments), env=self.env, stdin=stdin, seconds=seconds)
        if check:
            assert result.code == 0, f"hivectl {' '.join(arguments)}: {result}\n{self.tail()}"
        return result

    def json(self, *arguments: str) -> Any:
        return self.ctl(*arguments, "--json").json()

    def tail(self) -> str:
        return "".join(self.log.lines[-40:])

    @property
    def peer_id(self) -> str:
        # Asked for once: it stays as long as the data directory does.
        self._peer_id = self._peer_id or str(self.json("id")["peer_id"])
        return self._peer_id

    @property
    def identity(self) -> str:
        return self.ctl("id", "--base64").out.strip()

    def create(self, network: str, password: str = PASSWORD) -> None:
        self.ctl("networks", "create", network, "--password-stdin", stdin=password + "\n")

    def register(self, other: Node, network: str | None = None, check: bool = True) -> Result:
        more = ["--network", network] if network else []
        return self.ctl("register", other.identity, *more, check=check)

    def row(self, other: Node | str, network: str | None = None) -> dict[str, Any] | None:
        """What this node's ``nodes`` says of another; None when nothing."""
        peer_id = other if isinstance(other, str) else other.peer_id
        rows = self.json("nodes", "ls", *(["--network", network] if network else []))
        return next((row for row in rows if row["peer_id"] == peer_id), None)

    def await_row(
        self, other: Node | str, condition: Callable[[dict[str, Any]], bool], seconds: float
    ) -> None:
        """Follow ``nodes --watch`` until the row of ``other`` fulfils the condition."""
        peer_id = other if isinstance(other, str) else other.peer_id

        def fits(rows: list[dict[str, Any]]) -> bool:
            return any(row["peer_id"] == peer_id and condition(row) for row in rows)

        self.watch(["nodes", "ls", "--watch", "--json"], fits, seconds)

    def watch(self, arguments: list[str], condition: Callable[[Any], bool], seconds: float) -> Any:
        """The first document of a ``--watch --json`` that fulfils the condition."""
        process = subprocess.Popen(
            self.hivectl(*arguments),
            env=self.env,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            stdin=subprocess.DEVNULL,
        )
        assert process.stdout is not None
        lines: queue.Queue[str] = queue.Queue()

        def read() -> None:
            for line in process.stdout or ():
                lines.put(line)

        reader = threading.Thread(target=read)
        reader.start()
        deadline, last = time.monotonic() + seconds, "nothing"
        try:
            while True:
                try:
                    last = lines.get(timeout=max(0.0, deadline - time.monotonic()))
                except queue.Empty:
                    raise AssertionError(f"not within {seconds} s; last: {last}\n{self.tail()}") from None
                document = json.loads(last)
                if condition(document):
                    return document
        finally:
            process.kill()
            process.wait()
            reader.join()
            process.stdout.close()
            assert process.stderr is not None
            process.stderr.close()

    def close(self) -> None:
        if self.process is not None:
            if self.is_alive():
                self.process.terminate()
                with contextlib.suppress(subprocess.TimeoutExpired):
                    self.process.wait(8)
                if self.is_alive():
                    self.kill()
            if self._reader is not None:
                self._reader.join()
            if self.process.stderr is not None:
                self.process.stderr.close()


# Of those given last, some are of nodes that are down, or not up yet.
_given: deque[int] = deque(maxlen=500)


def free_port() -> int:
    """A TCP port that nobody listens on, and that stays ours while a node of ours is down.

    Below the range that the kernel gives to outgoing connections, and each test process has its own part.
    """
    worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0")[2:]) % 8
    for port in random.Random().sample(range(16000 + worker * 2000, 18000 + worker * 2000), 2000):
        if port not in _given:
            with contextlib.suppress(OSError), socket.create_server(("127.0.0.1", port)):
                _given.append(port)
                return port
    raise AssertionError("no free port")


def connected(row: dict[str, Any]) -> bool:
    return bool(row["path"] == "direct")


def join(network: str, *nodes: Node) -> None:
    """Put nodes into one network: all register with the first, and all are connected when this returns."""
    for node in nodes:
        node.create(network)
    for node in nodes[1:]:
        node.register(nodes[0], network)
    for node in nodes:
        for other in nodes:
            if other is not node:
                node.await_row(other, connected, WAIT_SECONDS)


def proxy(client: Node, server: Node, target_port: int, network: str | None = None) -> int:
    """An egress on ``client`` that leads to ``target_port`` beside ``server``; the port to connect to."""
    port, more = free_port(), ["--network", network] if network else []
    server.ctl("proxy", "add", "ingress", f"{client.peer_id}:{port}", str(target_port), *more)
    client.ctl(
        "proxy", "add", "egress", str(port), f"{server.peer_id}:{target_port}", "--bind", "127.0.0.1", *more
    )
    return port


@contextlib.contextmanager
def cluster(directory: Path, *names: str) -> Iterator[list[Node]]:
    """Started nodes, stopped in the end."""
    nodes = [Node(directory, name) for name in names]
    try:
        for node in nodes:
            node.start(wait=False)
        for node in nodes:
            node.ready()
        yield nodes
    finally:
        for node in nodes:
            node.close()

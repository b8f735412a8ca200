"""A hived that starts anew refuses nobody: its listeners wait in systemd meanwhile."""

from __future__ import annotations

import contextlib
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from tests.netns.namespace import Namespace
from tests.system.hive import STRANGER, join, started
from tests.system.machine import Machine
from tests.system.rack import Rack

pytestmark = pytest.mark.requires("machines")
NODE_PORT, EGRESS_PORT = 4483, 8084
# Longer than any start takes: who waits is not refused.
PATIENCE_SECONDS = 60.0


class Caller:
    """Somebody who connects to a port again and again, without a pause."""

    def __init__(self, namespace: Namespace, address: str, port: int) -> None:
        self._namespace, self._to = namespace, (address, port)
        self._made = threading.Condition()
        self._ended = False
        self.outcomes: Counter[str] = Counter()
        self.longest = 0.0

    def call(self) -> None:
        while not self._ended:
            began, outcome = time.monotonic(), "connected"
            with self._namespace.socket() as client:
                client.settimeout(PATIENCE_SECONDS)
                try:
                    client.connect(self._to)
                except ConnectionResetError:
                    # Accepted and let go at once: the proxy leads to nobody, and a node that hears nothing
                    # but such calls from an address takes only so many of them.
                    outcome = "connected"
                except OSError as error:
                    outcome = str(error)
            with self._made:
                self.longest = max(self.longest, time.monotonic() - began)
                self.outcomes[outcome] += 1
                self._made.notify_all()

    def await_more(self, count: int = 20) -> None:
        """Return when so many more calls have ended, however."""
        with self._made:
            wanted = self.outcomes.total() + count
            assert self._made.wait_for(lambda: self.outcomes.total() >= wanted, PATIENCE_SECONDS * 2)

    def end(self) -> None:
        self._ended = True


@pytest.fixture(scope="module")
def machine(rack: Rack, layers: Sequence[Path]) -> Machine:
    made = started(rack, "home", layers)
    join(made)
    made.run(f"hivectl proxy add egress {EGRESS_PORT} {STRANGER}:1984")
    return made


@pytest.fixture(scope="module")
def elsewhere(rack: Rack) -> Namespace:
    return rack.plug("elsewhere")[0]


@contextlib.contextmanager
def calling(namespace: Namespace, machine: Machine) -> Iterator[list[Caller]]:
    callers = [Caller(namespace, machine.address, port) for port in (NODE_PORT, EGRESS_PORT)]
    tasks = [threading.Thread(target=caller.call) for caller in callers]
    for task in tasks:
        task.start()
    try:
        yield callers
    finally:
        for caller in callers:
            caller.end()
        for task in tasks:
            task.join()


def kill(machine: Machine) -> None:
    after = machine.cursor()
    machine.run("systemctl kill -s KILL hived")
    machine.await_line("hived", "Started hived.service", 60, after)


WAYS: dict[str, Callable[[Machine], object]] = {
    "restart": lambda machine: machine.run("systemctl restart hived"),
    "kill -9": kill,
}


@pytest.mark.parametrize("how", WAYS)
def test_nobody_is_refused(machine: Machine, elsewhere: Namespace, how: str) -> None:
    (before,) = machine.show("hived", "MainPID")
    with calling(elsewhere, machine) as callers:
        for caller in callers:
            caller.await_more()
        WAYS[how](machine)
        for caller in callers:
            caller.await_more()
    assert machine.show("hived", "MainPID") != [before]
    for caller in callers:
        assert set(caller.outcomes) == {"connected"}, caller.outcomes


def test_a_stop_refuses(machine: Machine, elsewhere: Namespace) -> None:
    """What is stopped is not kept open: nobody would answer."""
    machine.run("systemctl stop hived hived.socket")
    for port in (NODE_PORT, EGRESS_PORT):
        with elsewhere.socket() as client, pytest.raises(ConnectionRefusedError):
            client.connect((machine.address, port))
    machine.run("systemctl start hived")
    for port in (NODE_PORT, EGRESS_PORT):
        with elsewhere.socket() as client:
            client.settimeout(PATIENCE_SECONDS)
            # Accepted it is; where the proxy leads there is nobody.
            with contextlib.suppress(ConnectionResetError):
                client.connect((machine.address, port))


def test_a_removed_proxy_is_not_kept(machine: Machine, elsewhere: Namespace) -> None:
    machine.run("hivectl proxy add egress 8090 " + STRANGER + ":1984")
    row = next(line for line in machine.run("hivectl proxy").out.splitlines() if "8090" in line)
    machine.run(f"hivectl proxy rm {row.split()[0]}")
    for again in (lambda: None, lambda: machine.run("systemctl restart hived")):
        again()
        with elsewhere.socket() as client, pytest.raises(ConnectionRefusedError):
            client.connect((machine.address, 8090))

"""The parties of the join benchmark, each a process: ``python -m bench.joinparties NAME ARGUMENTS``.

A party prints "ready" when it has imported, connected and prepared all that is no part of the
measurement, begins at a line on stdin, and ends with its result as JSON. A flood goes on until stdin ends.
"""

from __future__ import annotations

import gc
import json
import logging
import os
import random
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

import msgspec
import trio

from bench.strangers import counts, sources, try_once, wrong_share
from hived.overlay.addresses import parse
from hived.overlay.connection import STREAM_ERRORS, DialError
from hived.overlay.identity import Identity
from hived.overlay.membership import JoinDelayedError, JoinRefusedError
from hived.overlay.networkkeys import network_id
from hived.overlay.records import sign
from tests.integration.nodes import PASSWORD
from tests.integration.peer import Door, key_of, peer, push

NETWORK = "bench"
MESSAGE_BYTES = 64
PACE_SECONDS = 0.005
RECORDS_SOURCE = "127.0.0.9"
BATCH = 50
# What shares the cores with the nodes gives way to them: in earnest it would be on other machines.
NICENESS = 5


def begin() -> None:
    """Say that all is ready, and wait for the start; CPU counts from there."""
    # What is here stays: no pause to look through it again.
    gc.collect()
    gc.freeze()
    print("ready", flush=True)
    sys.stdin.readline()
    print(json.dumps({"cpu_s": time.process_time()}), flush=True)


def echo(port: str, seconds: str) -> dict[str, Any]:
    """Round trips in seconds: 64 bytes go out when the last are back, and at least 5 ms after those did."""
    found: list[float] = []
    with socket.create_connection(("127.0.0.1", int(port)), 5) as client:
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        begin()
        end = time.monotonic() + float(seconds)
        while (began := time.monotonic()) < end:
            client.sendall(b"x" * MESSAGE_BYTES)
            left = MESSAGE_BYTES
            while left:
                part = client.recv(left)
                if not part:
                    raise EOFError("the proxied connection ended")
                left -= len(part)
            found.append(time.monotonic() - began)
            time.sleep(max(0.0, began + PACE_SECONDS - time.monotonic()))
    return {"latencies": found}


def flood(address: str, kind: str, rate: str) -> dict[str, Any]:
    """Strangers at a rate from the addresses of a kind: how many there were, and how far they came."""
    end = parse(address)
    share, places, fares = wrong_share(), sources(kind), list[str]()
    begun, slowest, began = 0, 0.0, 0.0

    async def stranger() -> None:
        # Some name a network that does not exist.
        network = network_id(NETWORK) if random.random() < 0.8 else random.randbytes(32)
        fares.append(await try_once((end.host, end.port), random.choice(places), network, share))

    async def strangers() -> None:
        nonlocal begun, slowest, began
        async with trio.open_nursery() as nursery:

            async def until_told() -> None:
                await trio.to_thread.run_sync(sys.stdin.read, abandon_on_cancel=True)
                nursery.cancel_scope.cancel()

            nursery.start_soon(until_told)
            began = trio.current_time()
            while True:
                due = began + begun / float(rate)
                await trio.sleep_until(due)
                slowest = max(slowest, trio.current_time() - due)
                begun += 1
                nursery.start_soon(stranger)

    os.nice(NICENESS)
    begin()
    start = time.monotonic()
    trio.run(strangers)
    took = time.monotonic() - start
    return {
        "tried": begun,
        "seconds": took,
        "a_second": begun / took,
        "late_most_s": slowest,
        **counts(fares),
    }


def records(address: str, peer_id: str, label: str, number: str, seconds: str) -> dict[str, Any]:
    """A member that makes authors known, spread over the time; how many it sent that were not turned away."""

    async def scene() -> dict[str, Any]:
        sent = 0
        async with peer(seed=b"r" * 32) as member:
            base = member.record(NETWORK, "teller")
            envelopes = []
            for count in range(int(number)):
                author = Identity.from_seed(os.urandom(32))
                record = msgspec.structs.replace(base, peer_id=author.peer_id, name=f"{label}-{count}")
                envelopes.append(sign(record, author.key_pair).envelope)
            connection = await member.join(Door(address, peer_id), NETWORK, RECORDS_SOURCE)
            await push(connection, NETWORK, [member.sign(base).envelope])
            await trio.to_thread.run_sync(begin)
            start = trio.current_time()
            for at in range(0, len(envelopes), BATCH):
                await trio.sleep_until(start + float(seconds) * at / len(envelopes))
                part = envelopes[at : at + BATCH]
                sent += len(part) * await push(connection, NETWORK, part)
        return {"sent": sent}

    os.nice(NICENESS)
    return trio.run(scene)


def newcomer(address: str, peer_id: str, source: str, after: str, seconds: str) -> dict[str, Any]:
    """How long a new member takes to get in, trying again as hived's dialer does; None: not in time."""

    async def scene() -> dict[str, Any]:
        key_of(NETWORK, PASSWORD)
        async with peer() as member:
            await trio.to_thread.run_sync(begin)
            await trio.sleep(float(after))
            began, pause, tries = trio.current_time(), 0.25, 0
            with trio.move_on_after(float(seconds)):
                while True:
                    tries += 1
                    try:
                        await member.join(Door(address, peer_id), NETWORK, source)
                    except JoinDelayedError as error:
                        pause = max(pause, error.seconds)
                    except (JoinRefusedError, DialError, OSError, *STREAM_ERRORS):
                        pass
                    else:
                        return {"seconds": trio.current_time() - began, "tries": tries}
                    await trio.sleep(pause * random.uniform(0.5, 1.0))
                    pause = min(pause * 2, 5.0)
        return {"seconds": None, "tries": tries}

    return trio.run(scene)


PARTIES: dict[str, Callable[..., dict[str, Any]]] = {
    "echo": echo,
    "flood": flood,
    "records": records,
    "newcomer": newcomer,
}


class Party:
    """A party seen from the benchmark: made, ``begin``, ``result``. RuntimeError when it fails."""

    def __init__(self, name: str, *arguments: object) -> None:
        command = [sys.executable, "-m", "bench.joinparties", name, *map(str, arguments)]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self._out: list[str] = []
        self._ready = threading.Event()
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self._out.append(line)
            self._ready.set()
        self._ready.set()

    def ready(self) -> None:
        """Returns when it is ready to begin."""
        self._ready.wait()
        if not self._out:
            self.result()

    def begin(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write("go\n")
        self._process.stdin.flush()

    def result(self) -> dict[str, Any]:
        """End it where it goes on until told, and wait for what it found; ``cpu_s``: CPU since it began."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        if not self._process.stdin.closed:
            self._process.stdin.close()
        self._reader.join()
        self._process.stdout.close()
        if self._process.wait() != 0:
            raise RuntimeError(f"{self._process.args!r} failed")
        before, found = json.loads(self._out[1]), json.loads(self._out[-1])
        return {**found, "cpu_s": found["cpu_s"] - before["cpu_s"]}

    def kill(self) -> None:
        """End it, whatever it does."""
        if self._process.poll() is None:
            self._process.kill()
        self._reader.join()


def main() -> None:
    name, *arguments = sys.argv[1:]
    # Being turned away is what most of them are here for.
    logging.disable(logging.CRITICAL)
    found = PARTIES[name](*arguments)
    print(json.dumps({**found, "cpu_s": time.process_time()}))


if __name__ == "__main__":
    main()

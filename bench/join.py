"""A flood of strangers against a member that works: what an echo through its proxy, and joins, notice of it.

    python -m bench.join [--rounds N] [--seconds N] [--out DIR]

Two real hived processes forward a 64-byte echo. Phases alternate in one run: idle; and, while a member
makes 1,000 records known to the attacked node, 200 strangers a second that connect and try a
password, from many addresses, or all from the address of the members. In each flood a
new member joins, from an address of its own and from the flood's. Every party is a process of its own.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec
import trio

from hived.overlay.addresses import parse
from hived.overlay.host import STREAM_ERRORS, DialError
from hived.overlay.identity import Identity
from hived.overlay.joinhandshake import JOIN, Binding, JoinHandshake
from hived.overlay.membership import Answer, Hello, JoinDelayedError, JoinRefusedError
from hived.overlay.networkkeys import network_id
from hived.overlay.records import sign
from hived.overlay.wire import receive, send
from hived.transport.muxer import Muxer
from hived.transport.secure import HandshakeError, RawPipe, Upgrader, select
from tests.integration.nodes import Node, cluster, join, proxy
from tests.integration.peer import Door, peer, push
from tests.integration.services import echo, service

NETWORK = "bench"
MESSAGE = 64
RATE = 200
RECORDS = 1000
PACE = 0.005
FLOODS = ("many", "members")
GONE = (*STREAM_ERRORS, HandshakeError, DialError, OSError)


# The parties, each a process: ``python -m bench.join --party NAME ARGUMENTS``


def party_echo(port: str, seconds: str) -> list[float]:
    """Round trips of a 64-byte echo in seconds, one every 5 ms at most."""
    found: list[float] = []
    with socket.create_connection(("127.0.0.1", int(port)), 5) as client:
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        end = time.monotonic() + float(seconds)
        while (began := time.monotonic()) < end:
            client.sendall(b"x" * MESSAGE)
            left = MESSAGE
            while left:
                left -= len(client.recv(left))
            found.append(time.monotonic() - began)
            time.sleep(max(0.0, began + PACE - time.monotonic()))
    return found


def party_flood(address: str, peer_id: str, kind: str, seconds: str) -> dict[str, int]:
    """Strangers at a rate: how many there were, and how far they came."""
    counts = {"tried": 0, "handshakes": 0, "answers": 0, "delayed": 0}
    rng = random.Random(os.getpid())
    share = JoinHandshake(b"w" * 32, Binding(b"n" * 32, "a", "b", b"h" * 32), opener=True).share
    end = parse(address)

    async def stranger() -> None:
        source = f"127.1.{rng.randrange(256)}.{rng.randrange(1, 255)}" if kind == "many" else "127.0.0.1"
        # Some name a network that does not exist.
        wanted = network_id(NETWORK) if rng.random() < 0.8 else rng.randbytes(32)
        counts["tried"] += 1
        with trio.move_on_after(5):
            sock = trio.socket.socket()
            try:
                await sock.bind((source, 0))
                await sock.connect((end.host, end.port))
                pipe = trio.SocketStream(sock)
                secured = await Upgrader(Identity.from_seed(rng.randbytes(32)).key_pair).upgrade(
                    pipe, initiator=True, expected=peer_id
                )
                counts["handshakes"] += 1
                muxer = Muxer(secured.pipe, initiator=True)
                async with trio.open_nursery() as nursery:
                    await nursery.start(muxer.run)
                    stream = await muxer.open()
                    await select(RawPipe(stream, True), JOIN)
                    await send(stream, Hello(network=wanted, share=share))
                    answer = await receive(stream, Answer, 512)
                    counts["delayed" if answer.wait else "answers"] += 1
                    nursery.cancel_scope.cancel()
            except* GONE:
                pass
            finally:
                sock.close()

    async def flood() -> None:
        with trio.move_on_after(float(seconds)):
            async with trio.open_nursery() as nursery:
                started = trio.current_time()
                for number in range(10**9):
                    await trio.sleep_until(started + number / RATE)
                    nursery.start_soon(stranger)

    trio.run(flood)
    return counts


def party_records(address: str, peer_id: str, batch: str, seconds: str) -> int:
    """A member that makes 1,000 authors known, spread over the time; how many were taken."""

    async def scene() -> int:
        async with peer(seed=b"r" * 32) as member:
            connection = await member.join(Door(address, peer_id), NETWORK, "127.0.0.9")
            base = member.record(NETWORK, "author")
            # From now on it is a known member, with a budget of its own.
            await push(connection, NETWORK, [member.sign(base).envelope])
            taken = 0
            for part in range(0, RECORDS, 50):
                envelopes = []
                for number in range(part, part + 50):
                    author = Identity.from_seed(f"{batch}/{number}".encode().rjust(32, b"."))
                    record = msgspec.structs.replace(base, peer_id=author.peer_id, name=f"a{batch}-{number}")
                    envelopes.append(sign(record, author.key_pair).envelope)
                taken += 50 * await push(connection, NETWORK, envelopes)
                await trio.sleep(float(seconds) * 50 / RECORDS / 2)
            return taken

    return trio.run(scene)


def party_newcomer(address: str, peer_id: str, source: str, seconds: str) -> float | None:
    """Seconds until a new member is in, trying as hived's dialer does; None when it is not in time."""

    async def scene() -> float | None:
        began, pause = trio.current_time(), 0.25
        async with peer() as member:
            with trio.move_on_after(float(seconds)):
                while True:
                    try:
                        await member.join(Door(address, peer_id), NETWORK, source)
                    except JoinDelayedError as error:
                        pause = max(pause, error.seconds)
                    except (JoinRefusedError, *GONE):
                        pass
                    else:
                        return trio.current_time() - began
                    await trio.sleep(pause * random.uniform(0.5, 1.0))
                    pause = min(pause * 2, 5.0)
        return None

    return trio.run(scene)


PARTIES: dict[str, Callable[..., Any]] = {
    "echo": party_echo,
    "flood": party_flood,
    "records": party_records,
    "newcomer": party_newcomer,
}


class Party:
    """A running party; ``result`` waits for its end."""

    def __init__(self, name: str, *arguments: object) -> None:
        command = [sys.executable, "-m", "bench.join", "--party", name, *map(str, arguments)]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        self._out = ""
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        self._out = self.process.stdout.read()

    def result(self) -> Any:
        self._reader.join()
        assert self.process.stdout is not None
        self.process.stdout.close()
        if self.process.wait() != 0:
            raise RuntimeError(f"{self.process.args!r} failed")
        return json.loads(self._out)


def cpu_seconds(node: Node) -> float:
    assert node.process is not None
    fields = Path(f"/proc/{node.process.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def phase(kind: str, alpha: Node, port: int, seconds: float, batch: str) -> dict[str, Any]:
    """One phase: what the echo saw, and in a flood what its parties did."""
    door = (alpha.listen[0], alpha.peer_id)
    began, before = time.monotonic(), cpu_seconds(alpha)
    parties = {"echo": Party("echo", port, seconds)}
    if kind != "idle":
        parties["flood"] = Party("flood", *door, kind, seconds)
        parties["records"] = Party("records", *door, batch, seconds)
        at = "127.0.0.1" if kind == "members" else "127.1.7.7"
        parties["new_at_own_address"] = Party("newcomer", *door, f"127.0.2.{1 + hash(batch) % 250}", 60)
        parties["new_at_the_floods"] = Party("newcomer", *door, at, 60)
    results = {name: party.result() for name, party in parties.items()}
    took = time.monotonic() - began
    latencies = sorted(results.pop("echo"))
    return {
        "kind": kind,
        "echoes": len(latencies),
        "p50_ms": latencies[len(latencies) // 2] * 1000,
        "p99_ms": latencies[int(len(latencies) * 0.99)] * 1000,
        "max_ms": latencies[-1] * 1000,
        "cpu_share": (cpu_seconds(alpha) - before) / took,
        **results,
    }


@contextmanager
def forwarding(directory: Path) -> Iterator[tuple[Node, Node, int]]:
    """Alpha and beta, and the port of alpha behind which beta's echo answers."""
    with service(echo) as target, cluster(directory, "alpha", "beta") as (alpha, beta):
        join(NETWORK, alpha, beta)
        yield alpha, beta, proxy(alpha, beta, target.port)


def run(rounds: int, seconds: float) -> list[dict[str, Any]]:
    """All phases, in turns."""
    phases: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as directory, forwarding(Path(directory)) as (alpha, _, port):
        phase("idle", alpha, port, 2, "warm")
        Party("records", alpha.listen[0], alpha.peer_id, "warm", 1).result()
        for number in range(rounds):
            for kind in ("idle", *FLOODS):
                found = phase(kind, alpha, port, seconds, f"{number}{kind}")
                print(json.dumps(found), file=sys.stderr, flush=True)
                phases.append(found)
    return phases


def summary(phases: list[dict[str, Any]]) -> dict[str, Any]:
    """Medians over the rounds, and their ratios to idle."""
    found: dict[str, Any] = {}
    for kind in ("idle", *FLOODS):
        of_kind = [p for p in phases if p["kind"] == kind]
        found[kind] = {
            key: statistics.median(p[key] for p in of_kind) for key in ("p50_ms", "p99_ms", "cpu_share")
        }
        found[kind]["p99_spread_ms"] = [min(p["p99_ms"] for p in of_kind), max(p["p99_ms"] for p in of_kind)]
    for kind in FLOODS:
        of_kind = [p for p in phases if p["kind"] == kind]
        found[kind]["p50_ratio"] = found[kind]["p50_ms"] / found["idle"]["p50_ms"]
        found[kind]["p99_ratio"] = found[kind]["p99_ms"] / found["idle"]["p99_ms"]
        for key in ("tried", "handshakes", "answers", "delayed"):
            found[kind][key] = statistics.median(p["flood"][key] for p in of_kind)
        found[kind]["records"] = statistics.median(p["records"] for p in of_kind)
        for key in ("new_at_own_address", "new_at_the_floods"):
            found[kind][key] = [p[key] for p in of_kind]
    return found


def table(found: dict[str, Any], rounds: int, seconds: float) -> str:
    """The summary in Markdown."""
    rows = [
        "# A flood of strangers against a working member",
        "",
        f"`make bench-join` ({rounds} rounds of {seconds:g} s a phase, in turns; medians over the rounds).",
        "Method: the docstring of bench/join.py.",
        "",
        "| phase | echo p50 ms | echo p99 ms (least to most) | p99 / idle | hived's share of a core |",
        "|---|---|---|---|---|",
    ]
    names = {"idle": "idle", "many": "200/s, many addresses", "members": "200/s, the members' address"}
    for kind, name in names.items():
        of = found[kind]
        low, high = of["p99_spread_ms"]
        ratio = f"{of['p99_ratio']:.2f}" if "p99_ratio" in of else "1"
        rows.append(
            f"| {name} | {of['p50_ms']:.2f} | {of['p99_ms']:.2f} ({low:.2f} to {high:.2f}) | {ratio}"
            f" | {of['cpu_share']:.2f} |"
        )
    rows += [
        "",
        "| flood | tried | handshakes | password tries answered | told to wait | records taken of 1,000"
        " | new member in, s: own address | the flood's address |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for kind in FLOODS:
        of = found[kind]
        times = [
            ", ".join("not in 60" if t is None else f"{t:.1f}" for t in of[key])
            for key in ("new_at_own_address", "new_at_the_floods")
        ]
        rows.append(
            f"| {names[kind]} | {of['tried']:.0f} | {of['handshakes']:.0f} | {of['answers']:.0f}"
            f" | {of['delayed']:.0f} | {of['records']:.0f} | {times[0]} | {times[1]} |"
        )
    return "\n".join([*rows, ""])


def chart(phases: list[dict[str, Any]], path: Path) -> None:
    """p50 and p99 of each phase, in the order they ran."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(8, 3.5))
    colours = {"idle": "#4a7fb5", "many": "#c8553d", "members": "#e0a030"}
    for kind, colour in colours.items():
        at = [i for i, p in enumerate(phases) if p["kind"] == kind]
        axes.bar(at, [phases[i]["p99_ms"] for i in at], color=colour, alpha=0.5, label=f"{kind}: p99")
        axes.bar(at, [phases[i]["p50_ms"] for i in at], color=colour)
    axes.set_xlabel("phase, in the order they ran (dark: p50)")
    axes.set_ylabel("64-byte echo, ms")
    axes.legend(frameon=False)
    figure.tight_layout()
    figure.savefig(path, dpi=110)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--party", nargs="+")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=10)
    parser.add_argument("--out", type=Path)
    settings = parser.parse_args()
    if settings.party:
        name, *arguments = settings.party
        if name != "echo":
            # They stand for other machines: they get what the nodes and the echo leave of this one.
            os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
        print(json.dumps(PARTIES[name](*arguments)))
        return
    phases = run(settings.rounds, settings.seconds)
    found = summary(phases)
    text = table(found, settings.rounds, settings.seconds)
    print(text)
    if settings.out:
        settings.out.mkdir(parents=True, exist_ok=True)
        document = json.dumps({"summary": found, "phases": phases}, indent=1)
        (settings.out / "join.json").write_text(document + "\n")
        (settings.out / "join.md").write_text(text)
        chart(phases, settings.out / "join.png")


if __name__ == "__main__":
    main()

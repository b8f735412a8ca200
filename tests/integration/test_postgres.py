"""PostgreSQL from Debian's package through a proxy pair, used with psql."""

from __future__ import annotations

import hashlib
import random
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.integration.nodes import Node
from tests.integration.postgres import postgres
from tests.integration.tunnels import tunnel
from tests.needs import program

pytestmark = pytest.mark.requires("postgres")

BYTES = 50 * 1024 * 1024
IDLE_SECONDS = 5


@dataclass
class Psql:
    """psql against one host and port; the host may be a socket's directory."""

    host: str
    port: int
    directory: Path

    def command(self, *arguments: str) -> list[str]:
        where = ["--host", self.host, "--port", str(self.port), "--username", "hive", "--dbname", "postgres"]
        quiet = ["--no-psqlrc", "--no-password", "--quiet", "--tuples-only", "--no-align"]
        psql = program("psql")
        assert psql is not None
        return [psql, *where, *quiet, "--set", "ON_ERROR_STOP=1", *arguments]

    def run(self, statement: str) -> str:
        done = subprocess.run(
            self.command("--command", statement),
            capture_output=True,
            text=True,
            cwd=self.directory,
            timeout=100,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()


class Session:
    """An open psql that is typed into, a statement at a time."""

    def __init__(self, psql: Psql) -> None:
        self.process = subprocess.Popen(
            psql.command(),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            bufsize=1,
        )

    def __enter__(self) -> Session:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.communicate()

    def send(self, statement: str) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(f"{statement}\n")

    def read(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def ask(self, statement: str) -> str:
        self.send(statement)
        return self.read()


@pytest.fixture(scope="module")
def direct() -> Iterator[Psql]:
    """psql over the server's socket, past any proxy."""
    with postgres() as server:
        yield Psql(str(server.home), server.port, server.home)


@pytest.fixture(scope="module")
def through(
    pair: tuple[Node, Node], direct: Psql, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Psql]:
    """psql at alpha's port; the server is beside beta."""
    with tunnel(*pair, direct.port) as made:
        yield Psql("127.0.0.1", made.port, tmp_path_factory.mktemp("psql"))


def test_a_query(through: Psql, direct: Psql) -> None:
    """psql talks to the server behind the proxy, not to another one."""
    assert through.run("select 6 * 7") == "42"
    started = "select extract(epoch from pg_postmaster_start_time())"
    assert through.run(started) == direct.run(started)


def test_copy_in_both_directions(through: Psql, direct: Psql) -> None:
    """50 MB in and out by COPY: the sums are equal after each direction, not only after both."""
    rng, lines = random.Random(50), through.directory / "in.tsv"
    with lines.open("w") as file:
        size = number = 0
        while size < BYTES:
            line = f"{number}\t{rng.randbytes(500).hex()}\n"
            size += file.write(line)
            number += 1
    wanted = _sum(lines)
    through.run("create table copied (number int, text text)")
    through.run("\\copy copied from 'in.tsv'")
    direct.run("\\copy (select * from copied order by number) to 'server.tsv'")
    assert _sum(direct.directory / "server.tsv") == wanted
    through.run("\\copy (select * from copied order by number) to 'out.tsv'")
    assert _sum(through.directory / "out.tsv") == wanted


def _sum(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_two_sessions_at_once(through: Psql) -> None:
    """A lock of one session holds the other up until it commits: both are open at the same time."""
    through.run("create table account (balance int); insert into account values (100)")
    with Session(through) as one, Session(through) as other:
        assert one.ask("begin; update account set balance = balance - 30 returning balance;") == "70"
        pid = other.ask("select pg_backend_pid();")
        other.send("update account set balance = balance - 50 returning balance;")
        waits = f"select wait_event_type from pg_stat_activity where pid = {pid}"
        while one.ask(f"{waits};") != "Lock":
            one.send("select pg_stat_clear_snapshot();")
            one.read()
        one.send("commit;")
        assert other.read() == "20"


def test_an_idle_session_goes_on(through: Psql) -> None:
    """A session that is silent for seconds still works, and hears what others notify meanwhile."""
    with Session(through) as idle, Session(through) as busy:
        assert idle.ask("listen hive; select 'listening';") == "listening"
        assert busy.ask(f"select pg_sleep({IDLE_SECONDS}); select 'slept';") == ""
        assert busy.read() == "slept"
        assert busy.ask("notify hive, 'wake up'; select 'notified';") == "notified"
        assert idle.ask("select 'awake';") == "awake"
        assert 'Asynchronous notification "hive" with payload "wake up"' in idle.read()

"""PostgreSQL from Debian's package through a proxy pair, used with psql."""

from __future__ import annotations

import hashlib
import os
import pwd
import random
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.integration.nodes import Node, free_port
from tests.integration.tunnels import tunnel
from tests.needs import postgres_bin, program

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


def _user() -> str | None:
    """Who runs the server; None for whoever we are. Root may not."""
    if os.geteuid() != 0:
        return None
    # Debian's package makes this user; where PostgreSQL came another way, any user will do.
    return "postgres" if any(entry.pw_name == "postgres" for entry in pwd.getpwall()) else "nobody"


@pytest.fixture(scope="module")
def direct() -> Iterator[Psql]:
    """A PostgreSQL server on a free port of loopback; psql over its socket, past any proxy."""
    bin_directory = postgres_bin()
    assert bin_directory is not None
    # Not tmp_path: that is root's alone, and a socket's path holds 107 bytes at most.
    home = Path(tempfile.mkdtemp(prefix="hive-pg-"))
    user = _user()
    owner: list[str] = []
    if user:
        shutil.chown(home, user)
        setpriv = program("setpriv")
        assert setpriv is not None, "setpriv is part of util-linux, which Debian always has"
        group = pwd.getpwnam(user).pw_gid
        owner = [setpriv, f"--reuid={user}", f"--regid={group}", "--clear-groups", "--"]
    data, port = home / "data", free_port()
    options = {
        "listen_addresses": "127.0.0.1",
        "port": port,
        "unix_socket_directories": home,
        "fsync": "off",
        "max_wal_size": "1GB",
    }
    try:
        initdb = [*owner, str(bin_directory / "initdb"), "--pgdata", str(data), "--username", "hive"]
        subprocess.run(
            [*initdb, "--auth", "trust", "--no-sync", "--encoding", "UTF8", "--locale", "C"],
            check=True,
            capture_output=True,
            cwd=home,
        )
        # --wait: pg_ctl returns when the server takes connections.
        control = [*owner, str(bin_directory / "pg_ctl"), "--pgdata", str(data), "--wait", "--silent"]
        settings = " ".join(f"-c {name}={value}" for name, value in options.items())
        started = subprocess.run(
            [*control, "--log", str(home / "log"), "--options", settings, "start"], cwd=home, check=False
        )
        assert started.returncode == 0, (home / "log").read_text()
        try:
            yield Psql(str(home), port, home)
        finally:
            subprocess.run([*control, "--mode", "immediate", "stop"], check=True, cwd=home)
    finally:
        shutil.rmtree(home)


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

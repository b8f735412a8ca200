"""A PostgreSQL server of a test's own, from Debian's package."""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.integration.nodes import free_port
from tests.needs import postgres_bin, program


@dataclass(frozen=True)
class Postgres:
    """A running server: its port on loopback, and its directory, with its socket."""

    home: Path
    port: int


def _user() -> str | None:
    """Who runs the server; None for whoever we are. Root may not."""
    if os.geteuid() != 0:
        return None
    # Debian's package makes this user; where PostgreSQL came another way, any user will do.
    return "postgres" if any(entry.pw_name == "postgres" for entry in pwd.getpwall()) else "nobody"


@contextlib.contextmanager
def postgres(inside: Sequence[str] = ()) -> Iterator[Postgres]:
    """A server on a free port of loopback; ``inside``: what goes before its command lines."""
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
        initdb = [*inside, *owner, str(bin_directory / "initdb"), "--pgdata", str(data), "--username", "hive"]
        subprocess.run(
            [*initdb, "--auth", "trust", "--no-sync", "--encoding", "UTF8", "--locale", "C"],
            check=True,
            capture_output=True,
            cwd=home,
        )
        # --wait: pg_ctl returns when the server takes connections.
        control = [
            *inside,
            *owner,
            str(bin_directory / "pg_ctl"),
            "--pgdata",
            str(data),
            "--wait",
            "--silent",
        ]
        settings = " ".join(f"-c {name}={value}" for name, value in options.items())
        started = subprocess.run(
            [*control, "--log", str(home / "log"), "--options", settings, "start"], cwd=home, check=False
        )
        assert started.returncode == 0, (home / "log").read_text()
        try:
            yield Postgres(home, port)
        finally:
            subprocess.run([*control, "--mode", "immediate", "stop"], check=True, cwd=home)
    finally:
        shutil.rmtree(home)

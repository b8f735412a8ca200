"""OpenSSH through a proxy pair: a stock sshd, a stock ssh."""

from __future__ import annotations

import contextlib
import getpass
import hashlib
import os
import random
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.nodes import LogReader, Node, free_port
from tests.integration.tunnels import tunnel
from tests.needs import program

pytestmark = pytest.mark.requires("ssh", "sshd", "login shell")

BYTES = 20 * 1024 * 1024
# sshd refuses to start as root without it; Debian makes it with the service, which need not run here.
PRIVILEGE_SEPARATION = Path("/run/sshd")
CONFIG = """
ListenAddress 127.0.0.1:{port}
HostKey {home}/host
AuthorizedKeysFile {home}/user.pub
PidFile none
StrictModes no
UsePAM no
PermitRootLogin yes
PasswordAuthentication no
"""


@pytest.fixture(scope="module")
def sshd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[int, Path]]:
    """sshd on a free port of loopback; its port, and the directory with the keys."""
    home = tmp_path_factory.mktemp("ssh")
    for name in ("host", "user"):
        subprocess.run(
            ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", name, "-f", home / name], check=True
        )
    port, path = free_port(), program("sshd")
    assert path is not None
    (home / "config").write_text(CONFIG.format(port=port, home=home))
    made = os.geteuid() == 0 and not PRIVILEGE_SEPARATION.exists()
    if made:
        PRIVILEGE_SEPARATION.mkdir(mode=0o755)
    log = LogReader(home / "log")
    process = subprocess.Popen(
        [path, "-D", "-e", "-f", home / "config"], stderr=subprocess.PIPE, stdin=subprocess.DEVNULL, text=True
    )
    reader = log.follow(process)
    try:
        log.wait_for(f"port {port}", 10, alive=lambda: process.poll() is None)
        yield port, home
    finally:
        process.terminate()
        process.wait()
        # Its children, which have the same stderr, end with their connections.
        reader.join()
        assert process.stderr is not None
        process.stderr.close()
        if made:
            # Not empty, or gone with somebody else's sshd: leave it.
            with contextlib.suppress(OSError):
                PRIVILEGE_SEPARATION.rmdir()


@pytest.fixture(scope="module")
def ssh(pair: tuple[Node, Node], sshd: tuple[int, Path]) -> Iterator[list[str]]:
    """The ssh command that leads through alpha to the sshd beside beta, and trusts only its host key."""
    port, home = sshd
    with tunnel(*pair, port) as made:
        host_key = (home / "host.pub").read_text()
        (home / "known").write_text(f"[127.0.0.1]:{made.port} {host_key}")
        options = [f"UserKnownHostsFile={home / 'known'}", "StrictHostKeyChecking=yes", "BatchMode=yes"]
        options += ["IdentitiesOnly=yes", "IdentityAgent=none"]
        more = [item for option in options for item in ("-o", option)]
        yield [
            *("ssh", "-F", "none", "-i", str(home / "user"), "-p", str(made.port), *more),
            f"{getpass.getuser()}@127.0.0.1",
        ]


def run(command: list[str], stdin: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(command, input=stdin, capture_output=True, timeout=60, check=False)


def test_a_command(ssh: list[str]) -> None:
    """Output, error output and exit code come back, of the sshd behind the proxy."""
    done = run([*ssh, "echo to stdout; echo to stderr >&2; exit 7"])
    assert (done.stdout, done.stderr, done.returncode) == (b"to stdout\n", b"to stderr\n", 7)


def test_up(ssh: list[str]) -> None:
    """20 MB in; sha256sum ends because its input does: the end of input goes through."""
    blob = random.Random(20).randbytes(BYTES)
    done = run([*ssh, "sha256sum"], stdin=blob)
    assert done.stdout.split()[:1] == [hashlib.sha256(blob).hexdigest().encode()], done.stderr


def test_down(ssh: list[str], tmp_path: Path) -> None:
    """20 MB out."""
    blob = random.Random(21).randbytes(BYTES)
    (tmp_path / "blob").write_bytes(blob)
    done = run([*ssh, f"cat '{tmp_path / 'blob'}'"])
    assert hashlib.sha256(done.stdout).digest() == hashlib.sha256(blob).digest(), done.stderr


def test_input_ends_before_output(ssh: list[str]) -> None:
    """After the end of its input the far command still answers."""
    done = run([*ssh, "cat; echo and more"], stdin=b"all of it\n")
    assert (done.stdout, done.returncode) == (b"all of it\nand more\n", 0), done.stderr

"""hived on the system's paths, as root, in a mount namespace of its own; and on a user's XDG paths."""

from __future__ import annotations

import os
import stat
import subprocess
from pathlib import Path

import pytest

from tests.integration.nodes import BIN, LogReader, environment

SCRIPT = """
set -eu
for place in /etc /var/lib /run; do mount -t tmpfs tmpfs $place; done
cp "$1/passwd" "$1/group" /etc/
mkdir /etc/hive
cat >/etc/hive/hived.toml <<END
name = "boxed"
listen = ["/ip4/127.0.0.1/tcp/0"]
admin = ["root-admin:from-toml-password"]
END
hived 2>"$1/log" &
trap 'kill $! 2>/dev/null; wait $!' EXIT
until hivectl status >/dev/null 2>&1; do kill -0 $!; sleep 0.2; done
hivectl status --json
stat -c '%a %n' /var/lib/hive /var/lib/hive/hive.db /var/lib/hive/state.key /run/hive/control.sock
hivectl admin
"""


@pytest.mark.requires("netns")
def test_root_uses_the_system_paths(tmp_path: Path) -> None:
    """/etc/hive/hived.toml is read, state is in /var/lib/hive, the socket in /run/hive, hivectl finds it."""
    for name in ("passwd", "group"):
        (tmp_path / name).write_bytes(Path("/etc", name).read_bytes())
    env = environment(tmp_path) | {"PATH": f"{BIN}:{os.environ['PATH']}"}
    done = subprocess.run(
        ["unshare", "--mount", "--net", "bash", "-c", f"ip link set lo up; {SCRIPT}", "bash", str(tmp_path)],
        env=env,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr + (tmp_path / "log").read_text()
    assert '"name":"boxed"' in done.stdout.replace(" ", "")
    found = [line.split(" ", 1) for line in done.stdout.splitlines() if line[:1].isdigit()]
    modes = {path: mode for mode, path in found}
    assert modes == {
        "/var/lib/hive": "700",
        "/var/lib/hive/hive.db": "600",
        "/var/lib/hive/state.key": "600",
        "/run/hive/control.sock": "660",
    }
    assert "root-admin" in done.stdout


@pytest.mark.root
def test_an_ordinary_user_has_the_xdg_paths(tmp_path: Path) -> None:
    """As another user: state under XDG_STATE_HOME, the socket under XDG_RUNTIME_DIR or beside the state."""
    uid = 65533
    # The checkout and its Python may lie where only root can read; that one right is kept.
    keep = "+dac_read_search"
    become = ["setpriv", f"--reuid={uid}", f"--regid={uid}", "--clear-groups", f"--inh-caps={keep}"]
    become.append(f"--ambient-caps={keep}")
    os.chmod(tmp_path, 0o755)
    for parent in tmp_path.parents:
        if parent == Path("/tmp"):
            break
        os.chmod(parent, 0o755)
    home = tmp_path / "home"
    home.mkdir(mode=0o700)
    os.chown(home, uid, uid)
    env = environment(home) | {"HIVED_LISTEN": "/ip4/127.0.0.1/tcp/0", "HIVED_NAME": "user"}
    process = subprocess.Popen(
        [*become, str(BIN / "hived")], env=env, stderr=subprocess.PIPE, text=True, cwd="/"
    )
    log = LogReader(tmp_path / "log")
    log.follow(process)
    try:
        log.wait_for("hived: ready", 30, 0, lambda: process.poll() is None)
        state = home / "state/hive"
        assert stat.S_IMODE(state.stat().st_mode) == 0o700
        assert (state / "hive.db").stat().st_uid == uid
        done = subprocess.run(
            [*become, str(BIN / "hivectl"), "status", "--json"],
            env=env,
            capture_output=True,
            text=True,
            cwd="/",
            timeout=20,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        assert '"name":"user"' in done.stdout.replace(" ", "")
    finally:
        process.terminate()
        assert process.wait(10) == 0
        if process.stderr:
            process.stderr.close()

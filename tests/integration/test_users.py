"""Who is at the local door: root and hived's own user, other users, and users that do not exist."""

from __future__ import annotations

import contextlib
import importlib
import os
import pkgutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

import hivectl.commands
from hivectl import main
from tests.integration.nodes import BIN, Node
from tests.integration.rawhttp import Answer, call

SECRET = "the-admin-password"
SOMEBODY, SOMEBODY_ELSE, THIRD, FOURTH, OVERFLOW = 65533, 65532, 65531, 65529, 65534


@contextlib.contextmanager
def as_user(uid: int) -> Iterator[None]:
    """Have the kernel tell hived this user ID: it passes on the effective one of whoever connects."""
    os.seteuid(uid)
    try:
        yield
    finally:
        os.seteuid(0)


class Reachable(Node):
    """A node whose socket every user of the machine may open."""

    @property
    def socket(self) -> Path:
        return self.directory.parent / "control.sock"


@pytest.fixture(scope="module")
def reachable() -> Iterator[Node]:
    # Not pytest's own directory: that is closed to other users.
    with tempfile.TemporaryDirectory(prefix="hive-") as name:
        directory = Path(name)
        directory.chmod(0o755)
        node = Reachable(directory, "alpha", "--socket", str(directory / "control.sock"))
        try:
            node.start()
            node.ctl("admin", "set", "admin", "--password-stdin", stdin=SECRET + "\n")
            node.socket.chmod(0o666)
            yield node
        finally:
            node.close()


def login(node: Node, uid: int, password: str = SECRET, user: str = "admin") -> Answer:
    with as_user(uid):
        return call(node.socket, "POST", "/v1/login", {"user": user, "password": password})


def get(node: Node, uid: int, path: str, token: str | None = None) -> Answer:
    with as_user(uid):
        return call(node.socket, "GET", path, token=token)


@pytest.mark.root
def test_another_user_logs_in(reachable: Node) -> None:
    """Another user gets info and id, is asked to log in for the rest, and its session is its own alone."""
    for path, status in (("/v1/info", 200), ("/v1/id", 200), ("/v1/status", 401), ("/v1/nodes", 401)):
        assert get(reachable, SOMEBODY, path).status == status
    for method, path in (
        ("PUT", "/v1/admins/mallory"),
        ("DELETE", "/v1/admins/admin"),
        ("POST", "/v1/networks"),
    ):
        with as_user(SOMEBODY):
            refused = call(reachable.socket, method, path, {"password": "x", "name": "n"})
        assert (refused.status, refused.json()["kind"]) == (401, "login-required")

    answer = login(reachable, SOMEBODY)
    assert answer.status == 200
    token = answer.json()["token"]
    assert get(reachable, SOMEBODY, "/v1/status", token).status == 200
    # Bound to the user: neither another one nor root can use it, and a made up one is nobody's.
    for uid in (SOMEBODY_ELSE, OVERFLOW, 0):
        assert get(reachable, uid, "/v1/status", token).status == 401
    assert get(reachable, SOMEBODY, "/v1/status", token[:-1] + "_").status == 401
    session = next(row for row in reachable.json("sessions") if row["bound_to"] == f"uid:{SOMEBODY}")
    assert token not in reachable.ctl("sessions", "--json").out

    # An admin may set another's password only with the old one; root needs none.
    with as_user(SOMEBODY):
        body = {"password": "new"}
        assert call(reachable.socket, "PUT", "/v1/admins/admin", body, token).status == 403
        body["old_password"] = "wrong"
        assert call(reachable.socket, "PUT", "/v1/admins/admin", body, token).status == 403
    assert login(reachable, SOMEBODY_ELSE).status == 200
    reachable.ctl("sessions", "rm", str(session["id"]))
    assert get(reachable, SOMEBODY, "/v1/status", token).status == 401


@pytest.mark.root
def test_wrong_passwords_are_delayed(reachable: Node) -> None:
    """After a wrong password even the right one has to wait; an unknown user is told the same as a known."""
    refused = login(reachable, THIRD, "wrong")
    assert (refused.status, refused.json()["detail"]) == (403, "wrong user or password")
    delayed = login(reachable, THIRD)
    assert delayed.status == 403
    assert delayed.json()["detail"] == "after a wrong password the next try has to wait"
    assert delayed.json()["hint"].startswith("Try again in 1 s")
    unknown = login(reachable, THIRD - 1, "wrong", "nobody-here")
    assert unknown.json()["detail"] in ("wrong user or password", delayed.json()["detail"])
    entry = reachable.log.wait_for(f"caller=uid:{THIRD} failures=1", 5)
    assert "next_try_in=1s" in entry
    assert SECRET not in "".join(reachable.log.lines)


@pytest.mark.root
def test_overflow_user(reachable: Node) -> None:
    """65534 is whoever the kernel cannot name: no admin, and no session for its password either."""
    assert get(reachable, OVERFLOW, "/v1/status").status == 401
    refused = login(reachable, OVERFLOW)
    assert refused.status == 403
    assert "user ID does not exist" in refused.json()["detail"]
    assert not [row for row in reachable.json("sessions") if row["bound_to"] == f"uid:{OVERFLOW}"]


@pytest.mark.root
def test_hivectl_of_another_user(
    reachable: Node, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """hivectl says what to type, logs in from a pipe, keeps the token to its user, and logs out."""
    # In this process: another user's may not be able to read the interpreter.
    for module in pkgutil.iter_modules(hivectl.commands.__path__):
        importlib.import_module(f"hivectl.commands.{module.name}")
    with tempfile.TemporaryDirectory(prefix="hive-") as name:
        os.chown(name, FOURTH, FOURTH)
        monkeypatch.setenv("XDG_STATE_HOME", name)
        monkeypatch.setenv("HIVE_SOCKET", str(reachable.socket))

        def run(*words: str) -> tuple[int, str, str]:
            with as_user(FOURTH):
                code = main.run(words)
            return code, *capsys.readouterr()

        code, out, err = run("status")
        assert (code, out) == (4, "")
        assert err.endswith("Type: hivectl login.\n")
        assert run("id", "-base64")[0] == 0
        reader, writer = os.pipe()
        os.write(writer, SECRET.encode() + b"\n")
        os.close(writer)
        with os.fdopen(reader) as stdin, monkeypatch.context() as patched:
            patched.setattr("sys.stdin", stdin)
            code, out, err = run("login", "--password-stdin")
        assert (code, err) == (0, "")
        assert "Logged in to" in out
        token = next(Path(name, "hive").glob("*.token"))
        assert token.stat().st_mode & 0o777 == 0o600
        assert token.stat().st_uid == FOURTH
        assert token.parent.stat().st_mode & 0o777 == 0o700
        assert token.read_text().strip() not in out
        assert run("status")[0] == 0
        assert run("logout")[0] == 0
        assert run("status")[0] == 4
        assert run("logout")[0] == 4


def can_log_in(node: Node, user: str, password: str) -> bool:
    with contextlib.suppress(ValueError):
        answer = call(node.socket, "POST", "/v1/login", {"user": user, "password": password})
        return answer.status == 200
    return False


def test_first_admin(tmp_path: Path) -> None:
    """From TOML, from flags (a password, or a hash), and by ``hivectl admin set``: each can log in. A later
    start with another password for a known one changes nothing, and warns."""
    file = tmp_path / "hived.toml"
    file.write_text('admin = ["from-toml:toml-secret"]\n')
    node = Node(tmp_path, "alpha", "--config", str(file))
    try:
        node.start()
        assert [row["user"] for row in node.json("admin")] == ["from-toml"]
        node.ctl("admin", "set", "by-root", "--password-stdin", stdin="root-secret\n")
        node.stop()
        hashed = hash_of("flag-secret", node)
        # (an admin list on the command line takes the place of the file's)
        others = ("-rc", "from-toml:another-secret", "-rc", "plain:plain-secret")
        node.start("-rc", f"from-flag:{hashed}", *others)
        warning = node.log.wait_for("a configured password is not the stored one", 1)
        assert "name=from-toml" in warning
        assert [row["user"] for row in node.json("admin")] == ["by-root", "from-flag", "from-toml", "plain"]
        for user, password in (
            ("from-toml", "toml-secret"),
            ("by-root", "root-secret"),
            ("from-flag", "flag-secret"),
            ("plain", "plain-secret"),
        ):
            assert can_log_in(node, user, password), user
        assert not can_log_in(node, "from-flag", hashed)
        # A removed one is logged out, and stays out.
        node.ctl("admin", "rm", "plain")
        assert {row["user"] for row in node.json("sessions")} == {"from-toml", "by-root", "from-flag"}
        assert node.ctl("admin", "rm", "plain", check=False).code == 5
        assert not can_log_in(node, "plain", "plain-secret")
        log = "".join(node.log.lines)
        assert not [secret for secret in ("another-secret", "plain-secret", hashed) if secret in log]
    finally:
        node.close()


def hash_of(password: str, node: Node) -> str:
    done = subprocess.run(
        [str(BIN / "hived"), "hash-password", "--stdin"],
        env=node.env, input=password + "\n", capture_output=True, text=True, check=True,
    )  # fmt: skip
    return done.stdout.strip()

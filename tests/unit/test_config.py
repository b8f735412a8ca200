"""The four layers of the configuration, and what is refused with one line."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hived import config
from hived.config import Config, Secret
from hived.errors import HiveError, Kind

ENVIRONMENT = {"HOME": "/home/u", "XDG_RUNTIME_DIR": "/run/user/1"}


def load(flags: dict[str, Any] | None = None, /, **environ: str) -> Config:
    return config.load(flags or {}, {**ENVIRONMENT, **environ}, root=False)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "hived.toml"


def refused(flags: dict[str, Any], kind: Kind = Kind.USAGE, **environ: str) -> str:
    with pytest.raises(HiveError) as caught:
        load(flags, **environ)
    assert caught.value.kind is kind
    return caught.value.line()


# The layers


def test_defaults_of_a_user() -> None:
    found = load()
    assert found.data_dir == Path("/home/u/.local/state/hive")
    assert found.socket == Path("/run/user/1/hive/control.sock")
    assert found.listen == config.DEFAULT_LISTEN
    assert not found.listen_named
    assert (found.log_level, found.log_format, found.config) == ("info", "text", None)
    assert found.name == config.host_name()


def test_defaults_without_a_log_in_session() -> None:
    """No runtime directory: the socket lies with the state."""
    found = config.load({}, {"HOME": "/home/u"}, root=False)
    assert found.socket == Path("/home/u/.local/state/hive/control.sock")


def test_xdg_directories(tmp_path: Path) -> None:
    (tmp_path / "hive").mkdir()
    (tmp_path / "hive/hived.toml").write_text('name = "from-xdg"')
    found = load(XDG_CONFIG_HOME=str(tmp_path), XDG_STATE_HOME="/state")
    assert (found.name, found.data_dir) == ("from-xdg", Path("/state/hive"))
    assert found.config == tmp_path / "hive/hived.toml"


def test_defaults_of_root(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(config, "SYSTEM_CONFIG", tmp_path / "none.toml")
    found = config.load({}, ENVIRONMENT, root=True)
    assert (found.data_dir, found.socket) == (Path("/var/lib/hive"), Path("/run/hive/control.sock"))


def test_precedence(file: Path) -> None:
    """Defaults < TOML < environment < flags, for a text and for a list."""
    file.write_text(
        'name = "toml"\nlog_level = "error"\nlog_format = "json"\nlisten = ["/ip4/1.1.1.1/tcp/1"]'
    )
    toml = load({"config": str(file)})
    assert (toml.name, toml.listen) == ("toml", ("/ip4/1.1.1.1/tcp/1",))
    env = {
        "HIVED_NAME": "env",
        "HIVED_LOG_LEVEL": "debug",
        "HIVED_LISTEN": "/ip4/2.2.2.2/tcp/2 /ip4/3.3.3.3/tcp/3",
    }
    both = load({"config": str(file)}, **env)
    assert (both.name, both.log_level, both.log_format) == ("env", "debug", "json")
    assert both.listen == ("/ip4/2.2.2.2/tcp/2", "/ip4/3.3.3.3/tcp/3")
    assert both.listen_named
    flags = {
        "config": str(file),
        "name": "flag",
        "listen": ("/ip4/4.4.4.4/tcp/4",),
        "log_level": None,
        "admin": (),
    }
    all_three = load(flags, **env)
    assert (all_three.name, all_three.listen) == ("flag", ("/ip4/4.4.4.4/tcp/4",))
    assert all_three.log_level == "debug"  # an absent flag does not count


def test_the_file_may_be_named_in_the_environment(file: Path) -> None:
    file.write_text('name = "there"')
    assert load(HIVED_CONFIG=str(file)).name == "there"
    assert "no such file" in refused({}, HIVED_CONFIG=str(file) + "x")


def test_data_dir_takes_state_and_socket(tmp_path: Path) -> None:
    found = load({"data_dir": str(tmp_path)})
    assert (found.data_dir, found.socket) == (tmp_path, tmp_path / "control.sock")
    assert load({"data_dir": str(tmp_path), "socket": "/tmp/s"}).socket == Path("/tmp/s")


def test_a_node_with_its_own_directory_does_not_read_the_machines_file(tmp_path: Path) -> None:
    (tmp_path / "hive").mkdir()
    (tmp_path / "hive/hived.toml").write_text('name = "machine"')
    assert load({"data_dir": "/d"}, XDG_CONFIG_HOME=str(tmp_path)).name != "machine"
    assert load(HIVED_DATA_DIR="/d", XDG_CONFIG_HOME=str(tmp_path)).name != "machine"


def test_relative_paths_become_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert load({"data_dir": "here"}).data_dir == tmp_path / "here"


# Secrets


def test_secrets_of_all_sources(tmp_path: Path, file: Path) -> None:
    (tmp_path / "networks").write_text("# mine\ntwo:b\n\nthree:c:d\n")
    (tmp_path / "network").write_text("four:e\n")
    file.write_text(f'network = "one:a"\nnetwork_file = "{tmp_path / "networks"}"')
    found = load({"config": str(file)}, CREDENTIALS_DIRECTORY=str(tmp_path))
    assert found.networks == (
        Secret("one", "a"),
        Secret("two", "b"),
        Secret("three", "c:d"),
        Secret("four", "e"),
    )


def test_the_services_credentials_can_be_checked_without_it(tmp_path: Path) -> None:
    """As hived check does: they are those of the machine's node, and of no other."""
    (tmp_path / "hived.network").write_text("one:a\n")

    def networks(root: bool, **flags: Any) -> list[str]:
        found = config.load(flags, {"HOME": str(tmp_path)}, root=root, credstore=tmp_path)
        return [secret.name for secret in found.networks]

    assert networks(root=True) == ["one"]
    assert networks(root=False) == networks(root=True, data_dir=str(tmp_path / "own")) == []
    (tmp_path / "hived.network").write_text("one\n")
    with pytest.raises(HiveError, match=r"hived\.network, line 1, failed: there is no password"):
        networks(root=True)


@pytest.fixture
def home() -> Iterator[Path]:
    """pytest's own directories are for nobody else."""
    with tempfile.TemporaryDirectory() as name:
        yield Path(name)


def test_files_with_passwords_that_everybody_can_read(home: Path) -> None:
    file, secret = home / "hived.toml", home / "networks"
    secret.write_text("two:b\n")

    def exposed(text: str) -> list[Path]:
        file.write_text(text)
        return list(load({"config": str(file)}).exposed)

    home.chmod(0o755)
    file.touch(0o644)
    secret.chmod(0o640)
    without, inline, named = 'name = "x"', 'network = "one:a"', f'network_file = "{secret}"'
    assert exposed(without) == exposed(named) == []
    assert exposed(inline) == [file]
    secret.chmod(0o644)
    assert exposed(f"{inline}\n{named}") == [file, secret]
    # Nobody gets to it.
    home.chmod(0o700)
    assert exposed(inline) == []


@pytest.mark.parametrize("text", ["", "name", "name:", ":pw", "bad name:pw", "-x:pw", "n:" + "x" * 1025])
def test_malformed_secrets(text: str) -> None:
    line = refused({"admin": (text,)})
    assert "xxx" not in line


@given(st.text())
def test_a_secret_is_read_or_refused(text: str) -> None:
    try:
        found = config.parse_secret("admin", text)
    except HiveError as error:
        if error.kind is not Kind.USAGE:
            raise
    else:
        assert f"{found.name}:{found.password}" == text


def test_a_password_shows_nowhere() -> None:
    found = load({"network": ("net:hush-hush",), "admin": ("me:hush-hush",)})
    assert "hush" not in repr(found)
    assert "hush" not in config.describe(found)
    assert "networks = net" in config.describe(found)


def test_a_missing_secret_file() -> None:
    """It may come: its disk is not mounted yet."""
    assert "/no/such/file" in refused({"admin_file": ("/no/such/file",)}, Kind.FAILED)


# What is refused


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("nonsense = 1", "nonsense"),
        ("name = 1", "not a string"),
        ("listen = 1", "not a list"),
        ("listen = [1]", "not a list"),
        ("name = ", "Invalid value"),
        ('name = "a b"', "node name"),
        ('log_level = "loud"', "loud"),
        ('log_format = "xml"', "xml"),
        ('network = ["a:b", "a:c"]', "twice"),
        ('admin = ["a:b", "a:b"]', "twice"),
        ('socket = "/' + "x" * 107 + '"', "longer than 107"),
    ],
)
def test_a_wrong_file_is_one_line(file: Path, text: str, says: str) -> None:
    file.write_text(text)
    assert says in refused({"config": str(file)})


def test_unreadable_files(tmp_path: Path, file: Path) -> None:
    file.write_bytes(b'name = "\xff"')
    refused({"config": str(file)})
    refused({"config": str(tmp_path)}, Kind.FAILED)


@given(st.binary(max_size=200))
def test_any_bytes_as_a_file(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    file = tmp_path_factory.getbasetemp() / "any.toml"
    file.write_bytes(data)
    try:
        load({"config": str(file)})
    except HiveError as error:
        if error.kind is not Kind.USAGE:
            raise


SETTINGS = st.sampled_from([*config._LISTS, *config._STRINGS, "else"])
# The environment of a process holds neither NUL nor what UTF-8 and surrogateescape cannot say.
TEXTS = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=120)


@given(st.dictionaries(SETTINGS, TEXTS))
def test_any_environment(values: dict[str, str]) -> None:
    """Settings from the environment: a Config or one line, whatever they hold."""
    environ = {f"HIVED_{key.upper()}": value for key, value in values.items()}
    try:
        found = load(**environ)
    except HiveError as error:
        # A file that is named may not be there.
        if error.kind is not Kind.USAGE and "_file" not in " ".join(values):
            raise
    else:
        assert found.data_dir.is_absolute()


@pytest.mark.parametrize("key", ["data_dir", "socket", "network_file", "admin_file"])
def test_a_nul_in_a_path(file: Path, key: str) -> None:
    """TOML can say NUL, a path cannot."""
    file.write_text(f'{key} = "/tmp/a\\u0000b"')
    refused({"config": str(file)})


def test_deep_nesting_in_a_file(file: Path) -> None:
    file.write_text("listen = " + "[" * 5000)
    refused({"config": str(file)})


# Helpers


def test_host_name_fits_the_alphabet(monkeypatch: pytest.MonkeyPatch) -> None:
    for host, name in {"box": "box", "-a b.": "a-b.", "äö": "node", "x" * 80: "x" * 63, "": "node"}.items():
        monkeypatch.setattr("socket.gethostname", lambda host=host: host)
        assert config.host_name() == name


def test_a_reload_keeps_the_places() -> None:
    old, new = load({"data_dir": "/a", "name": "x"}), load({"data_dir": "/b", "name": "y"})
    kept, ignored = config.merged(old, new)
    assert (kept.data_dir, kept.socket, kept.name) == (Path("/a"), Path("/a/control.sock"), "y")
    assert ignored == ["data_dir", "socket"]
    assert config.merged(old, old) == (old, [])


def test_real_environment_by_default(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HIVED_DATA_DIR", str(tmp_path))
    monkeypatch.setenv("HIVED_NAME", "really")
    assert config.load({}).name == "really"
    assert os.environ["HIVED_NAME"] == "really"


def test_a_service_of_the_system_has_the_systems_paths() -> None:
    """systemd gives it a state directory, and no user to be root for."""
    started = {"SYSTEMD_EXEC_PID": str(os.getpid()), "HOME": "/home/me"}
    settings = config.load({"config": None}, {**started, "STATE_DIRECTORY": "/srv/hive:/x"}, root=None)
    assert settings.data_dir == Path("/srv/hive")
    assert settings.socket == config.SYSTEM_SOCKET
    for others in ({**started, "MANAGERPID": "9"}, {**started, "SYSTEMD_EXEC_PID": "1"}):
        mine = config.load({}, {**others, "STATE_DIRECTORY": "/x"}, root=False)
        assert mine.data_dir == Path("/home/me/.local/state/hive")


@pytest.mark.parametrize(
    ("flags", "root", "log_file", "pid_file"),
    [
        ({}, True, None, None),
        ({"daemonize": "on"}, True, config.SYSTEM_LOG_FILE, config.SYSTEM_PID_FILE),
        (
            {"daemonize": "on"},
            False,
            Path("/h/.local/state/hive/hived.log"),
            Path("/h/.local/state/hive/hived.pid"),
        ),
        ({"daemonize": "on", "data_dir": "/d"}, True, Path("/d/hived.log"), Path("/d/hived.pid")),
        ({"daemonize": "on", "data_dir": "/d", "log_file": "/l"}, True, Path("/l"), Path("/d/hived.pid")),
        ({"data_dir": "/d", "log_file": "/l"}, True, Path("/l"), None),
    ],
)
def test_log_and_pid_file(
    flags: dict[str, str], root: bool, log_file: Path | None, pid_file: Path | None
) -> None:
    settings = config.load(flags, {"HOME": "/h"}, root=root)
    assert (settings.log_file, settings.pid_file) == (log_file, pid_file)


def test_in_the_background_or_not() -> None:
    with pytest.raises(HiveError, match="daemonize"):
        config.load({"daemonize": "maybe", "data_dir": "/d"}, {}, root=False)
    old = config.load({"data_dir": "/d"}, {}, root=False)
    new, ignored = config.merged(old, config.load({"data_dir": "/d", "daemonize": "on"}, {}, root=False))
    assert (new.daemonize, new.pid_file) == ("off", None)
    assert set(ignored) == {"daemonize", "pid_file"}

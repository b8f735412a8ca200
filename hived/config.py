"""Configuration: defaults < hived.toml < environment (HIVED_*) < flags.

Every setting has one name: the TOML key ``log_level`` is the variable
``HIVED_LOG_LEVEL`` and the flag ``--log-level``. Lists in the environment are
separated by spaces.
"""

from __future__ import annotations

import os
import re
import socket
import stat
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from .errors import failed, usage
from .logs import FORMATS, LEVELS
from .schema import check_name

DEFAULT_PORT = 4483
DEFAULT_LISTEN = (f"/ip4/0.0.0.0/tcp/{DEFAULT_PORT}", f"/ip6/::/tcp/{DEFAULT_PORT}")
SYSTEM_CONFIG = Path("/etc/hive/hived.toml")
SYSTEM_DATA = Path("/var/lib/hive")
SYSTEM_SOCKET = Path("/run/hive/control.sock")
SYSTEM_PID_FILE = Path("/run/hive/hived.pid")
SYSTEM_LOG_FILE = Path("/var/log/hive/hived.log")
# Where systemd finds the credentials of the unit, each as hived.NAME.
CREDSTORE = Path("/etc/credstore")

_LISTS = ("listen", "announce", "bootstrap", "use_relay", "network", "network_file", "admin", "admin_file")
_CREDENTIALS = ("network", "admin")
_STATE_KEY = "state-key"
_STRINGS = (
    "data_dir",
    "socket",
    "name",
    "relay",
    "mdns",
    "log_level",
    "log_format",
    "log_file",
    "daemonize",
    "pid_file",
)
RELAY_MODES = ("off", "members", "anyone")
SWITCH = ("on", "off")


@dataclass(frozen=True)
class Secret:
    """A name with its password, as in ``--network NAME:PASSWORD``; never printed."""

    name: str
    password: str = field(repr=False)


@dataclass(frozen=True)
class Config:
    """What hived was told. Paths are absolute; ``listen_named`` tells a wish from the default."""

    config: Path | None
    data_dir: Path
    socket: Path
    name: str
    listen: tuple[str, ...] = DEFAULT_LISTEN
    listen_named: bool = False
    name_given: bool = False
    announce: tuple[str, ...] = ()
    bootstrap: tuple[str, ...] = ()
    use_relay: tuple[str, ...] = ()
    networks: tuple[Secret, ...] = ()
    admins: tuple[Secret, ...] = ()
    relay: str = "members"
    mdns: str = "on"
    log_level: str = "info"
    log_format: str = "text"
    log_file: Path | None = None
    daemonize: str = "off"
    pid_file: Path | None = None
    # Files with secrets that everybody on the machine can read.
    exposed: tuple[Path, ...] = ()
    # The credential that may hold the state key; None where none can be handed in.
    state_key: Path | None = None


def load(
    flags: Mapping[str, Any],
    environ: Mapping[str, str] = os.environ,
    *,
    root: bool | None = None,
    credstore: Path | None = None,
) -> Config:
    """Read all four layers. Raises :class:`HiveError` (usage) on the first thing that is wrong.

    ``flags`` holds the settings given on the command line by their names; absent or empty ones
    do not count. ``root`` selects the system paths (default: whether this process is uid 0, or a
    service of the system, which systemd gives a state directory). ``credstore`` is where to look for
    the credentials that systemd would give the machine's service.
    """
    is_root = os.geteuid() == 0 or bool(_state_directory(environ)) if root is None else root
    from_env = _environment(environ)
    path = flags.get("config") or environ.get("HIVED_CONFIG")
    base = _default_dirs(environ, is_root)
    # A node with a data directory of its own is not the machine's: the machine's file is not for it.
    own_dir = bool(flags.get("data_dir") or from_env.get("data_dir"))
    file = Path(path) if path else (None if own_dir else base["config"])
    settings = _toml(file, must_exist=bool(path)) if file else {}
    secret = [file] if file and any(settings.get(key) for key in _CREDENTIALS) else []
    settings.update(from_env)
    settings.update(
        {key: value for key, value in flags.items() if value not in (None, (), []) and key != "config"}
    )
    credentials: dict[str, Path] = {}
    if handed := environ.get("CREDENTIALS_DIRECTORY"):
        credentials = {key: Path(handed) / key for key in (*_CREDENTIALS, _STATE_KEY)}
    elif credstore and is_root and not own_dir:
        credentials = {key: credstore / f"hived.{key}" for key in (*_CREDENTIALS, _STATE_KEY)}
    secret += [Path(name).absolute() for key in _CREDENTIALS for name in settings.get(f"{key}_file") or ()]
    if "CREDENTIALS_DIRECTORY" not in environ:
        secret += credentials.values()
    config = _build(settings, base, file if file and file.exists() else None, credentials)
    exposed = tuple(path for path in secret if _is_readable_by_all(path))
    return replace(config, exposed=exposed, state_key=credentials.get(_STATE_KEY))


def _default_dirs(environ: Mapping[str, str], is_root: bool) -> dict[str, Path]:
    if is_root:
        return {
            "config": SYSTEM_CONFIG,
            "data": _state_directory(environ) or SYSTEM_DATA,
            "socket": SYSTEM_SOCKET,
            "pid_file": SYSTEM_PID_FILE,
            "log_file": SYSTEM_LOG_FILE,
        }
    home = Path(environ.get("HOME") or "/")
    config = Path(environ.get("XDG_CONFIG_HOME") or home / ".config")
    state = Path(environ.get("XDG_STATE_HOME") or home / ".local/state")
    runtime = environ.get("XDG_RUNTIME_DIR")
    data = state / "hive"
    # Without a login session there is no runtime directory; the state directory is private too.
    sock = (Path(runtime) / "hive" if runtime else data) / "control.sock"
    return {"config": config / "hive/hived.toml", "data": data, "socket": sock}


def _state_directory(environ: Mapping[str, str]) -> Path | None:
    """What StateDirectory= gives a unit of the system (systemd.exec(5)); a user's has the XDG paths."""
    named = environ.get("STATE_DIRECTORY", "").split(":")[0]
    # Another service that starts hived passes its own on.
    ours = environ.get("SYSTEMD_EXEC_PID") == str(os.getpid()) and "MANAGERPID" not in environ
    return Path(named) if named and ours else None


def _environment(environ: Mapping[str, str]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key in (*_LISTS, *_STRINGS):
        value = environ.get(f"HIVED_{key.upper()}")
        if value:
            found[key] = value.split() if key in _LISTS else value
    return found


def _toml(path: Path, must_exist: bool) -> dict[str, Any]:
    what = f"reading {path} failed"
    try:
        with path.open("rb") as file:
            settings = tomllib.load(file)
    except FileNotFoundError:
        if must_exist:
            raise usage(what, "there is no such file", "Check --config") from None
        return {}
    except OSError as error:
        raise failed(what, error.strerror or str(error), "Check its owner, its mode and the disk") from None
    except UnicodeDecodeError as error:
        raise usage(what, str(error), "Check the file") from None
    except tomllib.TOMLDecodeError as error:
        raise usage(what, str(error), "Correct that line") from None
    except RecursionError:
        raise usage(what, "it is nested too deeply", "Correct the file") from None
    for key, value in settings.items():
        if key not in (*_LISTS, *_STRINGS):
            raise usage(
                what, f"there is no setting named {key!r}", f"Known are: {', '.join((*_LISTS, *_STRINGS))}"
            )
        if key in _LISTS:
            settings[key] = [value] if isinstance(value, str) else value
            if not isinstance(settings[key], list) or not all(
                isinstance(item, str) for item in settings[key]
            ):
                raise usage(what, f"{key} is not a list of strings", f'Write {key} = ["..."]')
        elif not isinstance(value, str):
            raise usage(what, f"{key} is not a string", f'Write {key} = "..."')
        if any("\0" in item for item in settings[key]):
            raise usage(what, f"{key} holds a zero character", "Take it out")
    return settings


def _build(
    settings: dict[str, Any], base: dict[str, Path], file: Path | None, credentials: Mapping[str, Path]
) -> Config:
    data_dir = Path(settings.get("data_dir") or base["data"]).absolute()
    sock = settings.get("socket")
    if not sock:
        sock = data_dir / "control.sock" if "data_dir" in settings else base["socket"]
    config = Config(
        config=file,
        data_dir=data_dir,
        socket=Path(sock).absolute(),
        name=settings.get("name") or host_name(),
        name_given=bool(settings.get("name")),
        listen=tuple(settings.get("listen") or DEFAULT_LISTEN),
        listen_named=bool(settings.get("listen")),
        announce=tuple(settings.get("announce") or ()),
        bootstrap=tuple(settings.get("bootstrap") or ()),
        use_relay=tuple(settings.get("use_relay") or ()),
        networks=_secrets("network", settings, credentials),
        admins=_secrets("admin", settings, credentials),
        relay=settings.get("relay", "members"),
        mdns=settings.get("mdns", "on"),
        log_level=settings.get("log_level", "info"),
        log_format=settings.get("log_format", "text"),
        daemonize=settings.get("daemonize", "off"),
    )
    config = replace(
        config,
        log_file=_background_file("log_file", "hived.log", config, settings, base),
        pid_file=_background_file("pid_file", "hived.pid", config, settings, base),
    )
    _check(config)
    return config


def _background_file(
    key: str, name: str, config: Config, settings: Mapping[str, Any], base: Mapping[str, Path]
) -> Path | None:
    """The one named; in the background else the system's, or one beside the state."""
    if settings.get(key):
        return Path(settings[key]).absolute()
    if config.daemonize != "on":
        return None
    return base[key] if key in base and "data_dir" not in settings else config.data_dir / name


def host_name() -> str:
    """This machine's host name, made to fit the alphabet of node names."""
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", socket.gethostname()).lstrip("._-")[:63]
    return name or "node"


def _secrets(key: str, settings: dict[str, Any], credentials: Mapping[str, Path]) -> tuple[Secret, ...]:
    found = [parse_secret(key, text) for text in settings.get(key) or ()]
    files = [Path(name) for name in settings.get(f"{key}_file") or ()]
    credential = credentials.get(key)
    if credential and os.path.exists(credential):
        files.append(credential)
    for path in files:
        found += [parse_secret(f"{path}, line {number},", text) for number, text in _secret_lines(path)]
    return tuple(found)


def _secret_lines(path: Path) -> list[tuple[int, str]]:
    """The lines with their numbers; empty ones and comments are none."""
    what = f"reading {path} failed"
    try:
        text = path.read_text()
    except OSError as error:
        # Perhaps not for long: a disk that is not mounted yet.
        hint = "It must be there, and for the user who runs hived to read"
        raise failed(what, error.strerror or str(error), hint) from None
    except UnicodeDecodeError:
        raise usage(what, "it is not text", "It holds NAME:PASSWORD, one a line") from None
    lines = enumerate(text.splitlines(), 1)
    return [(number, line) for number, line in lines if line.strip() and not line.startswith("#")]


def _is_readable_by_all(path: Path) -> bool:
    try:
        mode = path.stat().st_mode
        return (
            stat.S_ISREG(mode)
            and bool(mode & stat.S_IROTH)
            and all(parent.stat().st_mode & stat.S_IXOTH for parent in path.resolve().parents)
        )
    except OSError:
        return False


def exposure(path: Path) -> str:
    """What to say of one of ``exposed``."""
    return f"everybody on this machine can read {path}, which holds a secret (chmod o-r {path})"


def parse_secret(where: str, text: str) -> Secret:
    """``NAME:PASSWORD`` to a :class:`Secret`. ``where`` it stands (network, a file) is for the error."""
    name, colon, password = text.partition(":")
    what = f"reading {where} failed"
    if not colon or not password:
        raise usage(what, "there is no password", "Write NAME:PASSWORD")
    if not check_name(name):
        raise usage(what, f"{name!r} is no valid name", "Names are 1 to 63 of a-z A-Z 0-9 . _ -")
    if not is_text(password):
        raise usage(what, f"the password of {name!r} is not UTF-8", "Take another one")
    if len(password) > 1024:
        raise usage(what, f"the password of {name!r} is longer than 1024 characters", "Take a shorter one")
    return Secret(name, password)


def is_text(text: str) -> bool:
    """Whether what came from argv, a file or a terminal was UTF-8."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _check(config: Config) -> None:
    what = "checking the configuration failed"
    if not check_name(config.name):
        raise usage(what, f"{config.name!r} is no valid node name", "Names are 1 to 63 of a-z A-Z 0-9 . _ -")
    if config.relay not in RELAY_MODES:
        raise usage(what, f"relay = {config.relay!r} is not known", f"Choose {', '.join(RELAY_MODES)}")
    for key, value in (("mdns", config.mdns), ("daemonize", config.daemonize)):
        if value not in SWITCH:
            raise usage(what, f"{key} = {value!r} is not known", f"Choose {', '.join(SWITCH)}")
    if config.log_level not in LEVELS:
        raise usage(what, f"there is no log level {config.log_level!r}", f"Choose {', '.join(LEVELS)}")
    if config.log_format not in FORMATS:
        raise usage(what, f"there is no log format {config.log_format!r}", f"Choose {', '.join(FORMATS)}")
    if len(os.fsencode(config.socket)) > 107:
        raise usage(
            what, f"the socket path {config.socket} is longer than 107 bytes", "Name a shorter one: --socket"
        )
    for secrets in (config.networks, config.admins):
        names = [secret.name for secret in secrets]
        twice = next((name for name in names if names.count(name) > 1), None)
        if twice:
            raise usage(what, f"{twice!r} is given twice", "Give it once")


def merged(old: Config, new: Config) -> tuple[Config, list[str]]:
    """What a reload may change, and the names of settings that need a restart instead."""
    fixed = ("data_dir", "socket", "daemonize", "pid_file")
    kept = {key: getattr(old, key) for key in fixed}
    return replace(new, **kept), [key for key in fixed if getattr(new, key) != kept[key]]


def describe(config: Config) -> str:
    """The settings in force, without secrets, one a line, for ``hived check``."""
    lines = []
    for item in fields(config):
        value = getattr(config, item.name)
        if item.name in ("networks", "admins"):
            value = [secret.name for secret in value]
        elif item.name in ("listen_named", "name_given", "exposed", "state_key"):
            continue
        several = value if isinstance(value, (tuple, list)) else () if value is None else (value,)
        lines.append(f"{item.name} = {', '.join(map(str, several))}".rstrip())
    return "\n".join(lines)


def setting_names() -> tuple[str, ...]:
    """Every key that hived.toml may hold."""
    return (*_LISTS, *_STRINGS)

"""The ``hived`` command: run (the default), hash-password, check.

Passwords in argv are hidden first: hived writes its arguments into a memfd and executes
itself again without them, before any heavy import, so that ``ps`` shows none.
"""

from __future__ import annotations

import json
import os
import pwd
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NoReturn

import click

from . import __version__, logs
from .errors import HiveError, usage
from .system import initprocess

SECRET_FLAGS = ("--network", "--admin", "-dnc", "-rc", "--dnc", "--rc")
_ARGUMENTS_FD = "HIVED_ARGUMENTS_FD"


def hide_secrets(argv: Sequence[str]) -> list[str]:
    """The arguments to go on with. Does not return where they hold a password: executes hived anew."""
    handed = os.environ.pop(_ARGUMENTS_FD, None)
    if handed is not None and handed.isdecimal():
        with os.fdopen(int(handed), "rb") as file:
            file.seek(0)
            return [str(item) for item in json.load(file)]
    if not any(argument.split("=", 1)[0] in SECRET_FLAGS for argument in argv):
        return list(argv)
    fd = os.memfd_create("hived-arguments", 0)
    os.write(fd, json.dumps(list(argv)).encode())
    os.environ[_ARGUMENTS_FD] = str(fd)
    # The interpreter's own part of the command line: options, and "script" or "-m module".
    prefix = sys.orig_argv[1 : len(sys.orig_argv) - (len(sys.argv) - 1)]
    visible = [argument for argument in argv if argument in ("run", "check")][:1]
    initprocess.defer_signals()
    os.execv(sys.executable, [sys.orig_argv[0], *prefix, *visible])
    raise AssertionError("execv does not return")


class _Group(click.Group):
    """Runs ``run`` when no command is named, so that ``hived -dnc ...`` works."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        if not args or (args[0] not in self.commands and args[0] not in ("--help", "--version", "-h")):
            if args and not args[0].startswith("-"):
                raise click.UsageError(
                    f"there is no command {args[0]!r} (commands: {', '.join(self.commands)})"
                )
            args = ["run", *args]
        return super().parse_args(ctx, args)


@click.group(cls=_Group, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, message="hived %(version)s")
def cli() -> None:
    """hived, the Hive node. Without a command it runs; hivectl talks to it."""


def _settings(function: Callable[..., Any]) -> Callable[..., Any]:
    """The flags that are also keys of hived.toml and HIVED_... variables."""
    options = [
        click.option("--config", metavar="FILE", help="Configuration file instead of hived.toml."),
        click.option(
            "--data-dir", metavar="DIR", help="State and control socket in DIR (several nodes a machine)."
        ),
        click.option("--socket", metavar="PATH", help="Control socket."),
        click.option("--name", metavar="NAME", help="Name of this node (default: the host name)."),
        click.option(
            "--listen",
            metavar="MULTIADDR",
            multiple=True,
            help="Listen there, e.g. /ip4/0.0.0.0/tcp/4483. Repeatable.",
        ),
        click.option(
            "--announce",
            metavar="MULTIADDR",
            multiple=True,
            help="Tell others to dial this too (1:1 NAT, DNS names). Repeatable.",
        ),
        click.option(
            "--bootstrap",
            metavar="ID",
            multiple=True,
            help="Identity string of a node to register at start. Repeatable.",
        ),
        click.option(
            "--network",
            "--dnc",
            "-dnc",
            metavar="NAME:PASSWORD",
            multiple=True,
            help="Be in this network. Better: --network-file. Repeatable.",
        ),
        click.option("--network-file", metavar="FILE", multiple=True, help="File with NAME:PASSWORD lines."),
        click.option(
            "--admin",
            "--rc",
            "-rc",
            metavar="USER:PASSWORD",
            multiple=True,
            help="First admin; hash_... instead of a password is fine. Better: --admin-file. Repeatable.",
        ),
        click.option("--admin-file", metavar="FILE", multiple=True, help="File with USER:PASSWORD lines."),
        click.option(
            "--use-relay",
            metavar="MULTIADDR",
            multiple=True,
            help="A relay that is no member, /ip4/ADDRESS/tcp/PORT/p2p/ID. Repeatable.",
        ),
        click.option("--relay", metavar="MODE", help="Relay for members (default), anyone, or off."),
        click.option("--no-relay", "relay", flag_value="off", help="As --relay off."),
        click.option("--mdns", metavar="on|off", help="Find members on the LAN (default), or not."),
        click.option("--log-level", metavar="LEVEL", help="debug, info, warning or error."),
        click.option("--log-format", metavar="FORMAT", help="text or json."),
        click.option("--log-file", metavar="FILE", help="Log there instead of to standard error."),
        click.option(
            "--daemonize",
            flag_value="on",
            default=None,
            help="Go into the background once the node is ready, without systemd.",
        ),
        click.option("--pid-file", metavar="FILE", help="PID file in the background."),
    ]
    for option in reversed(options):
        function = option(function)
    return function


@cli.command()
@_settings
def run(**flags: Any) -> None:
    """Run the node, until SIGTERM; in the foreground, or with --daemonize. SIGHUP reads the configuration
    again."""
    from . import config

    # Until the node is there to read it again, and while it starts anew, the configuration is fresh anyway.
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    settings = config.load(flags)

    def serve(ready: Callable[[], None]) -> int:
        from . import daemon  # py-libp2p takes a second: not before the flags are known to be right

        return daemon.main(settings, lambda: config.load(flags), ready)

    if settings.daemonize == "on":
        from .system import background

        assert settings.pid_file is not None
        assert settings.log_file is not None
        sys.exit(background.start(serve, settings.data_dir, settings.pid_file, settings.log_file))
    sys.exit(serve(lambda: None))


@cli.command()
@_settings
def check(**flags: Any) -> None:
    """Check the configuration and print what is in force, without secrets; as root also what the user can
    read who owns the state, as that user runs it."""
    from . import config
    from .configured import validate
    from .store import seal
    from .store.database import FILE_NAME

    settings = config.load(flags, credstore=config.CREDSTORE)
    validate(settings)
    click.echo(config.describe(settings))
    for path in settings.exposed:
        logs.say(f"hived: warning: {config.exposure(path)}.")
    key = seal.source(settings.data_dir, settings.state_key)
    if key == settings.state_key:
        seal.read(key)  # as root, who hands it in
    owner = _become_owner(settings.data_dir)
    try:
        if owner:
            config.load(flags, root=True)
        # Where one can be handed in, a drop-in of the unit may do it from elsewhere.
        is_needed = settings.state_key is None and seal.is_there(settings.data_dir / FILE_NAME)
        if key != settings.state_key and (is_needed or seal.is_there(key)):
            seal.read(key)
    except HiveError as error:
        error.why += f", as user {owner}" if owner else ""
        raise


def _become_owner(data_dir: Path) -> str:
    """Where root looks at another user's node: be that user from now on. Its name, else empty."""
    try:
        owner = pwd.getpwuid(data_dir.stat().st_uid)
        if os.geteuid() != 0 or owner.pw_uid == 0:
            return ""
        os.initgroups(owner.pw_name, owner.pw_gid)
        os.setgid(owner.pw_gid)
        os.setuid(owner.pw_uid)
    except (OSError, KeyError):
        return ""  # a container's root, for example, may not
    return owner.pw_name


@cli.command("hash-password")
@click.option("--stdin", "from_stdin", is_flag=True, help="Read the password from standard input.")
def hash_password(from_stdin: bool) -> None:
    """Print hash_..., which stands for a password in --admin USER:hash_..."""
    from . import config
    from .api import passwords

    if from_stdin or not sys.stdin.isatty():
        try:
            password = sys.stdin.readline().rstrip("\n")
        except UnicodeDecodeError:
            password = "\udcff"  # refused below
    else:
        password = click.prompt("Password", hide_input=True, confirmation_prompt=True, err=True)
    if not password or not config.is_text(password):
        why = "it is not UTF-8" if password else "it is empty"
        raise usage("hashing the password failed", why, "Type one, or pipe it in")
    click.echo(passwords.encode_hash(passwords.hash_password(password)))


def main() -> None:
    """The console script. Every failure is one line and an exit code."""
    initprocess.heed_signals()
    try:
        arguments = hide_secrets(sys.argv[1:])
        cli.main(args=arguments, prog_name="hived", standalone_mode=False)
    except HiveError as error:
        _fail(error)
    except click.Abort:
        sys.exit(130)
    except KeyboardInterrupt:
        sys.exit(130)
    except click.ClickException as error:
        why = " ".join(error.format_message().split()).rstrip(".")
        _fail(usage("reading the command line failed", why[:1].lower() + why[1:], "Type: hived --help"))


def _fail(error: HiveError) -> NoReturn:
    """Say it, also to those who wait for this hived at the sockets that it was given."""
    logs.say(f"hived: {error.line()}")
    if "LISTEN_FDS" in os.environ:
        from .api import refusal
        from .system.manager import Manager

        sockets = Manager().sockets
        refusal.refuse(sockets.control(), sockets.opened(), error)
    sys.exit(error.kind.exit_code)


if __name__ == "__main__":
    main()

"""The root of the commands, each imported only when it is named."""

from __future__ import annotations

import importlib
import os
from typing import TYPE_CHECKING

import click

from hivectl import legacy
from hivectl.options import GLOBAL_OPTIONS, Settings
from hived import __version__

if TYPE_CHECKING:
    from collections.abc import Sequence

PROGRAM = "hivectl"
COMPLETE_VARIABLE = "_HIVECTL_COMPLETE"

# Command: (module in hivectl.commands, object there), in the order of the help.
COMMANDS = {
    "status": ("status", "status"),
    "id": ("identity", "show_id"),
    "rename": ("identity", "rename"),
    "reload": ("reload", "reload"),
    "networks": ("networks", "networks"),
    "register": ("register", "register"),
    "nodes": ("nodes", "nodes"),
    "proxy": ("proxy", "proxy"),
    "forward": ("forward", "forward"),
    "ping": ("ping", "ping"),
    "netcheck": ("netcheck", "netcheck"),
    "backup": ("backup", "backup"),
    "restore": ("restore", "restore"),
    "login": ("login", "login"),
    "logout": ("login", "logout"),
    "sessions": ("sessions", "sessions"),
    "admin": ("admin", "admin"),
    "version": ("version", "version"),
    "completion": ("completion", "completion"),
}

EPILOG = """\b
First steps:
  hivectl networks create NAME     on the first machine; prints a password
  hivectl networks join NAME       on the second; asks for it
  hivectl id --base64              on the second; prints its identity string
  hivectl register ID              on the first, with that string

\b
Exit codes:
  0 done, 1 failed, 2 wrong usage, 3 hived not reachable on the socket,
  4 not logged in or not allowed, 5 no such thing, 6 exists or port taken,
  7 the other node cannot be reached, 130 interrupted
"""


class LazyGroup(click.Group):
    """A group whose commands are imported when they are asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The commands in the order of the table, which is the order of first use."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import the command of this name; None when there is none."""
        if cmd_name not in COMMANDS:
            return None
        module, name = COMMANDS[cmd_name]
        command = getattr(importlib.import_module(f"hivectl.commands.{module}"), name)
        assert isinstance(command, click.Command)
        return command


def _bare(ctx: click.Context) -> None:
    if ctx.invoked_subcommand is None:
        if ctx.ensure_object(Settings).given():
            raise click.UsageError("a command is missing", ctx)
        click.echo(ctx.get_help())


root = LazyGroup(
    PROGRAM,
    help="Private networks between your machines: the command line of hived.",
    epilog=EPILOG,
    callback=click.pass_context(_bare),
    params=[*GLOBAL_OPTIONS],
    invoke_without_command=True,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
click.version_option(__version__, prog_name=PROGRAM, message="%(prog)s %(version)s")(root)


def run(argv: Sequence[str]) -> int:
    """Run one command line, old spellings included; the exit code when it went well.

    Raises click's exceptions for wrong usage and HiveError for everything else.
    """
    if os.environ.get(COMPLETE_VARIABLE):
        # The completion script calls hivectl with this variable set; click answers and exits.
        from hivectl import shells

        shells.register()
        root.main([], prog_name=PROGRAM, complete_var=COMPLETE_VARIABLE)
    # Not root.main(): it would take Ctrl-C and broken pipes into its own hands.
    try:
        with root.make_context(PROGRAM, legacy.rewrite(argv), obj=Settings()) as ctx:
            root.invoke(ctx)
    except click.exceptions.Exit as end:
        return end.exit_code
    return 0

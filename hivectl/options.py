"""What every command has: --node, --json and --socket, before and after the command.

Each level of the command line takes the three and writes them into the one
:class:`Settings` of the run, so their place does not matter.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

if TYPE_CHECKING:
    from collections.abc import Mapping

    from click.shell_completion import CompletionItem

    from hivectl.session import Session


@dataclass
class Settings:
    """The global options of one run."""

    node: str | None = None
    json: bool = False
    socket: str | None = None

    def given(self) -> list[str]:
        """The global options that were typed, as they are typed."""
        values = {"--node": self.node, "--json": self.json, "--socket": self.socket}
        return [name for name, value in values.items() if value]

    def session(self) -> Session:
        """The API of the node that the command is for."""
        from hivectl.client import socket_path
        from hivectl.session import Session

        return Session(socket_path(self.socket), self.node)


def _keep_flag(ctx: click.Context, param: click.Parameter, value: bool) -> None:
    if value:
        ctx.ensure_object(Settings).json = True


def _keep_value(ctx: click.Context, param: click.Parameter, values: tuple[str, ...]) -> None:
    name = param.opts[0].lstrip("-")
    settings = ctx.ensure_object(Settings)
    if ctx.resilient_parsing:
        # A shell completes the line: what is wrong in it is said when it is run.
        if values:
            setattr(settings, name, values[-1])
        return
    for value in values:
        # An empty value is a script's unset variable; it must not quietly mean this node.
        if not value:
            raise click.UsageError(f"--{name} is empty", ctx)
        if getattr(settings, name) not in (None, value):
            raise click.UsageError(f"--{name} is given twice, with different values", ctx)
        setattr(settings, name, value)


def _offer_nodes(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    from hivectl import offers

    settings = Settings(socket=ctx.ensure_object(Settings).socket)
    return offers.found(offers.nodes, settings, incomplete)


GLOBAL_OPTIONS: tuple[click.Option, ...] = (
    click.Option(
        ["--node", "global_node"],
        metavar="NODE",
        multiple=True,
        expose_value=False,
        callback=_keep_value,
        shell_complete=_offer_nodes,
        help="Run it on that node: a peer ID, a part of it, an alias or a name.",
    ),
    click.Option(
        ["--json", "global_json"],
        is_flag=True,
        expose_value=False,
        callback=_keep_flag,
        help="Print the API's JSON document instead.",
    ),
    click.Option(
        ["--socket", "global_socket"],
        metavar="PATH",
        multiple=True,
        expose_value=False,
        callback=_keep_value,
        type=click.Path(readable=False),
        help="hived's socket. Default: HIVE_SOCKET, else where hived puts it.",
    ),
)


class Command(click.Command):
    """A command with the global options."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.params.extend(GLOBAL_OPTIONS)


class Noun(click.Group):
    """A group of commands about one noun; called bare it is its listing command.

    An option of the listing that stands before another command is wrong usage: that
    command would never see it.
    """

    command_class = Command

    def __init__(self, name: str, *, help: str, listing: click.Command | None = None) -> None:
        params = listing.params if listing else GLOBAL_OPTIONS
        super().__init__(
            name,
            help=help,
            params=[*params],
            callback=self._bare,
            invoke_without_command=listing is not None,
            no_args_is_help=False,
        )
        self._listing = listing
        if listing:
            self.add_command(listing)

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The commands in the order in which they were made."""
        return list(self.commands)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """``list`` is ``ls``: fingers know it from other tools. Help and completion name one of the two."""
        if cmd_name == "list" and self._listing:
            return self._listing
        return super().get_command(ctx, cmd_name)

    def _bare(self, **values: Any) -> Any:
        ctx = click.get_current_context()
        if ctx.invoked_subcommand is None:
            assert self._listing is not None
            assert self._listing.callback is not None
            return self._listing.callback(**values)
        misplaced = _typed(ctx, values)
        if misplaced:
            raise click.UsageError(
                f"{misplaced} stands before {ctx.invoked_subcommand!r}; options go after the command", ctx
            )
        return None


def _typed(ctx: click.Context, values: Mapping[str, Any]) -> str:
    """The first option of this level that was typed, or nothing."""
    for param in ctx.command.params:
        if param.name in values and ctx.get_parameter_source(param.name) is ParameterSource.COMMANDLINE:
            return param.opts[0]
    return ""

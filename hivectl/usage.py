"""Wrong usage as one line: what is wrong, and the nearest thing that is right."""

from __future__ import annotations

import difflib
from typing import TYPE_CHECKING

import click

from hived.errors import HiveError
from hived.errors import usage as usage_error

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

WHAT = "reading the command line failed"


def wrong(why: str, hint: str = "") -> HiveError:
    """Wrong usage that a command finds itself."""
    return usage_error(WHAT, why, hint)


def explain(error: click.UsageError, argv: Sequence[str]) -> HiveError:
    """Click's usage error as a HiveError; ``argv`` is what the user typed."""
    ctx = error.ctx
    if isinstance(error, click.NoSuchCommand):
        return wrong(
            f"there is no command {error.command_name!r}",
            _near(error.command_name, _commands(ctx)) or _help(ctx),
        )
    if isinstance(error, click.NoSuchOption):
        typed = _as_typed(error.option_name, argv)
        return wrong(f"there is no option {typed!r}", _near(typed, _options(ctx)) or _help(ctx))
    if isinstance(error, click.MissingParameter):
        name = error.param.make_metavar(ctx) if error.param and ctx else "a value"
        if error.param and error.param.param_type_name == "option":
            name = error.param.opts[0]
        return wrong(f"{name} is missing", _usage(ctx))
    if isinstance(error, click.BadParameter):
        return wrong(error.message.rstrip("."), _usage(ctx))
    if isinstance(error, click.BadOptionUsage):
        return wrong(_lower(error.message), _help(ctx))
    message = error.message
    if message == "Missing command.":
        return wrong("a command is missing", f"Type one of: {', '.join(_commands(ctx))}")
    if message.startswith("Got unexpected extra argument"):
        return wrong(_lower(message), _usage(ctx))
    return wrong(_lower(message), _help(ctx))


def _as_typed(option: str, argv: Sequence[str]) -> str:
    """Click names only the first letter of an unknown ``-word``: find the whole word."""
    if option.startswith("--"):
        return option
    words = (word.partition("=")[0] for word in argv)
    return next((word for word in words if word.startswith(option) and len(word) > len(option)), option)


def _near(typed: str, known: Iterable[str]) -> str:
    names = {name.lstrip("-"): name for name in known}
    for match in difflib.get_close_matches(typed.lstrip("-"), names, n=1):
        return f"Did you mean {names[match]!r}?"
    return ""


def _commands(ctx: click.Context | None) -> list[str]:
    if ctx is None or not isinstance(ctx.command, click.Group):
        return []
    return ctx.command.list_commands(ctx)


def _options(ctx: click.Context | None) -> list[str]:
    if ctx is None:
        return []
    params = ctx.command.get_params(ctx)
    return [name for param in params if isinstance(param, click.Option) for name in param.opts]


def _help(ctx: click.Context | None) -> str:
    return f"Type: {ctx.command_path if ctx else 'hivectl'} --help"


def _usage(ctx: click.Context | None) -> str:
    return ctx.get_usage() if ctx else _help(ctx)


def _lower(text: str) -> str:
    return (text[:1].lower() + text[1:]).rstrip(".")

"""``hivectl version``: the versions of hivectl and of the hived it talks to."""

from __future__ import annotations

import click

from hivectl import output
from hivectl.options import Command, Settings
from hived import __version__
from hived.errors import HiveError


@click.command(cls=Command)
@click.pass_obj
def version(settings: Settings) -> None:
    """Print the versions of hivectl and hived."""
    hived: str | None = None
    absent = ""
    try:
        hived = settings.session().info().value.version
    except HiveError as error:
        absent = error.line()
    if settings.json:
        output.value({"hivectl": __version__, "hived": hived})
    else:
        output.say(f"hivectl {__version__}")
        output.say(f"hived {hived or 'not reachable'}")
    output.note(absent)

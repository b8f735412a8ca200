"""``hivectl reload``: have the configuration read again."""

from __future__ import annotations

import click

from hivectl import output, report
from hivectl.options import Command, Settings
from hived.schema import Reloaded


@click.command(cls=Command)
@click.pass_obj
def reload(settings: Settings) -> None:
    """Read the configuration again; one that is wrong changes nothing."""
    report.reply(settings, settings.session().call("POST", "/v1/reload", Reloaded), _show)


def _show(reloaded: Reloaded) -> None:
    if reloaded.file:
        output.say(f"The configuration is read: {reloaded.file}")
    else:
        output.say("No configuration file is in use: what flags and variables name is read again.")
    if reloaded.need_restart:
        output.warn(f"in force after a restart only: {', '.join(reloaded.need_restart)}")

"""``hivectl completion``: the script that makes a shell complete hivectl's words."""

from __future__ import annotations

import click

from hivectl.cli import COMPLETE_VARIABLE, PROGRAM, root
from hivectl.options import Settings
from hivectl.shells import SHELLS
from hivectl.usage import wrong


@click.command()
@click.argument("shell", type=click.Choice(list(SHELLS)))
@click.pass_obj
def completion(settings: Settings, shell: str) -> None:
    """Print the completion script of a shell.

    \b
    bash: hivectl completion bash > ~/.local/share/bash-completion/completions/hivectl
    zsh:  hivectl completion zsh > DIR/_hivectl, where DIR is in $fpath
    """
    if settings.given():
        raise wrong(f"{settings.given()[0]} means nothing to completion", "Leave it out")
    script = SHELLS[shell](root, {}, PROGRAM, COMPLETE_VARIABLE)
    # Not script.source(): that runs the shell to ask for its version.
    click.echo(script.source_template % script.source_vars(), nl=False)

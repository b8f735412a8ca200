"""``hivectl backup``: a node's identity and state, in one encrypted file."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from hivectl import files, output, passwords, prompts
from hivectl.options import Command, Settings
from hivectl.parameters import FILE
from hivectl.usage import wrong
from hived.errors import usage
from hived.schema import MIN_PASSPHRASE, Backup, BackupRequest, Status

STDOUT = "-"


@click.command(cls=Command)
@click.argument("file", metavar="FILE", type=FILE)
@click.option("--force", is_flag=True, help="Write over a file that exists.")
@passwords.passphrase_options
@click.pass_obj
def backup(
    settings: Settings, file: str, force: bool, passphrase_stdin: bool, passphrase_file: str | None
) -> None:
    """Write the node's identity and state to FILE, encrypted with a passphrase; - is standard output.

    In it are the identity key, networks, proxies, admins and what the node knows of others. Whoever has the
    file and its passphrase is this node: keep them apart. hivectl restore makes a node of it again.
    """
    path = None if file == STDOUT else Path(file)
    if path is None:
        if settings.json:
            raise wrong("--json and FILE - exclude each other: both go to standard output", "Name a file")
        if sys.stdout is None or sys.stdout.isatty():
            raise wrong("a backup is not for a terminal", "Name a file, or send it into a pipe")
    else:
        files.check_target(path, force)
    session = settings.session()
    session.call("GET", "/v1/status", Status)  # logs in before a passphrase is typed for nothing
    body = BackupRequest(passphrase=_passphrase(passphrase_stdin, passphrase_file))
    made = session.call("POST", "/v1/backup", Backup, body).value
    if path is None:
        sys.stdout.buffer.write(made.backup)
        sys.stdout.buffer.flush()
    else:
        files.write(path, made.backup, force)
    about = {
        "file": file,
        "size": len(made.backup),
        "peer_id": made.peer_id,
        "name": made.name,
        "networks": made.networks,
        "created": made.created,
    }
    if settings.json:
        output.value(about)
    else:
        where = "standard output" if path is None else file
        tell = output.note if path is None else output.say
        tell(f"{where}: the backup of {made.name} ({made.peer_id}), {output.size(len(made.backup))}")
        tell(f"Networks: {', '.join(made.networks) or 'none'}. Made: {made.created}.")
        output.note("Whoever has this file and its passphrase is this node. Keep them apart.")


def _passphrase(from_stdin: bool, file: str | None) -> str:
    """A new passphrase, from where the options say or typed twice."""
    text = passwords.passphrase(from_stdin, file)
    if text is None:
        if not prompts.interactive():
            raise usage(
                "making the backup failed",
                "there is no terminal to ask for a passphrase on",
                "Pipe it with --passphrase-stdin, or name a file: --passphrase-file F",
            )
        text = prompts.new_password(f"Passphrase for the backup, {MIN_PASSPHRASE} characters or more")
    if len(text) < MIN_PASSPHRASE:
        raise usage(
            "making the backup failed",
            f"the passphrase has {len(text)} characters, and whoever finds the file can guess at leisure",
            f"Take {MIN_PASSPHRASE} or more, such as four random words",
        )
    return text

"""``hivectl restore``: make this node the one of a backup."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import click

from hivectl import output, passwords, prompts, report
from hivectl.options import Command, Settings
from hivectl.parameters import FILE
from hivectl.usage import wrong
from hived.errors import HiveError, Kind, failed, usage
from hived.schema import MAX_BACKUP, Info, Restored, RestoreRequest, Status

STDIN = "-"
BACK_SECONDS = 30.0
LOOK_SECONDS = 0.1


@click.command(cls=Command)
@click.argument("file", metavar="FILE", type=FILE)
@click.option("--replace", is_flag=True, help="Give up what this node is and has now.")
@passwords.passphrase_options
@click.pass_obj
def restore(
    settings: Settings, file: str, replace: bool, passphrase_stdin: bool, passphrase_file: str | None
) -> None:
    """Make this node the one that FILE is a backup of; - is standard input.

    The hived of this machine must run; it takes over identity, networks, proxies and admins, and starts anew.
    What it had before stays in its data directory, as hive.db.before-restore, or with a number after that.
    To go back: stop hived, move that file to hive.db there, start hived.

    \b
    A node runs once. To move it to another machine, in this order:
      hivectl backup FILE                  on the old machine
      sudo systemctl disable --now hived hived.socket hived-web.socket   there: stop it for good
      hivectl restore FILE                 on the new one
    While the old one can be reached, restore refuses.
    """
    if settings.node:
        raise wrong("--node does not go with restore", "Copy FILE to that machine and restore it there")
    if file == STDIN and passphrase_stdin:
        raise wrong("FILE - and --passphrase-stdin exclude each other", "Name one of them in a file")
    data = _read(file)
    session = settings.session()
    before = session.call("GET", "/v1/status", Status).value  # logs in before something large is sent
    passphrase = passwords.passphrase(passphrase_stdin, passphrase_file)
    if passphrase is None:
        if not prompts.interactive():
            raise usage(
                "restoring failed",
                "there is no terminal to ask for the passphrase on",
                "Pipe it with --passphrase-stdin, or name a file: --passphrase-file F",
            )
        passphrase = prompts.password("Passphrase of the backup")
    body = RestoreRequest(backup=data, passphrase=passphrase, replace=replace)
    answer = session.call("POST", "/v1/restore", Restored, body)
    back = _await(settings, answer.value.peer_id)

    def human(made: Restored) -> None:
        output.say(f"This node is {made.name} ({made.peer_id}), as of {made.created}.")
        output.say(f"Networks: {', '.join(made.networks) or 'none'}.")
        if made.peer_id != before.peer_id:
            output.note("The one that the backup was made on must not run again.")
        output.note(
            f"What was here before is kept in {before.service.data_dir}, as hive.db.before-restore"
            " (the one with the highest number is the latest). To go back: stop hived, move it to hive.db,"
            " start hived."
        )

    report.reply(settings, answer, human)
    if not back:
        raise HiveError(
            Kind.NO_DAEMON,
            "waiting for hived failed",
            f"the backup is restored, but hived did not come back in {BACK_SECONDS:.0f} s",
            "Look at its log: journalctl -u hived",
        )


def _read(file: str) -> bytes:
    """The backup's bytes. Raises HiveError."""
    what = f"reading {'standard input' if file == STDIN else file} failed"
    try:
        if file == STDIN:
            data = sys.stdin.buffer.read(MAX_BACKUP + 1) if sys.stdin else b""
        else:
            with Path(file).open("rb") as opened:
                data = opened.read(MAX_BACKUP + 1)
    except OSError as error:
        raise failed(what, error.strerror or str(error), "Check its name, owner and mode") from error
    if len(data) > MAX_BACKUP:
        raise usage(what, f"it is larger than a backup can be ({output.size(MAX_BACKUP)})")
    return data


def _await(settings: Settings, peer_id: str) -> bool:
    """Whether hived comes back as that node within BACK_SECONDS: nothing announces a socket to come."""
    end = time.monotonic() + BACK_SECONDS
    while time.monotonic() < end:
        try:
            # Not of the one that is about to stop: that has the same peer ID where a node was rolled back.
            if _started_anew(settings.session().info().value, peer_id, end - BACK_SECONDS):
                return True
        except HiveError:
            pass
        time.sleep(LOOK_SECONDS)
    return False


def _started_anew(info: Info, peer_id: str, asked: float) -> bool:
    return info.peer_id == peer_id and info.uptime <= time.monotonic() - asked

"""Write the man pages hived(8), hivectl(1) and hived.toml(5): scripts/manpages.py FOLDER.

Commands, options and settings are read from where --help and hived have them: the click commands, and
etc/hive/hived.toml, whose comments must explain every setting. What only a manual says is in PAGES below.
"""

from __future__ import annotations

import inspect
import os
import re
import sys
import textwrap
import time
from collections.abc import Iterable, Sequence
from pathlib import Path

import click

from hivectl.cli import EPILOG
from hivectl.cli import root as hivectl
from hivectl.options import GLOBAL_OPTIONS
from hived import __version__, config
from hived.cli import cli as hived
from hived.errors import Kind

TOML = Path(__file__).resolve().parent.parent / "etc" / "hive" / "hived.toml"

DAEMON = """
.SH DESCRIPTION
Hive joins machines on any network into private overlay networks, and forwards TCP services between them.
.B hived
is the node: it runs on each of these machines, speaks to the other nodes, and to
.BR hivectl (1),
its command line, over a Unix socket. Without a command it runs.
.PP
As root, and as the system service, it uses the files below; as an ordinary user those of the XDG directories;
with
.B \\-\\-data\\-dir
a directory of its own. Settings come from
.BR hived.toml (5),
the environment and the options, the later winning.
.SH THE SERVICE
Installed from its Debian package, hived is neither enabled nor started. These start it now and at each boot,
and let a user talk to it once that user has logged in anew (hived still asks for an admin's password):
.PP
.nf
.B systemctl enable \\-\\-now hived
.B adduser USER hive
.fi
.PP
.B hived.socket
is the control socket.
.B hived\\-web.socket
gives the ports 80 and 443 to hived, and is off unless it is enabled.
.B systemctl \\-\\-user enable \\-\\-now hived
runs a node of a user's own.
"""
DAEMON_END = f"""
.SH ENVIRONMENT
.TP
.BI HIVED_ SETTING
The setting of that name in
.BR hived.toml (5),
in capital letters; a list is separated by spaces.
.TP
.B HIVED_CONFIG
As
.BR \\-\\-config .
.TP
.B CREDENTIALS_DIRECTORY
Set by systemd. The credentials
.B network
and
.B admin
hold lines as
.B network_file
and
.B admin_file
do,
.B state\\-key
the key that encrypts secrets in the state. The service takes them from /etc/credstore/hived.network,
/etc/credstore/hived.admin and /etc/credstore/hived.state\\-key.
.SH FILES
.TP
.I {config.SYSTEM_CONFIG}
The configuration. Its directory is readable by root and the group hive. A file with passwords in it should be
the service's alone:
.B install \\-m 0400 \\-o hive FILE /etc/hive/
.TP
.I {config.SYSTEM_DATA}
The node's identity and state. It outlives
.BR "apt remove" ;
.B apt purge
deletes it.
.TP
.I {config.SYSTEM_SOCKET}
The control socket, for root and the group hive.
.TP
.I $XDG_CONFIG_HOME/hive, $XDG_STATE_HOME/hive, $XDG_RUNTIME_DIR/hive
The same of an ordinary user's node.
.SH SIGNALS
.TP
.BR SIGTERM ", " SIGINT
Stop within 5 seconds: no new connections, up to 3 seconds for those that live, then the rest.
.TP
.B SIGHUP
Read the configuration again.
"""
DAEMON_EXAMPLES = r"""
.SH EXAMPLES
Check what is in force, passwords left out:
.PP
.nf
.B hived check
.fi
.PP
A second node on this machine, in a network whose password is in a file:
.PP
.nf
.B hived \-\-data\-dir ~/hive\-test \-\-network\-file ~/networks
.B hivectl \-\-socket ~/hive\-test/control.sock status
.fi
"""
CLIENT = r"""
.SH DESCRIPTION
.B hivectl
is the command line of
.BR hived (8):
it talks to the node on this machine over its Unix socket, and with
.B \-\-node
to another one through it. Groups of commands, named alone, list what they are about.
.PP
NODE is a node's name, an alias, its peer ID, a part of that of at least 6 characters after 12D3KooW, or its
last 8 characters. PORT is a TCP port.
.PP
Root and the user that hived runs as may do everything; others log in as an admin of the node.
"""
CLIENT_END = r"""
.SH ENVIRONMENT
.TP
.B HIVE_SOCKET
hived's socket, where
.B \-\-socket
names none.
.TP
.B NO_COLOR
Set to anything: no colours.
.TP
.B HIVE_DEBUG
Set to anything: an unexpected failure shows where it happened.
.SH FILES
.TP
.I /run/hive/control.sock
The socket of the system's hived.
.TP
.I $XDG_RUNTIME_DIR/hive/control.sock
The socket of an ordinary user's hived.
.TP
.I $XDG_STATE_HOME/hive
Sessions of who is logged in.
"""
FIRST_STEPS = EPILOG.split("\n\n")[0]
CLIENT_EXAMPLES = r"""
.PP
A service on port 1984 of the node gpu, reached at port 8084 here. Here, and there:
.PP
.nf
.B hivectl proxy add egress 8084 gpu:1984
.B hivectl proxy add ingress HERE:8084 1984
.fi
.PP
The same for the moment, with what it is there:
.PP
.nf
.B hivectl forward gpu:1984
.fi
"""
SETTINGS = r"""
.SH DESCRIPTION
.B hived.toml
configures
.BR hived (8).
It is a TOML file; a setting that it does not have, or that is a comment there, has its default. Environment
and options win over it.
.B hived check
prints what is in force, and
.B systemctl reload hived
has it read again.
.PP
Where a setting is a list of strings, a single string will do.
.SH SETTINGS
"""
SEE = {
    "hived": (8, [("hivectl", 1), ("hived.toml", 5)]),
    "hivectl": (1, [("hived", 8)]),
    "hived.toml": (5, [("hived", 8), ("hivectl", 1)]),
}
# What the kinds of failures mean; their codes are hived.errors'.
FAILURES = {
    Kind.FAILED: "It failed.",
    Kind.USAGE: "Wrong usage, or a wrong configuration.",
    Kind.NO_DAEMON: "hived is not reachable on the socket.",
    Kind.LOGIN_REQUIRED: "Not logged in, or not allowed.",
    Kind.NOT_FOUND: "There is no such thing.",
    Kind.CONFLICT: "It exists already, or the port is taken.",
    Kind.UNREACHABLE: "The other node cannot be reached.",
}
# Those of hived itself; the others are answers that it gives to hivectl.
OF_HIVED = (Kind.FAILED, Kind.USAGE, Kind.CONFLICT)

_ESCAPES = str.maketrans(
    {"\\": r"\e", "-": r"\-", "'": r"\(aq", "`": r"\(ga", "~": r"\(ti", "^": r"\(ha", '"': r"\(dq"}
)


def text(plain: str) -> str:
    """Plain text as roff prints it: no character of it means anything else."""
    escaped = plain.translate(_ESCAPES)
    return re.sub(r"^\.", r"\\&.", escaped, flags=re.MULTILINE)


def flow(words: str) -> str:
    """Running text, in lines that an editor shows."""
    filled = textwrap.fill(" ".join(words.split()), 70, break_long_words=False, break_on_hyphens=False)
    # What is to be typed stands between backticks.
    return re.sub(r"(?:\\\(ga)+(.+?)(?:\\\(ga)+", r"\\fB\1\\fR", text(filled), flags=re.DOTALL)


def entry(tags: Sequence[str], body: str) -> str:
    """An indented paragraph under one or more tags."""
    lines = "\n.TQ\n".join(f'.B "{text(tag)}"' for tag in tags)
    return f".TP\n{lines}\n{flow(body)}\n"


def entries(rows: Iterable[tuple[str, str]]) -> str:
    """Tags, each with the paragraph under it."""
    return "".join(entry([tag], body) for tag, body in rows)


def prose(words: str) -> str:
    """The paragraphs of a help text; one that starts with \\b keeps its lines."""
    written = []
    for paragraph in inspect.cleandoc(words).split("\n\n"):
        if paragraph.startswith("\b\n"):
            written.append(f".nf\n{text(paragraph[2:].rstrip())}\n.fi\n")
        else:
            written.append(f"{flow(paragraph)}\n")
    return ".PP\n".join(written)


def options(command: click.Command, ctx: click.Context, but: Sequence[click.Parameter] = ()) -> str:
    """The options of a command as its --help says them, without those in ``but``."""
    found = [param.get_help_record(ctx) for param in command.get_params(ctx) if param not in but]
    return entries(record for record in found if record and record[1] and "--help" not in record[0])


def commands(
    group: click.Group, ctx: click.Context, but: Sequence[click.Parameter] = (), first: str = ""
) -> str:
    """The commands of a group and of the groups in it: usage, help, options. ``first`` is told first."""
    written = []
    told: dict[str, str] = {}
    for name in sorted(group.list_commands(ctx), key=lambda name: name != first):
        command = group.get_command(ctx, name)
        assert command is not None
        with click.Context(command, info_name=name, parent=ctx) as inner:
            usage = " ".join((inner.command_path, *command.collect_usage_pieces(inner)))
            written.append(f'.SS "{text(usage)}"\n{prose(command.help or "")}')
            listed = options(command, inner, but)
            same = told.setdefault(listed, inner.command_path)
            if listed.count(".TP") > 2 and same != inner.command_path:
                listed = f'.PP\nThe options are those of\n.BR "{text(same)}" .\n'
            written.append(listed)
            if isinstance(command, click.Group):
                written.append(commands(command, inner, but))
    return "".join(written)


def exit_codes(kinds: Iterable[Kind]) -> str:
    """What the exit status says."""
    failures = [(str(kind.exit_code), FAILURES[kind]) for kind in kinds]
    rows = [("0", "It is done."), *failures, ("130", "It was interrupted.")]
    return f".SH EXIT STATUS\n{entries(rows)}"


def settings(toml: str) -> str:
    """The settings with the comments above them. ValueError where hived.toml leaves one out."""
    known = config.setting_names()
    told: list[str] = []
    written = []
    for block in toml.strip().split("\n\n")[1:]:  # the first is about the file itself
        lines = [line.removeprefix("# ") for line in block.splitlines()]
        samples = [line for line in lines if " = " in line and line.split(" = ")[0] in known]
        told += [sample.split(" = ")[0] for sample in samples]
        written.append(entry(samples, " ".join(line for line in lines if line not in samples)))
    if missing := set(known) - set(told):
        raise ValueError(f"{TOML.name} does not explain {', '.join(sorted(missing))}")
    return "".join(written)


def page(name: str, what: str, synopsis: str, *parts: str) -> str:
    """A whole page, from its head to SEE ALSO."""
    section, see = SEE[name]
    date = time.strftime("%Y-%m-%d", time.gmtime(int(os.environ.get("SOURCE_DATE_EPOCH", time.time()))))
    also = " ,\n".join(f".BR {text(other)} ({number})" for other, number in see)
    return "".join(
        (
            f'.TH "{name.upper()}" {section} "{date}" "Hive {__version__}" "Hive"\n',
            f".SH NAME\n{text(name)} \\- {what}\n.SH SYNOPSIS\n{synopsis}",
            *(part.lstrip("\n") for part in parts),
            f".SH SEE ALSO\n{also}\n",
        )
    )


def pages() -> dict[str, str]:
    """File name -> contents."""
    with click.Context(hived, info_name="hived") as ctx:
        daemon = page(
            "hived",
            "node of private overlay networks",
            ".B hived\n[\\fICOMMAND\\fR] [\\fIOPTIONS\\fR]\n",
            DAEMON,
            f".SH COMMANDS\n{commands(hived, ctx, first='run')}",
            DAEMON_END,
            exit_codes(OF_HIVED),
            DAEMON_EXAMPLES,
        )
    with click.Context(hivectl, info_name="hivectl") as ctx:
        client = page(
            "hivectl",
            "command line of hived",
            ".B hivectl\n[\\fIOPTIONS\\fR] \\fICOMMAND\\fR [\\fIARGUMENTS\\fR]\n",
            CLIENT,
            f".SH OPTIONS\nEvery command takes these, before or after its name.\n{options(hivectl, ctx)}",
            f".SH COMMANDS\n{commands(hivectl, ctx, GLOBAL_OPTIONS)}",
            CLIENT_END,
            exit_codes(FAILURES),
            f".SH EXAMPLES\n{prose(FIRST_STEPS)}{CLIENT_EXAMPLES}",
        )
    file = page(
        "hived.toml",
        "configuration of hived",
        f".I {config.SYSTEM_CONFIG}\n.br\n.I $XDG_CONFIG_HOME/hive/hived.toml\n",
        SETTINGS,
        settings(TOML.read_text()),
    )
    return {"hived.8": daemon, "hivectl.1": client, "hived.toml.5": file}


def main() -> int:
    if len(sys.argv) != 2:
        print("usage: scripts/manpages.py FOLDER", file=sys.stderr)
        return 2
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    for name, contents in pages().items():
        (folder / name).write_text(contents)
    return 0


if __name__ == "__main__":
    sys.exit(main())

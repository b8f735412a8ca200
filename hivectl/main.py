"""The entry point: every way a command can end becomes one line and an exit code.

Nothing but the standard library is imported at the top, so that Ctrl-C during the
imports of a slow machine is answered as quietly as any other.
"""

from __future__ import annotations

import errno
import os
import sys
from typing import TYPE_CHECKING, NoReturn

if TYPE_CHECKING:
    from collections.abc import Sequence

from hivectl.output import EXIT_BROKEN_PIPE

EXIT_FAILED = 1
EXIT_INTERRUPTED = 130


def main() -> NoReturn:
    """Run hivectl with the process's own arguments and exit."""
    sys.exit(run(sys.argv[1:]))


def run(argv: Sequence[str]) -> int:
    """Run one command line and give its exit code; no exception leaves but SystemExit."""
    try:
        code = _guarded(argv)
        if sys.stdout is not None:
            sys.stdout.flush()
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED
    except BrokenPipeError:
        _abandon_stdout()
        return EXIT_BROKEN_PIPE
    except OSError as error:
        _abandon_stdout()
        return _complain(f"writing the output failed: {error.strerror or error}.")
    return code


def _guarded(argv: Sequence[str]) -> int:
    import click

    from hivectl import cli, output, usage
    from hived.errors import HiveError

    try:
        try:
            return cli.run(argv)
        except click.UsageError as error:
            raise usage.explain(error, argv) from error
    except HiveError as error:
        return _complain(output.clean(error.line()), error.kind.exit_code)
    except (click.Abort, KeyboardInterrupt):
        return EXIT_INTERRUPTED
    except BrokenPipeError:
        raise
    except Exception as error:
        if isinstance(error, OSError) and error.errno == errno.ENOSPC and error.filename is None:
            raise  # a flush of stdout before the last one
        if os.environ.get("HIVE_DEBUG"):
            import traceback

            traceback.print_exc()
        reason = output.clean(f"{type(error).__name__}: {error}")
        return _complain(
            f"an unexpected failure: {reason}. Run it again with HIVE_DEBUG=1 to see where, and report it."
        )


def _complain(text: str, code: int = EXIT_FAILED) -> int:
    print(f"hivectl: {text}", file=sys.stderr)
    return code


def _abandon_stdout() -> None:
    """Keep the interpreter from flushing to the broken stdout again at exit."""
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, sys.stdout.fileno())
    os.close(null)

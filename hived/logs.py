"""Structured logs: one event a line, key=value or JSON, on stderr.

Under systemd (JOURNAL_STREAM set) each line starts with its syslog priority, as
sd-daemon(3) defines it, and carries no time: the journal has its own.
"""

from __future__ import annotations

import json
import logging
import os
import sys
import time
from logging.handlers import WatchedFileHandler
from pathlib import Path
from typing import Any, TextIO

from .errors import failed

LEVELS = ("debug", "info", "warning", "error")
FORMATS = ("text", "json")
_PRIORITY = {"DEBUG": 7, "INFO": 6, "WARNING": 4, "ERROR": 3, "CRITICAL": 2}


class Log:
    """A named event log. Fields are keyword arguments; secrets never are."""

    def __init__(self, name: str) -> None:
        self._log = logging.getLogger(name)

    def _emit(self, level: int, event: str, fields: dict[str, Any], trace: bool = False) -> None:
        if self._log.isEnabledFor(level):
            self._log.log(level, event, extra={"fields": fields}, exc_info=trace)

    def debug(self, event: str, /, **fields: Any) -> None:
        self._emit(logging.DEBUG, event, fields)

    def info(self, event: str, /, **fields: Any) -> None:
        self._emit(logging.INFO, event, fields)

    def warning(self, event: str, /, **fields: Any) -> None:
        self._emit(logging.WARNING, event, fields)

    def error(self, event: str, /, **fields: Any) -> None:
        self._emit(logging.ERROR, event, fields)

    def exception(self, event: str, /, **fields: Any) -> None:
        """A defect of our own: the event with its traceback."""
        self._emit(logging.ERROR, event, fields, trace=True)


def who(peer_id: str, name: str) -> dict[str, str]:
    """The fields that say which peer an event is about; ``name``: what it calls itself, "" for unknown."""
    return {"peer": peer_id, "name": name} if name else {"peer": peer_id}


def _quote(value: Any) -> str:
    text = str(value)
    if text and all(c.isprintable() and c not in ' "=' for c in text):
        return text
    # Also keeps a hostile peer's line breaks and escape sequences out of the log.
    return json.dumps(text)


class Formatter(logging.Formatter):
    """Formats one record as one line; a traceback is escaped into a field."""

    def __init__(self, form: str, journal: bool) -> None:
        super().__init__()
        self._json = form == "json"
        self._journal = journal

    def format(self, record: logging.LogRecord) -> str:
        fields: dict[str, Any] = dict(getattr(record, "fields", {}))
        if record.exc_info:
            fields["traceback"] = self.formatException(record.exc_info)
        when = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created)) + f".{int(record.msecs):03}Z"
        if self._json:
            head = {"time": when, "level": record.levelname.lower(), "logger": record.name}
            line = json.dumps({**head, "event": record.getMessage(), **fields}, default=str)
        else:
            pairs = "".join(f" {key}={_quote(value)}" for key, value in fields.items())
            event = record.getMessage().replace("\n", " ")
            line = f"{record.levelname.lower()} {record.name.removeprefix('hived.')}: {event}{pairs}"
            if not self._journal:
                line = f"{when} {line}"
        return f"<{_PRIORITY.get(record.levelname, 6)}>{line}" if self._journal else line


class _File(WatchedFileHandler):
    """A log file; while it cannot be begun anew, events go to standard error."""

    def emit(self, record: logging.LogRecord) -> None:
        try:
            super().emit(record)
        except OSError:
            print(self.format(record), file=sys.stderr)


def _is_journal(stream: TextIO) -> bool:
    """Whether a stream goes to the journal (systemd.exec(5), JOURNAL_STREAM), not where a shell sent it."""
    try:
        found = os.fstat(stream.fileno())
    except (OSError, ValueError):
        return False
    return os.environ.get("JOURNAL_STREAM") == f"{found.st_dev}:{found.st_ino}"


def say(line: str) -> None:
    """An error's line to standard error, also where no event log is set up yet."""
    lead = f"<{_PRIORITY['ERROR']}>" if _is_journal(sys.stderr) else ""
    print(f"{lead}{line}", file=sys.stderr)


def setup(level: str, form: str, stream: TextIO | None = None, file: Path | None = None) -> None:
    """Send hived's events to stderr (or ``stream``, or ``file``); may be called again to change them.

    A file that was moved away, as logrotate does, is begun anew. Raises HiveError when it can't be written.
    """
    handler: logging.Handler
    if file is not None:
        try:
            handler = _File(file, encoding="utf-8")
        except OSError as error:
            raise failed(
                f"writing {file} failed", error.strerror or str(error), "Name another: --log-file FILE"
            ) from None
        handler.setFormatter(Formatter(form, journal=False))
    else:
        handler = logging.StreamHandler(stream or sys.stderr)
        handler.setFormatter(Formatter(form, journal=_is_journal(stream or sys.stderr)))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.ERROR)
    logging.getLogger("hived").setLevel(level.upper())
    # py-libp2p reports ordinary network churn as errors; what matters we log ourselves.
    for noisy in ("libp2p", "multiaddr", "async_service"):
        logging.getLogger(noisy).setLevel(logging.CRITICAL)

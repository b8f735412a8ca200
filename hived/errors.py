"""The failures a user can meet.

One kind is one HTTP status and one exit code, so that the daemon, its API and the
command line say the same thing about the same failure. An error carries three
short texts, printed as one line: WHAT FAILED: WHY. WHAT TO DO.
"""

from __future__ import annotations

from enum import Enum


class Kind(Enum):
    """What sort of failure it is: (name on the wire, HTTP status, exit code)."""

    FAILED = ("failed", 500, 1)
    USAGE = ("usage", 400, 2)
    NO_DAEMON = ("no-daemon", 503, 3)
    LOGIN_REQUIRED = ("login-required", 401, 4)
    DENIED = ("denied", 403, 4)
    NOT_FOUND = ("not-found", 404, 5)
    CONFLICT = ("conflict", 409, 6)
    UNREACHABLE = ("unreachable", 502, 7)

    def __init__(self, wire: str, status: int, exit_code: int) -> None:
        self.wire = wire
        self.status = status
        self.exit_code = exit_code

    @classmethod
    def from_wire(cls, name: str) -> Kind:
        """The kind with this wire name; FAILED for one this version does not know."""
        return next((kind for kind in cls if kind.wire == name), cls.FAILED)


class HiveError(Exception):
    """A failure to show to a person.

    ``what`` failed, ``why`` it did, and ``hint``, what to do next. No text ends with
    a full stop: :meth:`line` sets the punctuation.
    """

    def __init__(self, kind: Kind, what: str, why: str = "", hint: str = "") -> None:
        super().__init__(what, why, hint)
        self.kind = kind
        self.what = what
        self.why = why
        self.hint = hint

    def line(self) -> str:
        """The failure as one line: ``WHAT FAILED: WHY. WHAT TO DO.``"""
        text = f"{self.what}: {self.why}" if self.why else self.what
        if self.hint:
            text = f"{text} {self.hint}" if text.endswith("?") else f"{text}. {self.hint}"
        text = " ".join(text.split())
        return text if text.endswith((".", "?")) else text + "."

    def __str__(self) -> str:
        return self.line()


def usage(what: str, why: str = "", hint: str = "") -> HiveError:
    """Wrong usage or malformed input: HTTP 400, exit code 2."""
    return HiveError(Kind.USAGE, what, why, hint)


def failed(what: str, why: str = "", hint: str = "") -> HiveError:
    """A failure of this node itself: HTTP 500, exit code 1."""
    return HiveError(Kind.FAILED, what, why, hint)


def denied(what: str, why: str = "", hint: str = "") -> HiveError:
    """Not allowed: HTTP 403, exit code 4."""
    return HiveError(Kind.DENIED, what, why, hint)


def not_found(what: str, why: str = "", hint: str = "") -> HiveError:
    """No such thing: HTTP 404, exit code 5."""
    return HiveError(Kind.NOT_FOUND, what, why, hint)


def conflict(what: str, why: str = "", hint: str = "") -> HiveError:
    """It exists already, or the port is taken: HTTP 409, exit code 6."""
    return HiveError(Kind.CONFLICT, what, why, hint)


def unreachable(what: str, why: str = "", hint: str = "") -> HiveError:
    """The other node cannot be reached: HTTP 502, exit code 7."""
    return HiveError(Kind.UNREACHABLE, what, why, hint)


def several(names: list[str], most: int = 5) -> str:
    """Names in a message: ``a, b``; ``a, b and 3 more`` where there are more than ``most``."""
    shown = ", ".join(names[:most])
    return shown if len(names) <= most else f"{shown} and {len(names) - most} more"

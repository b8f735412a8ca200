"""Lives of a session to begin with: short ones with a point, and long ones by chance."""

from __future__ import annotations

import random

from hived.transport.frames import DATA, SYN, header

from .session import MOST_STEPS

# What the table of steps has for it.
FRAME, OPEN, ACCEPT, END, CLOSE, WRITE, PING, DISMISS, NOISE, DRAIN = 0, 3, 4, 5, 8, 9, 11, 12, 13, 14
NO_FLAGS, OPENED, FINISHED, RESET, ACKNOWLEDGED, OPENED_AND_FINISHED = 0, 2, 4, 5, 6, 7
CREDIT, PINGED, GONE = 2, 5, 6
TAKES, GIVES, ENDED, PLANS, REPLACED, HEAD = 0, 2, 4, 5, 6, 7


def frame(kind: int, flags: int, where: int, size: int, part: int = 0) -> bytes:
    return bytes([FRAME, kind | flags << 3 | part << 6, where, size])


def short() -> list[bytes]:
    opened, accept = frame(CREDIT, OPENED, 0, 0), bytes([ACCEPT])
    ours, write, ping = bytes([OPEN]), bytes([WRITE, 3]), bytes([PING])
    takes, gives, ended = (bytes([END, what, 0, 5]) for what in (TAKES, GIVES, ENDED))
    data, more, ends = frame(DATA, 0, 200, 3), frame(DATA, 0, 200, 2, 3), frame(DATA, FINISHED, 200, 1)
    close, reset, dismiss = bytes([CLOSE, 1, 0]), bytes([CLOSE, 0, 0]), bytes([DISMISS])
    acknowledged, gone = frame(CREDIT, ACKNOWLEDGED, 200, 3), frame(CREDIT, RESET, 200, 0)
    return [
        b"",
        opened + accept + data + takes + gives + write + ended + write + ends,
        ours + write + acknowledged + gives + write + data + takes + ends + ended + write,
        opened * 5 + write + accept * 3 + opened + data * 5,
        ours * 9 + write + acknowledged * 4 + reset * 3 + write,
        opened + accept + more + close + data + write + ends,
        opened + accept + takes + frame(DATA, 0, 200, 5) * 4 + write,
        opened + accept + frame(DATA, 0, 200, 6),
        opened + accept + frame(DATA, 0, 200, 5) + frame(DATA, 0, 200, 1),
        opened + accept + bytes([END, PLANS, 0, 0]) + data + takes + write,
        opened + accept + bytes([END, PLANS, 0, 0]) + takes + data + write,
        opened + accept + bytes([END, PLANS, 0, 16]) + takes + ends + write,
        opened + accept + gives + close + write + gone + write,
        opened + gone + accept + write,
        opened + dismiss + write + ping + frame(PINGED, ACKNOWLEDGED, 0, 1) + frame(PINGED, 2, 0, 7) * 40,
        ours * 5 + bytes([DRAIN]) + opened + ours + write + frame(GONE, 0, 0, 1),
        opened + accept + data + frame(GONE, 0, 0, 0) + ours + takes + ended + ends + write,
        bytes([NOISE, 0, 12]) + header(DATA, SYN, 1, 0),
        ours + bytes([END, HEAD, 0, 0]) + ended + write + acknowledged + data + ends,
        ours + reset + write,
        opened + accept + ends + data + write,
        opened + accept + ends + takes + takes + bytes([END, REPLACED, 0, 1]) + takes,
        opened + accept + ended + write + opened,
        opened + accept + ended + write + ends + frame(CREDIT, OPENED, 250, 0),
        opened + accept + frame(CREDIT, OPENED, 194, 0),
        (opened + accept + close + write) * 6 + data * 9 + write,
        (opened + accept + gives) * 6 + close + b"".join(bytes([CLOSE, 1, n]) for n in range(6)) + write * 9,
        (opened + accept) * 6 + opened * 2 + b"".join(frame(DATA, 0, 193 + n, 5) for n in range(6)),
        (opened + accept) * 6
        + b"".join(
            bytes([END, TAKES, n, 5]) * 4 + frame(DATA, 0, 192 + n, 4) + frame(DATA, 0, 192 + n, 5)
            for n in range(6)
        ),
        opened + accept + data + bytes([END, PLANS, 0, 0, END, TAKES, 0, 1]),
        opened * 40,
        (opened + accept + write) * 4 + frame(DATA, 0, 200, 1) + bytes([WRITE, 0]),
        opened + accept + close + write + frame(DATA, 0, 227, 3) * 9,
    ]


def long(number: int) -> bytes:
    """Steps by chance, most of which make sense."""
    chance = random.Random(number)
    steps = b""
    for _ in range(MOST_STEPS):
        kind = chance.choices(
            [FRAME, OPEN, ACCEPT, END, CLOSE, WRITE, PING, DISMISS],
            [40, 8, 14, 40, chance.choice([2, 12]), chance.choice([2, 30]), 1, 2],
        )[0]
        size = chance.choice([0, 1, 2, 2, 3, 3, 4, 4, 5])
        which = chance.randrange(256)
        if kind == FRAME:
            flags = chance.choices(
                [NO_FLAGS, OPENED, FINISHED, RESET, ACKNOWLEDGED, OPENED_AND_FINISHED], [30, 20, 4, 2, 4, 1]
            )[0]
            where = chance.randrange(192) if flags in (OPENED, OPENED_AND_FINISHED) else 192 + which % 32
            what = CREDIT if flags not in (NO_FLAGS, FINISHED) else chance.choice([DATA, DATA, DATA, CREDIT])
            # Windows end soon where nobody looks at them.
            size = min(size, 3) if what == DATA else size
            steps += frame(what, flags, where, size, chance.choice([0, 0, 0, 3]))
        elif kind == END:
            what = chance.choices([TAKES, GIVES, ENDED, PLANS, REPLACED, HEAD], [30, 20, 3, 3, 3, 3])[0]
            steps += bytes([END, what, which, chance.randrange(32) if what in (PLANS, HEAD) else size])
        elif kind == CLOSE:
            steps += bytes([CLOSE, chance.randrange(2), which])
        elif kind == WRITE:
            steps += bytes([WRITE, which])
        else:
            steps += bytes([kind])
    return steps


def lives() -> list[bytes]:
    """First byte: which side opens the connection, and which bound of all windows it has."""
    return [bytes([side]) + life for life in (*short(), *map(long, range(24))) for side in range(4)]

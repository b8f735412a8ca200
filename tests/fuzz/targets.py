"""All targets by name."""

from __future__ import annotations

from . import exchange, frames, http, join, messages, ranges, records

TARGETS = {
    target.name: target
    for target in (
        records.TARGET,
        messages.TARGET,
        ranges.TARGET,
        exchange.TARGET,
        join.TARGET,
        http.TARGET,
        frames.TARGET,
    )
}

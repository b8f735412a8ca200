"""A node out of a backup: until it was in touch with others for a while, a copy that runs ends it."""

from __future__ import annotations

import trio

from ..errors import conflict
from ..logs import Log
from ..store.settings import Settings
from .host import Host
from .sync import Sync

log = Log("hived.overlay.probation")

TOUCHED_SECONDS = 600.0
STEP_SECONDS = 10.0


class Probation:
    """``since``: when the backup was taken up, epoch seconds; None when there is no probation (any more)."""

    def __init__(self, settings: Settings, sync: Sync, host: Host) -> None:
        self.since: float | None = None
        self._settings = settings
        self._sync = sync
        self._host = host

    async def run(self) -> None:
        """Until it is over. Raises HiveError (conflict) when the original runs."""
        self.since = await self._settings.restored()
        if self.since is None:
            return
        twin = trio.Event()
        self._sync.author.on_twin = twin.set
        touched = 0.0
        while touched < TOUCHED_SECONDS:
            with trio.move_on_after(STEP_SECONDS):
                await twin.wait()
                raise conflict(
                    "running the restored node failed",
                    "the node that the backup was made of still runs elsewhere",
                    "Stop it for good (there: systemctl disable --now hived hived.socket hived-web.socket),"
                    " then start this one again",
                )
            touched += STEP_SECONDS if any(c.usable for c in self._host.all_connections()) else 0
        await self._settings.clear_restored()
        self.since = None
        log.info("the restored node is the only one of its identity")

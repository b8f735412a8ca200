"""Changes of addresses and routes from the kernel (rtnetlink(7)): an event, not a poll."""

from __future__ import annotations

import socket
from collections.abc import Awaitable, Callable

import trio

from ..logs import Log

log = Log("hived.system.netlink")

# linux/rtnetlink.h; the socket module has only the protocol number.
_NETLINK_ROUTE = 0
_RTMGRP_LINK = 0x1
_RTMGRP_IPV4_IFADDR = 0x10
_RTMGRP_IPV4_ROUTE = 0x40
_RTMGRP_IPV6_IFADDR = 0x100
_RTMGRP_IPV6_ROUTE = 0x400
_GROUPS = _RTMGRP_LINK | _RTMGRP_IPV4_IFADDR | _RTMGRP_IPV4_ROUTE | _RTMGRP_IPV6_IFADDR | _RTMGRP_IPV6_ROUTE
SETTLE_SECONDS = 0.3


async def watch_addresses(changed: Callable[[], Awaitable[None]]) -> None:
    """Call ``changed`` after links, addresses or routes of this machine changed, a burst once.

    Until cancelled.
    """
    try:
        sock = trio.socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, _NETLINK_ROUTE)
        await sock.bind((0, _GROUPS))
    except OSError as error:
        log.warning("changes of the network will not be noticed", why=error.strerror)
        return
    with sock:
        while True:
            await _wait(sock)
            with trio.move_on_after(SETTLE_SECONDS):
                while True:
                    await _wait(sock)
            await changed()


async def _wait(sock: trio.socket.SocketType) -> None:
    try:
        await sock.recv(65536)
    except OSError as error:
        # ENOBUFS: messages were lost, which is news enough.
        log.debug("netlink", why=error.strerror)

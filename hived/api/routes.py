"""The routes table. A call is one typed function and one row here.

Its path parameters are the function's arguments of the same names, ``body`` is typed with
the request's Struct, and the answer is what it returns; OpenAPI comes from the same types.
"""

from __future__ import annotations

import inspect
import typing
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from enum import Enum
from functools import cached_property
from typing import Any
from urllib.parse import unquote

from ..errors import HiveError, Kind, not_found
from ..schema import MAX_BACKUP
from . import calls_admin, calls_backup, calls_network, calls_paths, calls_proxy, calls_rekey, calls_status
from .auth import Caller
from .http import MAX_BODY
from .node import Node


class Access(Enum):
    """Who may call: anybody who reaches the API, local users, or admins."""

    ANYONE = "anyone"
    LOCAL = "local"
    ADMIN = "admin"

    def check(self, caller: Caller) -> None:
        """Raises HiveError (login-required)."""
        allowed = caller.is_admin or self is Access.ANYONE or (self is Access.LOCAL and caller.is_local)
        if not allowed:
            raise HiveError(
                Kind.LOGIN_REQUIRED, "the call was refused", "you are not logged in", "Log in: hivectl login"
            )


class Shape(Enum):
    """One answer, the same again at every change with ``?watch=true``, a stream of lines, or raw bytes."""

    CALL = "call"
    WATCH = "watch"
    STREAM = "stream"
    TUNNEL = "tunnel"


@dataclass(frozen=True)
class Route:
    """``path`` has parameters as ``{name}``, each one path segment.

    ``max_body`` are bytes; with ``restarts`` hived starts anew once the answer is out.
    """

    method: str
    path: str
    access: Access
    function: Callable[..., Awaitable[Any]]
    shape: Shape = Shape.CALL
    max_body: int = MAX_BODY
    restarts: bool = False

    @cached_property
    def parts(self) -> tuple[str, ...]:
        return tuple(self.path.split("/"))

    @cached_property
    def hints(self) -> dict[str, Any]:
        return typing.get_type_hints(self.function, include_extras=True)

    @property
    def body(self) -> Any:
        """The request's type, or None."""
        return self.hints.get("body")

    @property
    def parameters(self) -> list[str]:
        return [part[1:-1] for part in self.parts if part.startswith("{")]

    @property
    def query(self) -> list[str]:
        """Names of the optional text parameters of the query."""
        signature = inspect.signature(self.function)
        return [
            n
            for n, p in signature.parameters.items()
            if p.kind is p.KEYWORD_ONLY and n not in ("emit", "call")
        ]

    def match(self, parts: list[str]) -> dict[str, str] | None:
        """The path parameters when the path fits."""
        if len(parts) != len(self.parts):
            return None
        found: dict[str, str] = {}
        for mine, theirs in zip(self.parts, parts, strict=True):
            if mine.startswith("{"):
                if not theirs:
                    return None
                found[mine[1:-1]] = unquote(theirs)
            elif mine != theirs:
                return None
        return found


# In base64, with the other fields.
_RESTORE_BODY = MAX_BACKUP * 4 // 3 + MAX_BODY

ROUTES: tuple[Route, ...] = (
    Route("GET", "/v1/info", Access.ANYONE, calls_status.info),
    Route("GET", "/v1/id", Access.LOCAL, calls_status.identity),
    Route("GET", "/v1/status", Access.ADMIN, calls_status.status, Shape.WATCH),
    Route("POST", "/v1/reload", Access.ADMIN, calls_status.reload),
    Route("PUT", "/v1/name", Access.ADMIN, calls_status.rename),
    Route("POST", "/v1/login", Access.ANYONE, calls_admin.login),
    Route("POST", "/v1/logout", Access.ANYONE, calls_admin.logout),
    Route("GET", "/v1/sessions", Access.ADMIN, calls_admin.sessions),
    Route("DELETE", "/v1/sessions/{session_id}", Access.ADMIN, calls_admin.end_session),
    Route("GET", "/v1/admins", Access.ADMIN, calls_admin.admins),
    Route("PUT", "/v1/admins/{user}", Access.ADMIN, calls_admin.set_admin),
    Route("DELETE", "/v1/admins/{user}", Access.ADMIN, calls_admin.remove_admin),
    Route("POST", "/v1/backup", Access.ADMIN, calls_backup.backup),
    Route("POST", "/v1/restore", Access.ADMIN, calls_backup.restore, max_body=_RESTORE_BODY, restarts=True),
    Route("GET", "/v1/networks", Access.ADMIN, calls_network.networks),
    Route("POST", "/v1/networks", Access.ADMIN, calls_network.create_network),
    Route("DELETE", "/v1/networks/{name}", Access.ADMIN, calls_network.leave_network),
    Route("POST", "/v1/networks/{name}/rekey", Access.ADMIN, calls_rekey.rekey_network),
    Route("POST", "/v1/register", Access.ADMIN, calls_network.register),
    Route("GET", "/v1/nodes", Access.ADMIN, calls_network.nodes, Shape.WATCH),
    Route("GET", "/v1/nodes/{node_ref}", Access.ADMIN, calls_network.show_node),
    Route("POST", "/v1/nodes/{node_ref}/ping", Access.ADMIN, calls_paths.ping),
    Route("GET", "/v1/netcheck", Access.ADMIN, calls_paths.netcheck),
    Route("DELETE", "/v1/nodes/{node_ref}", Access.ADMIN, calls_network.forget_node),
    Route("PUT", "/v1/nodes/{node_ref}/alias", Access.ADMIN, calls_network.set_alias),
    Route("PUT", "/v1/nodes/{node_ref}/block", Access.ADMIN, calls_network.block_node),
    Route("DELETE", "/v1/nodes/{node_ref}/block", Access.ADMIN, calls_network.unblock_node),
    Route("GET", "/v1/proxies", Access.ADMIN, calls_proxy.proxies, Shape.WATCH),
    Route("POST", "/v1/proxies", Access.ADMIN, calls_proxy.add_proxy),
    Route("GET", "/v1/proxies/{proxy_id}", Access.ADMIN, calls_proxy.show_proxy),
    Route("DELETE", "/v1/proxies/{proxy_id}", Access.ADMIN, calls_proxy.remove_proxy),
    Route("POST", "/v1/proxies/{proxy_id}/enable", Access.ADMIN, calls_proxy.enable_proxy),
    Route("POST", "/v1/proxies/{proxy_id}/disable", Access.ADMIN, calls_proxy.disable_proxy),
    Route("POST", "/v1/forward", Access.ADMIN, calls_proxy.forward, Shape.STREAM),
    Route("POST", "/v1/tunnel/{node_ref}", Access.ADMIN, calls_network.tunnel, Shape.TUNNEL),
)


def find(method: str, path: str, routes: tuple[Route, ...] = ROUTES) -> tuple[Route, dict[str, str]]:
    """The route of a request and its path parameters. Raises HiveError (not_found)."""
    parts = path.split("/")
    methods: list[str] = []
    for route in routes:
        found = route.match(parts)
        if found is not None:
            if route.method == method:
                return route, found
            methods.append(route.method)
    if methods:
        raise not_found(
            f"{method} {path} failed", f"this path knows only {', '.join(methods)}", "See /v1/openapi.json"
        )
    raise not_found(f"{method} {path} failed", "the API has no such path", "See /v1/openapi.json")


async def invoke(
    route: Route,
    node: Node,
    caller: Caller,
    parameters: Mapping[str, str],
    query: Mapping[str, str],
    body: Any,
) -> Any:
    """Run a call: its answer (a Struct or a list of them)."""
    arguments: dict[str, Any] = dict(parameters)
    if route.body is not None:
        arguments["body"] = body
    arguments.update({name: query[name] for name in route.query if name in query})
    return await route.function(node, caller, **arguments)

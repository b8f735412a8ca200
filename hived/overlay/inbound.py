"""The listeners of a host, and who comes in through them: admission, handshakes at once, who is expected."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Iterator

import trio

from ..logs import Log
from ..transport.listeners import Kept
from .addresses import of_socket, parse, source_of
from .admission import Admission
from .connection import DialError
from .sockets import OWNER, Origin, abort, bind

log = Log("hived.overlay.inbound")

MAX_HANDSHAKES = 64
QUIET_SECONDS = 10.0
_FULL_SECONDS = 0.2

# The stream, the remote multiaddr, and the peer that is expected from there. Raises DialError.
Welcome = Callable[[trio.SocketStream, str, str | None], Awaitable[None]]


class Inbound:
    """Accepts, in ``nursery``, and hands whoever may come in to ``welcome``; ``kept`` outlives it."""

    def __init__(self, kept: Kept, welcome: Welcome) -> None:
        self.admission = Admission()
        self.nursery: trio.Nursery | None = None
        self.handshakes: dict[trio.CancelScope, str] = {}
        self.expected: dict[str, str] = {}
        self._kept = kept
        self._welcome = welcome
        self._listeners: dict[str, tuple[trio.SocketListener, trio.CancelScope]] = {}
        self._refused = 0
        self._quiet_until = 0.0

    @property
    def listening(self) -> list[str]:
        """The multiaddrs of the listeners, with their real ports; wildcards stay wildcards."""
        return [of_socket(end) for end in self.origins()]

    def origins(self) -> list[Origin]:
        """Where the listeners are bound."""
        return [listener.socket.getsockname()[:2] for listener, _ in self._listeners.values()]

    def listen(self, addresses: Iterable[str]) -> None:
        """Make the listeners exactly these. Raises HiveError (conflict, failed) and changes nothing then."""
        wanted = list(dict.fromkeys(addresses))
        if not self._listeners:
            # What an earlier configuration had listen would be in the way of this one.
            ends = [parse(text) for text in wanted]
            self._kept.retain(OWNER, [(end.host, end.port) for end in ends if end.kind.startswith("ip")])
        made: list[tuple[str, trio.SocketListener]] = []
        try:
            for text in wanted:
                if text not in self._listeners:
                    made.append((text, bind(parse(text), self._kept)))
        except BaseException:
            for text, listener in made:
                listener.socket.close()
                self._drop_kept(text)
            raise
        for text in set(self._listeners) - set(wanted):
            self._close(text)
            self._drop_kept(text)
        assert self.nursery is not None, "listen() before run()"
        for text, listener in made:
            scope = trio.CancelScope()
            self._listeners[text] = (listener, scope)
            self.nursery.start_soon(self._accept, listener, scope)

    def stop(self) -> None:
        """Close the listeners; connections stay, and what is kept waits for the next host."""
        for text in list(self._listeners):
            self._close(text)

    def _close(self, text: str) -> None:
        listener, scope = self._listeners.pop(text)
        scope.cancel()
        listener.socket.close()

    def _drop_kept(self, text: str) -> None:
        end = parse(text)
        self._kept.drop(OWNER, end.host, end.port)

    @contextlib.contextmanager
    def expecting(self, addresses: Iterable[str], peer_id: str) -> Iterator[None]:
        """Within the block, who comes from one of these addresses is that peer, and our server."""
        mine = dict.fromkeys(addresses, peer_id)
        self.expected |= mine
        try:
            yield
        finally:
            for address in mine:
                self.expected.pop(address, None)

    async def _accept(self, listener: trio.SocketListener, scope: trio.CancelScope) -> None:
        nursery = self.nursery
        if nursery is None:
            # It was stopped before it began.
            return
        with scope:
            while True:
                try:
                    stream = await listener.accept()
                except trio.ClosedResourceError:
                    return
                except OSError as error:
                    # Out of file descriptors and the like: wait for some to come back.
                    log.error("accepting connections failed", why=error.strerror or error)
                    await trio.sleep(_FULL_SECONDS)
                    continue
                try:
                    remote = of_socket(stream.socket.getpeername()[:2])
                except OSError:
                    remote = ""
                if not remote or not self.admission.admit(source_of(remote), trio.current_time()):
                    self._turned_away()
                    abort(stream)
                elif remote in self.expected:
                    # Once: the address may be that of somebody else, who then gets in the next time.
                    nursery.start_soon(self._greet, stream, remote, self.expected.pop(remote))
                else:
                    nursery.start_soon(self._greet_stranger, stream, remote)

    def _turned_away(self) -> None:
        """One line in ten seconds, with the count: a flood of connections is none of the log."""
        self._refused += 1
        now = trio.current_time()
        if now >= self._quiet_until:
            log.warning("more connections than are worth a handshake", turned_away=self._refused)
            self._refused, self._quiet_until = 0, now + QUIET_SECONDS

    async def _greet_stranger(self, stream: trio.SocketStream, remote: str) -> None:
        with trio.CancelScope() as scope:
            self.handshakes[scope] = source_of(remote)
            if len(self.handshakes) > MAX_HANDSHAKES:
                # Of whoever has most, what has been silent longest has had its chance.
                self._turned_away()
                busiest, _ = Counter(self.handshakes.values()).most_common(1)[0]
                oldest = next(scope for scope, source in self.handshakes.items() if source == busiest)
                del self.handshakes[oldest]
                oldest.cancel()
            try:
                await self._greet(stream, remote, None)
            finally:
                self.handshakes.pop(scope, None)

    async def _greet(self, stream: trio.SocketStream, remote: str, peer_id: str | None) -> None:
        try:
            await self._welcome(stream, remote, peer_id)
        except DialError as error:
            log.debug("handshake failed", remote=remote, why=error)
        except Exception:
            # A stranger's bytes got past all that reads them: one connection's end, not everybody's.
            log.exception("a defect in a handshake; please report it", remote=remote)

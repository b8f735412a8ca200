"""From a byte pipe to a secured one: multistream-select and Noise XX, by py-libp2p.

py-libp2p runs the handshake and proves the identities (libp2p specs: noise,
connections); afterwards its cipher states are used directly, each Noise message with its
length in 2 bytes before it (noise spec, wire format). The cipher states are a private part of
py-libp2p 0.8.1, which is therefore pinned; no other module touches one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

import trio
from libp2p.abc import IRawConnection
from libp2p.crypto.keys import KeyPair
from libp2p.crypto.x25519 import create_new_key_pair as create_x25519
from libp2p.custom_types import TProtocol
from libp2p.io.exceptions import IOException
from libp2p.peer.id import ID
from libp2p.protocol_muxer.multiselect import Multiselect
from libp2p.protocol_muxer.multiselect_client import MultiselectClient
from libp2p.protocol_muxer.multiselect_communicator import MultiselectCommunicator
from libp2p.security.noise.io import NoiseTransportReadWriter
from libp2p.security.noise.transport import PROTOCOL_ID as NOISE
from libp2p.security.noise.transport import Transport as NoiseTransport
from libp2p.stream_muxer.yamux.yamux import PROTOCOL_ID as YAMUX

HANDSHAKE_SECONDS = 10.0
MAX_PLAINTEXT = 65535 - 16
_RECEIVE_BYTES = 65536


class HandshakeError(Exception):
    """The other side does not speak the protocol, or is not who it should be."""


class RawPipe(IRawConnection):
    """A byte pipe in the shape that py-libp2p's handshakes want."""

    def __init__(self, pipe: trio.abc.Stream, initiator: bool) -> None:
        self.pipe = pipe
        self.is_initiator = initiator
        self._pushed_back = b""

    async def read(self, n: int | None = None) -> bytes:
        # Never more than asked for: what follows the handshake belongs to the next layer.
        try:
            return bytes(await self.pipe.receive_some(n))
        except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
            raise IOException(str(error)) from error

    async def write(self, data: bytes) -> None:
        try:
            await self.pipe.send_all(data)
        except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
            raise IOException(str(error)) from error

    async def close(self) -> None:
        await trio.aclose_forcefully(self.pipe)

    def get_remote_address(self) -> tuple[str, int] | None:
        return None

    def get_transport_addresses(self) -> list[Any]:
        return []

    def get_connection_type(self) -> Any:
        from libp2p.connection_types import ConnectionType

        return ConnectionType.UNKNOWN


@dataclass(frozen=True)
class Secured:
    """A pipe to an authenticated peer; ``handshake_hash`` identifies this very connection."""

    pipe: NoisePipe
    peer_id: str
    handshake_hash: bytes


class NoisePipe(trio.abc.Stream):
    """Noise transport messages over a byte pipe (libp2p noise spec, wire format).

    Not for concurrent senders or receivers; a cancelled send breaks it, so the muxer's
    one writer sends and is cancelled only to close.
    """

    def __init__(self, pipe: trio.abc.Stream, state: Any) -> None:
        self._pipe = pipe
        self._encrypt = state.encrypt
        self._decrypt = state.decrypt
        self._raw = bytearray()
        self._plain = b""

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        view = memoryview(data)
        while view:
            sealed = self._encrypt(bytes(view[:MAX_PLAINTEXT]))
            await self._pipe.send_all(len(sealed).to_bytes(2, "big") + sealed)
            view = view[MAX_PLAINTEXT:]

    async def wait_send_all_might_not_block(self) -> None:
        await self._pipe.wait_send_all_might_not_block()

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        while not self._plain:
            message = await self._message()
            if message is None:
                return b""
            try:
                self._plain = bytes(self._decrypt(message))
            except Exception as error:  # the noise package raises what its back ends raise
                raise trio.BrokenResourceError("a Noise message does not decrypt") from error
        if max_bytes is None or max_bytes >= len(self._plain):
            plain, self._plain = self._plain, b""
        else:
            plain, self._plain = self._plain[:max_bytes], self._plain[max_bytes:]
        return plain

    async def _message(self) -> bytes | None:
        """The next ciphertext, or None at a clean end."""
        while True:
            if len(self._raw) >= 2:
                end = 2 + int.from_bytes(self._raw[:2], "big")
                if len(self._raw) >= end:
                    message = bytes(self._raw[2:end])
                    del self._raw[:end]
                    return message
            data = await self._pipe.receive_some(_RECEIVE_BYTES)
            if not data:
                if self._raw:
                    raise trio.BrokenResourceError("the connection ended inside a Noise message")
                return None
            self._raw += data

    async def aclose(self) -> None:
        await self._pipe.aclose()


class Upgrader:
    """Secures pipes with this node's identity and agrees on the stream muxer."""

    def __init__(self, key_pair: KeyPair) -> None:
        self._noise = NoiseTransport(key_pair, create_x25519().private_key)

    async def upgrade(self, pipe: trio.abc.Stream, *, initiator: bool, expected: str | None) -> Secured:
        """Secure ``pipe``. ``expected`` is the peer ID that the other side must prove (dialer).

        Raises HandshakeError, also after 10 s; the pipe is then the caller's to close.
        """
        try:
            with trio.fail_after(HANDSHAKE_SECONDS):
                return await self._upgrade(RawPipe(pipe, initiator), expected)
        except trio.TooSlowError:
            raise HandshakeError(f"no handshake within {HANDSHAKE_SECONDS:.0f} s") from None
        except HandshakeError:
            raise
        except (trio.BrokenResourceError, trio.ClosedResourceError, OSError) as error:
            raise HandshakeError("the connection ended in the handshake") from error
        except Exception as error:
            # A hostile peer can make py-libp2p's parsers raise nearly anything.
            raise HandshakeError(_reason(error)) from error

    async def _upgrade(self, raw: RawPipe, expected: str | None) -> Secured:
        await self._agree(raw, [NOISE])
        if raw.is_initiator:
            if expected is None:
                raise HandshakeError("a dialer must know whom it dials")
            session = await self._noise.secure_outbound(raw, ID.from_string(expected))
        else:
            session = await self._noise.secure_inbound(raw)
        state = cast(NoiseTransportReadWriter, session.conn).noise_state  # type: ignore[attr-defined]
        pipe = NoisePipe(raw.pipe, state)
        await self._agree(RawPipe(pipe, raw.is_initiator), [TProtocol(YAMUX)])
        return Secured(pipe, str(session.get_remote_peer()), bytes(state.get_handshake_hash()))

    async def _agree(self, raw: RawPipe, protocols: Sequence[TProtocol]) -> None:
        if raw.is_initiator:
            await select(raw, protocols[0])
        else:
            await negotiate(raw, protocols)


class NotSpokenError(HandshakeError):
    """The other side answered in order that it speaks none of the protocols."""


async def select(pipe: RawPipe, *protocols: str) -> str:
    """Ask for the first of some protocols that the other side speaks (multistream-select 1.0).

    Raises NotSpokenError when it speaks none, HandshakeError when the conversation fails.
    """
    wanted = [TProtocol(protocol) for protocol in protocols]
    try:
        return str(await MultiselectClient().select_one_of(wanted, MultiselectCommunicator(pipe)))
    except Exception as error:
        kind = NotSpokenError if "rotocols not supported" in str(error) else HandshakeError
        raise kind(f"{' or '.join(protocols)} was not agreed: {_reason(error)}") from error


async def negotiate(pipe: RawPipe, protocols: Sequence[str]) -> str:
    """Answer the other side's multistream-select with one of ``protocols``; which one it took."""
    offered: dict[Any, Any] = {TProtocol(protocol): None for protocol in protocols}
    try:
        chosen, _ = await Multiselect(offered).negotiate(MultiselectCommunicator(pipe))
    except Exception as error:
        raise HandshakeError(f"no protocol was agreed: {_reason(error)}") from error
    if chosen is None:
        raise HandshakeError("no protocol was agreed")
    return str(chosen)


def _reason(error: BaseException) -> str:
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, IOException):
            return "the connection ended"
        cause = cause.__cause__
    return str(error) or type(error).__name__

"""What a peer hears of a yamux session, and what must be so of it."""

from __future__ import annotations

from collections import Counter

from hived.transport.frames import ACK, DATA, FIN, GO_AWAY, INITIAL_WINDOW, RST, SYN, WINDOW_UPDATE, Decoder


class Ear:
    """The peer's ear: what we say must be yamux, on streams that it knows, within the windows it gave."""

    def __init__(self, our_parity: int) -> None:
        # By stream: bytes that may be sent to the peer, who may have said so before it heard of the stream.
        self._room: Counter[int] = Counter()
        self._known: set[int] = set()
        # Streams that the peer has reset.
        self.gave_up: set[int] = set()
        self.gone = False
        self._parity = our_parity
        self._decoder = Decoder()
        self._acked: set[int] = set()
        self._over: set[int] = set()
        self._reset: set[int] = set()

    def opens(self, stream_id: int) -> None:
        """The peer has opened a stream itself."""
        if stream_id not in self._known:
            self._known.add(stream_id)
            self._room[stream_id] += INITIAL_WINDOW

    def credited(self, stream_id: int, credit: int) -> None:
        """The peer takes so many bytes more."""
        self._room[stream_id] += credit

    def hear(self, data: bytes) -> None:
        """Whole frames."""
        for frame in self._decoder.feed(data):
            assert not self.gone, "it speaks behind its farewell"
            stream_id = frame.stream_id
            if frame.kind > WINDOW_UPDATE:
                self.gone = frame.kind == GO_AWAY
                continue
            ours = stream_id & 1 == self._parity
            if frame.flags & SYN:
                assert ours
                assert stream_id not in self._known, "a stream that is opened twice"
                self.opens(stream_id)
            elif not frame.flags & RST:
                assert stream_id in self._known, "a stream that nobody has opened"
            elif stream_id not in self._known:
                assert not ours, "the reset of a stream of which nobody has heard"
                # Refused: the peer has sent to a stream that it has not opened.
                self.opens(stream_id)
            assert stream_id not in self.gave_up or frame.flags & RST, "a word behind the peer's reset"
            if frame.flags & ACK:
                assert not ours
                assert stream_id not in self._acked, "acknowledged twice"
                self._acked.add(stream_id)
            assert stream_id not in self._reset or frame.flags & RST, "a word behind the reset"
            if frame.kind == DATA:
                assert not (stream_id in self._over and frame.length), "data behind the end"
                self._room[stream_id] -= frame.length
                assert self._room[stream_id] >= 0, "more than the window holds"
            if frame.flags & FIN:
                assert stream_id not in self._over, "it ends twice"
                self._over.add(stream_id)
            if frame.flags & RST:
                self._reset.add(stream_id)
        assert self._decoder.idle

"""The life of one yamux session without any I/O, as a script: the peer's frames and our own side's steps.

After every step what the session says is read as a peer would read it, and its accounts are compared with
what its streams really hold.
"""

from __future__ import annotations

from hived.transport.budget import Budget
from hived.transport.departed import RECENT
from hived.transport.frames import (
    ACK,
    DATA,
    FIN,
    GO_AWAY,
    HEADER_BYTES,
    INITIAL_WINDOW,
    MAX_LENGTH,
    NORMAL,
    PING,
    PROTOCOL_ERROR,
    RST,
    SYN,
    WINDOW_UPDATE,
    Decoder,
    ProtocolError,
    header,
)
from hived.transport.limits import MuxLimits
from hived.transport.outbox import Outbox
from hived.transport.session import NoStreamsError, PeerEndedError, Session
from hived.transport.stream import EOF, Stream

from .ear import Ear
from .scriptedend import ScriptedEnd
from .target import Script

# Small, so that a few steps reach them.
LIMITS = MuxLimits(
    max_streams=6,
    accept_backlog=3,
    ack_backlog=3,
    max_window=4 * INITIAL_WINDOW,
    max_windows=10 * INITIAL_WINDOW,
    pending_resets=4,
    lingering=3,
)
MAX_WINDOWS = (7 * INITIAL_WINDOW, 40 * INITIAL_WINDOW)
PRESSURE = INITIAL_WINDOW // 2
MAX_BUFFERED = 3 * INITIAL_WINDOW // 2
MOST_STEPS = 400
"""Fewer than the streams of which a session remembers that they have ended."""
RECORD = 64 * 1024
ZEROS = bytes(4 * INITIAL_WINDOW)
LENGTHS = (0, 1, 100, RECORD, INITIAL_WINDOW // 2, INITIAL_WINDOW, INITIAL_WINDOW + 1, MAX_LENGTH)

assert MOST_STEPS < RECENT


class Life:
    """One session, what its streams' ends do, and the peer's ear."""

    def __init__(self, script: Script) -> None:
        kind = script.byte()
        initiator = bool(kind & 1)
        self.parity = int(initiator)
        # Whether the session's own bound or that of all is met first.
        self.max_windows = min(MAX_WINDOWS[kind >> 1 & 1], LIMITS.max_windows)
        self.script = script
        self.outbox = Outbox()
        self.budget = Budget(MAX_WINDOWS[kind >> 1 & 1], PRESSURE, MAX_BUFFERED)
        self.session = Session(
            initiator=initiator,
            limits=LIMITS,
            outbox=self.outbox,
            budget=self.budget,
            on_incoming=self._incoming,
        )
        self.decoder = Decoder(MAX_LENGTH)
        self.ear = Ear(self.parity)
        self.streams: list[Stream] = []
        self.waiting: list[Stream] = []
        self.ends: list[ScriptedEnd] = []
        self.asked = self.answered = 0
        self.theirs = 0 if initiator else 1
        # Streams that somebody has opened; bytes sent to those that linger.
        self.seen: set[int] = set()
        self.strays: dict[int, int] = {}
        # Bytes that ends have given back.
        self.back = 0
        # Of a frame whose payload has not come whole.
        self.missing = 0
        self.missing_of = 0

    # The peer

    def frame(self) -> None:
        """A frame on a stream that lives, on the peer's next one, or on any; whole, or but for its end."""
        self._complete()
        shape, where, size = self.script.byte(), self.script.byte(), self.script.byte()
        kind = (DATA, DATA, WINDOW_UPDATE, WINDOW_UPDATE, DATA, PING, GO_AWAY, WINDOW_UPDATE)[shape & 7]
        flags = (0, 0, SYN, SYN, FIN, RST, ACK, SYN | FIN)[shape >> 3 & 7]
        lengths = self.script.take(4) if size & 8 else b""
        length = int.from_bytes(lengths, "big") if size & 8 else LENGTHS[size & 7]
        stream_id = self._where(where, flags) if kind <= WINDOW_UPDATE else 0
        self._note(kind, flags, stream_id, length)
        now = 0
        if kind == DATA:
            now = min(length, len(ZEROS)) >> (2 if shape >> 6 == 3 else 0)
            self.missing, self.missing_of = length - now, stream_id
        known = stream_id in self.seen or stream_id & 1 == self.parity
        if kind <= WINDOW_UPDATE and flags & SYN:
            self.seen.add(stream_id)
        lingering = self.session._departed._lingering
        left = lingering.get(stream_id)
        self.feed(header(kind, flags, stream_id, length) + ZEROS[:now])
        if kind > WINDOW_UPDATE:
            return
        assert not (flags & SYN and known), "a stream is opened that is the other side's, or was"
        assert stream_id not in self.session.unacknowledged
        if kind == DATA and left is not None and left is lingering.get(stream_id):
            self.strays[stream_id] = self.strays.get(stream_id, 0) + length
            assert self.strays[stream_id] <= left.inbox.window // 2, "so much to nobody"

    def _where(self, where: int, flags: int) -> int:
        if flags & SYN and where < 192:
            self.theirs += 2
            return self.theirs
        live = list(self.session.streams)
        if where < 224 and live:
            return live[where % len(live)]
        return where % 32 or 33

    def _note(self, kind: int, flags: int, stream_id: int, length: int) -> None:
        if flags & SYN and kind <= WINDOW_UPDATE:
            self.ear.opens(stream_id)
        if kind == WINDOW_UPDATE:
            self.ear.credited(stream_id, length)
        if flags & RST and kind <= WINDOW_UPDATE and stream_id in self.session.streams:
            self.ear.gave_up.add(stream_id)

    def _complete(self) -> None:
        while self.missing:
            part = ZEROS[: self.missing]
            self.missing -= len(part)
            self.feed(part)

    def noise(self) -> None:
        """Bytes that are no frame of ours, unless by chance; in two pieces."""
        self._complete()
        data = self.script.piece()[:48]
        for part in Decoder(MAX_LENGTH).feed(data) if len(data) >= HEADER_BYTES else ():
            self._note(part.kind, part.flags, part.stream_id, part.length)
        self.feed(data[:5])
        self.feed(data[5:])
        # What such a frame has announced never comes.
        if not self.decoder.idle:
            raise ProtocolError("the connection was cut")

    def feed(self, data: bytes) -> None:
        for frame in self.decoder.feed(data):
            self.session.handle(frame)

    def _incoming(self, stream: Stream) -> None:
        self.streams.append(stream)
        self.waiting.append(stream)
        if stream.id & 2:
            self._attach(stream)

    # Our side

    def open(self) -> None:
        """Ask for a stream; it may come later."""
        self.asked += 1
        self.session.when_openable(self._opened)

    def _opened(self) -> None:
        self.answered += 1
        try:
            stream = self.session.open()
        except NoStreamsError:
            assert self.session.draining
            return
        assert stream.id not in self.seen
        self.seen.add(stream.id)
        self.streams.append(stream)
        self._attach(stream)

    def _attach(self, stream: Stream) -> None:
        end = ScriptedEnd()
        end.stream = stream
        self.ends.append(end)
        stream.attach(end)

    def accept(self) -> None:
        if self.waiting:
            stream = self.waiting.pop(0)
            if stream.end is None:
                self._attach(stream)
            self.session.accept(stream)

    def dismiss(self) -> None:
        if self.waiting:
            stream = self.waiting.pop(0)
            stream.reset()
            self.session.dismiss(stream)

    def of_an_end(self) -> None:
        """An end takes more, has more, has all it will have, or plans a deed."""
        what, which, much = self.script.byte(), self.script.byte(), self.script.byte()
        if not self.ends:
            return
        end = self.ends[which % len(self.ends)]
        stream = end.stream
        assert stream is not None
        size = LENGTHS[much & 7]
        match what & 7:
            case 0 | 1:
                end.takes = min(end.takes + size, len(ZEROS))
                if stream.end is end:
                    stream.drain()
            case 2 | 3:
                if not end.ended:
                    end.gives = min(end.gives + size, len(ZEROS))
                stream.ready()
            case 4:
                end.ended = True
                stream.ready()
            case 5:
                deed = (stream.reset, lambda: self.session.close(stream), stream.discard)[much % 3]
                # While it is given bytes, an end may only reset.
                moments = (("deliver", "pull", "finished"), ("pull", "finished"), ("broken",))[much % 3]
                end.deed = moments[(much >> 3) % len(moments)], deed
            case 6:
                if stream.end is end and not (stream.dead or stream.closing):
                    # What the end has not used goes back, as when trio lets go of a stream.
                    unused = min(size, end.taken)
                    end.taken = 0
                    self.back += unused
                    stream.put_back(ZEROS[:unused])
                    self._attach(stream)
            case 7 if much & 8:
                if stream.end is end:
                    end.taken += stream.take_into(memoryview(bytearray(min(size, RECORD))))
            case 7:
                stream.head = stream.head or (b"" if stream.dead else b"head")
                stream.ready()

    def end_stream(self) -> None:
        """Close, reset or forget a stream, as whoever has it may at any time."""
        what, which = self.script.byte(), self.script.byte()
        if self.streams:
            stream = self.streams[which % len(self.streams)]
            if what & 1 and stream.end is not None:
                end = stream.end
                assert isinstance(end, ScriptedEnd)
                end.ended, end.takes = True, MAX_LENGTH
                stream.ready()
                self.session.close(stream)
            else:
                stream.reset()

    def write(self) -> None:
        """What a tunnel does in one pass: control frames, each short stream's record, one of bulk."""
        outbox = self.outbox
        for _ in range(len(outbox.quick)):
            self._emit(outbox.quick.popleft())
        if outbox.bulk:
            self._emit(outbox.bulk.popleft())
        room = (self.script.byte() % 4 + 1) * HEADER_BYTES
        while outbox.urgent:
            said = outbox.take_control(room)
            assert len(said) <= room
            self.ear.hear(said)

    def _emit(self, stream: Stream) -> None:
        stream.queued = False
        while self.outbox.urgent:
            self.ear.hear(self.outbox.take_control(1024))
        self.ear.hear(self.outbox.take_opening(stream))
        limit = min(RECORD, stream.send_window)
        size = 0
        if limit > 0 and not stream.sent_fin and not stream.dead:
            size = stream.fill(memoryview(bytearray(limit)))
        if size == EOF and not stream.dead:
            self.session.finish(stream)
        if size > 0:
            # What an end does while it is asked may end the stream: then nothing of it is said.
            stream.send_window -= size
            self.ear.hear(header(DATA, 0, stream.id, size) + ZEROS[:size])
            self.outbox.sent(stream, size, stream.has_more)

    def ping(self) -> None:
        self.session.ping()

    def drain(self) -> None:
        self.session.drain()

    # What must be so

    def check(self) -> None:
        session, outbox, budget, limits = self.session, self.outbox, self.budget, LIMITS
        known = session.streams.values()
        assert budget.windows == sum(stream.inbox.window for stream in known) >= 0
        assert budget.buffered == sum(stream.inbox.buffered for stream in self.streams) >= 0
        # One more frame than that, of a window that has grown; and what an end gives back.
        assert budget.buffered <= MAX_BUFFERED + limits.max_window + self.back
        # Windows grow while all of them fit; a new stream's is there in any case.
        grown = sum(stream.inbox.window - INITIAL_WINDOW for stream in known)
        assert not grown or grown + INITIAL_WINDOW <= self.max_windows
        ours = sum(stream.id & 1 == self.parity for stream in known)
        assert session._ours == ours <= limits.max_streams
        assert len(known) - ours <= limits.max_streams
        assert len(session.unacknowledged) <= limits.ack_backlog
        assert len(session._backlog) <= limits.accept_backlog
        most = 2 * limits.max_streams + limits.lingering
        assert outbox.pending_resets <= limits.pending_resets + 1 + most
        assert len(outbox._control) + len(outbox._opening) <= most
        assert all(stream.queued for stream in outbox._opening.values())
        assert len(outbox.quick) + len(outbox.bulk) <= len(self.streams)
        assert session._departed.lingering <= limits.lingering
        assert len(session._closing) <= limits.lingering
        assert self.answered <= self.asked
        if session.may_open or session.draining:
            assert self.answered == self.asked, "there is room, and still they wait"
        for stream in known:
            inbox = stream.inbox
            assert not stream.dead
            assert not (stream.got_fin and stream.sent_fin), "both sides have ended it"
            assert INITIAL_WINDOW <= inbox.window <= limits.max_window
            assert 0 <= inbox.allowed <= inbox.window
            assert stream.send_window >= 0
            if not stream.closing:
                part = self.missing if stream.id == self.missing_of else 0
                assert inbox.allowed + inbox.buffered + inbox.uncredited + part == inbox.window

    def over(self, why: str, *, normal: bool) -> None:
        """The connection ends: everything is given back once those who may still read have done it."""
        self.session.fail(why)
        self.outbox.go_away(NORMAL if normal else PROTOCOL_ERROR, drop=not normal)
        while self.outbox.quick or self.outbox.bulk or self.outbox.urgent:
            self.write()
        self.ear.hear(self.outbox.take_go_away())
        assert self.ear.gone
        assert self.outbox.empty
        assert self.outbox.take_go_away() == b""
        assert not self.session.streams
        assert self.budget.windows == 0
        assert self.answered == self.asked, "somebody waits for ever"
        for stream in self.streams:
            assert stream.dead
            assert not stream.inbox.buffered or stream.got_fin
            stream.discard()
        assert self.budget.buffered == 0
        for end in self.ends:
            assert end.breaks <= 1
            assert end.finishes <= 1


STEPS = (
    Life.frame,
    Life.frame,
    Life.frame,
    Life.open,
    Life.accept,
    Life.of_an_end,
    Life.of_an_end,
    Life.of_an_end,
    Life.end_stream,
    Life.write,
    Life.write,
    Life.ping,
    Life.dismiss,
    Life.noise,
    Life.drain,
    Life.frame,
)


def life(script: Script) -> None:
    """Steps until the input ends, or the peer breaks yamux."""
    one = Life(script)
    for _ in range(MOST_STEPS):
        if not script:
            break
        try:
            STEPS[script.byte() % len(STEPS)](one)
        except (ProtocolError, PeerEndedError) as error:
            one.over(str(error), normal=False)
            return
        one.check()
    one.over("closed here", normal=True)

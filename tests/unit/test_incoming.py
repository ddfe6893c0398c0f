"""The parser of clients' frames, against wsproto and the websockets library, and on what they do not see."""

import tracemalloc
from collections.abc import Sequence

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from websockets.frames import Close, Frame
from websockets.protocol import State
from websockets.server import ServerProtocol
from wsproto.frame_protocol import FrameProtocol, Opcode, ParseFailed

from notifier.incoming import BINARY, CLOSE, NOT_UTF8, PART, PING, PROTOCOL_ERROR, TEXT, TOO_BIG, Incoming, Violation
from tests.unit.wire_frames import chopped, client_frame, in_parts, text

HUGE = 1 << 62
Outcome = tuple[list[tuple[int, object]], int | None]
"""What was heard, and the code that the connection is failed with."""


def ours(chunks: Sequence[bytes], largest: int = HUGE) -> Outcome:
    incoming, heard = Incoming(largest), []
    try:
        for chunk in chunks:
            for opcode, what in incoming.feed(chunk):
                if opcode != PART:
                    heard.append((opcode, what))
                if opcode == CLOSE:
                    return heard, None
    except Violation as violation:
        return heard, violation.code
    return heard, None


def of_wsproto(chunks: Sequence[bytes]) -> Outcome:
    protocol, heard = FrameProtocol(client=False, extensions=[]), []
    parts: list[str | bytes] = []
    try:
        for chunk in chunks:
            protocol.receive_bytes(chunk)
            for frame in protocol.received_frames():
                if frame.opcode is Opcode.CLOSE:
                    code, reason = frame.payload
                    return [*heard, (CLOSE, (int(code), reason))], None
                if frame.opcode.iscontrol():
                    heard.append((int(frame.opcode), bytes(frame.payload)))
                    continue
                parts.append(frame.payload)
                if frame.message_finished:
                    whole = "".join(parts) if frame.opcode is Opcode.TEXT else b"".join(parts)  # type: ignore[arg-type]
                    heard.append((int(frame.opcode), whole))
                    parts = []
    except ParseFailed as failure:
        return heard, int(failure.code)
    return heard, None


def of_websockets(chunks: Sequence[bytes], largest: int | None = None) -> Outcome:
    protocol = ServerProtocol(state=State.OPEN, max_size=largest)
    heard: list[tuple[int, object]] = []
    parts: list[bytes] = []
    opcode = 0
    for chunk in chunks:
        protocol.receive_data(chunk)
        for frame in protocol.events_received():
            assert isinstance(frame, Frame)
            if frame.opcode == CLOSE:
                close = Close.parse(frame.data)
                return [*heard, (CLOSE, (int(close.code), close.reason))], None
            if frame.opcode > BINARY:
                heard.append((int(frame.opcode), bytes(frame.data)))
                continue
            opcode = int(frame.opcode) or opcode
            parts.append(bytes(frame.data))
            if frame.fin:
                whole, parts = b"".join(parts), []
                try:
                    heard.append((opcode, whole.decode() if opcode == TEXT else whole))
                except UnicodeDecodeError:
                    return heard, NOT_UTF8
        if protocol.parser_exc is not None:
            assert protocol.close_sent is not None
            return heard, int(protocol.close_sent.code)
    return heard, None


SIZES = st.sampled_from([0, 1, 2, 3, 4, 5, 124, 125, 126, 127, 300, 65_535, 65_536]) | st.integers(0, 200)
WORDS = st.text(max_size=40).map(str.encode)
BROKEN = st.sampled_from([b"\xff", b"\xc3", b"\xed\xa0\x80", b"\xf4\x90\x80\x80", b"\xc0\xaf", b"ok\xce", b"\xb5 tail"])
CODES = st.sampled_from([0, 999, 1000, 1001, 1003, 1004, 1005, 1006, 1011, 1013, 1015, 1016, 2999, 3000, 4999, 5000])


@st.composite
def frames(draw: st.DrawFn) -> bytes:
    """One frame: mostly right, so that much of a stream is read before it goes wrong."""
    opcode = draw(st.sampled_from([0, 0, 1, 1, 1, 1, 2, 2, 8, 9, 9, 10]) | st.integers(0, 15))
    if opcode == CLOSE:
        code = draw(CODES).to_bytes(2, "big")
        payload = draw(st.just(b"") | (WORDS | BROKEN).map(lambda reason: code + reason[:123]) | st.just(b"\x03"))
    else:
        payload = draw(WORDS | BROKEN | SIZES.map(lambda size: b"x" * size))
        if opcode > BINARY:
            payload = payload[: draw(st.sampled_from([125, 125, 125, 126]))]
    rightly = draw(st.integers(0, 15)) > 0
    width = None
    if not rightly:
        width = draw(st.sampled_from([None, 16, 64]))
    return client_frame(
        opcode,
        payload,
        fin=draw(st.sampled_from([True, True, False])) if opcode <= BINARY or not rightly else True,
        rsv=0 if rightly else draw(st.integers(0, 7)),
        mask=draw(st.binary(min_size=4, max_size=4)) if rightly or draw(st.booleans()) else None,
        width=None if width == 16 and len(payload) >= 1 << 16 else width,
    )


@st.composite
def streams(draw: st.DrawFn) -> list[bytes]:
    """Frames in a row, a few bits of them wrong perhaps, in pieces as a line may give them."""
    stream = b"".join(draw(st.lists(frames(), min_size=1, max_size=8)))
    if draw(st.integers(0, 3)) == 0 and stream:
        at = draw(st.integers(0, len(stream) - 1))
        stream = stream[:at] + bytes((stream[at] ^ 1 << draw(st.integers(0, 7)),)) + stream[at + 1 :]
    cuts = draw(st.sampled_from(["whole", "bytes", "pieces"]))
    if cuts == "whole":
        return [stream]
    if cuts == "bytes" and len(stream) < 2000:
        return chopped(stream, 1)
    ends = sorted(draw(st.lists(st.integers(0, len(stream)), max_size=12)))
    return [stream[start:end] for start, end in zip([0, *ends], [*ends, len(stream)], strict=True)]


@settings(max_examples=400, deadline=None)
@given(streams())
@example(in_parts(1, [b"\xce\xba\xe1", b"\xbd\xb9"]))
@example([client_frame(1, b"\xce", fin=False), client_frame(0, b"")])
@example([client_frame(8, (1014).to_bytes(2, "big"))])
def test_it_hears_what_wsproto_hears(chunks: list[bytes]) -> None:
    heard, code = ours(chunks)
    theirs, failed = of_wsproto(chunks)
    if failed is None and code is not None:
        # by the first bytes of a header we know already what it finds out when the rest has come
        theirs, failed = of_wsproto([*chunks, b"\x80" * 14])
    if failed == PROTOCOL_ERROR and heard and heard[-1][0] == CLOSE and heard[-1][1][0] == 1014:  # type: ignore[index]
        # IANA's list has a code that it does not know
        heard, code = heard[:-1], PROTOCOL_ERROR
    assert (heard, code) == (theirs, failed)


@settings(max_examples=400, deadline=None)
@given(streams(), st.sampled_from([125, 126, 300, 1000, 70_000]))
@example([client_frame(1, b"", fin=False), client_frame(8, b"")], 125)
def test_it_hears_what_the_websockets_library_hears(chunks: list[bytes], largest: int) -> None:
    heard, code = ours(chunks, largest)
    theirs, failed = of_websockets(chunks, largest)
    if failed == TOO_BIG and len(theirs) < len(heard):
        # it counts a control frame to the message that it interrupts
        assert theirs == heard[: len(theirs)]
        assert heard[len(theirs)][0] > BINARY
    elif code is None and failed == PROTOCOL_ERROR:
        # it refuses a close frame within a message that was begun; a control frame may stand there (section 5.4)
        assert theirs == heard[:-1]
        assert heard[-1][0] == CLOSE
    elif code is None:
        assert (heard, code) == (theirs, failed)
    else:
        # it looks at the text of a message that is whole, and takes lengths that are not the shortest: it may go on
        assert heard == theirs[: len(heard)]
        if code == TOO_BIG:
            assert failed in (TOO_BIG, PROTOCOL_ERROR)


@settings(max_examples=300, deadline=None)
@given(streams())
def test_it_does_not_matter_how_the_bytes_come(chunks: list[bytes]) -> None:
    stream = b"".join(chunks)
    assert ours(chunks) == ours([stream])
    if len(stream) < 2000:
        assert ours(chopped(stream, 1)) == ours([stream])


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=300))
def test_any_bytes_are_heard_or_refused(stream: bytes) -> None:
    ours([stream], 1000)


def test_a_message_is_refused_by_its_length_before_it_has_come() -> None:
    header = client_frame(1, size=2001)[:8]
    assert ours([header[:4]], 2000) == ([], TOO_BIG)
    assert ours([client_frame(1, size=1 << 40)[:10]], 2000) == ([], TOO_BIG)
    parts = [client_frame(1, b"x" * 1500, fin=False), client_frame(9), client_frame(0, size=501, fin=False)[:8]]
    assert ours(parts, 2000) == ([(PING, b"")], TOO_BIG)


def test_text_is_refused_with_the_byte_that_is_wrong() -> None:
    incoming = Incoming(1000)
    stream = client_frame(1, b"\xce\xba\xe1\xbd\xb9\xf4\x90\x80\x80edited", fin=False)
    for byte in chopped(stream, 1)[: 6 + 6]:
        assert list(incoming.feed(byte)) == []
    with pytest.raises(Violation) as refused:
        list(incoming.feed(stream[12:13]))
    assert refused.value.code == NOT_UTF8


def test_fragments_are_told_one_by_one() -> None:
    incoming = Incoming(1000)
    heard = [one for frame in in_parts(1, [b"a", b"", b"b", b""]) for one in incoming.feed(frame)]
    assert heard == [(PART, b""), (PART, b""), (PART, b""), (TEXT, "ab")]


def test_nothing_is_kept_of_what_was_heard() -> None:
    incoming = Incoming(1 << 16)
    message = b"".join(in_parts(1, [b"x" * 10_000, b"y" * 10_000]))
    pings = client_frame(9, b"z" * 125) * 10
    list(incoming.feed(message + text("warm")))
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        for _ in range(20):
            for _ in incoming.feed(message + pings):
                pass
        assert tracemalloc.get_traced_memory()[0] - before < 2_000
    finally:
        tracemalloc.stop()

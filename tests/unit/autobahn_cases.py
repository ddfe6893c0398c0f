"""The cases of classes 1 to 7 of the Autobahn test suite (crossbario/autobahn-testsuite, "fuzzingclient"), as a table.

The suite itself runs on Python 2 alone. Its cases are sent to a server that echoes messages: what is written down here
is what the client sends, in which pieces, and what it must get back.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field

from tests.unit.wire_frames import chopped, client_frame, in_parts

TEXT, BINARY, CLOSE, PING, PONG = 1, 2, 8, 9, 10
NO_CODE = 1005
WORDS = "Hello-µ@ßöäüàá-UTF-8!!".encode()
KOSME = bytes.fromhex("cebae1bdb9cf83cebcceb5")
NOT_TEXT = bytes.fromhex("00fffefdfcfb00ff")


@dataclass(frozen=True)
class Case:
    """`code`: what the server's close frame must carry; None where it sends none of its own, and the client closes."""

    id: str
    sent: list[bytes]
    echoed: list[tuple[int, bytes]] = field(default_factory=list)
    code: int | None = None


def close(code: int, reason: bytes = b"") -> bytes:
    return client_frame(CLOSE, code.to_bytes(2, "big") + reason)


def all_cases() -> Iterator[Case]:
    yield from framing()
    yield from pings()
    yield from reserved_bits()
    yield from opcodes()
    yield from fragments()
    yield from utf8()
    yield from closing()


def framing() -> Iterator[Case]:
    for first, opcode, filler in ((1, TEXT, b"*"), (2, BINARY, b"\xfe")):
        for number, size in enumerate((0, 125, 126, 127, 128, 65_535, 65_536), start=1):
            yield Case(f"1.{first}.{number}", [client_frame(opcode, filler * size)], [(opcode, filler * size)])
        pieces = chopped(client_frame(opcode, filler * 65_536), 997)
        yield Case(f"1.{first}.8", pieces, [(opcode, filler * 65_536)])


def pings() -> Iterator[Case]:
    for number, payload in enumerate((b"", b"Hello, world!", NOT_TEXT, b"\xfe" * 125), start=1):
        yield Case(f"2.{number}", [client_frame(PING, payload)], [(PONG, payload)])
    yield Case("2.5", [client_frame(PING, b"\xfe" * 126)], code=1002)
    yield Case("2.6", chopped(client_frame(PING, b"\xfe" * 125), 1), [(PONG, b"\xfe" * 125)])
    yield Case("2.7", [client_frame(PONG)])
    yield Case("2.8", [client_frame(PONG, b"unsolicited pong payload")])
    yield Case(
        "2.9", [client_frame(PONG, b"unsolicited"), client_frame(PING, b"ping payload")], [(PONG, b"ping payload")]
    )
    ten = [b"payload-%d" % number for number in range(10)]
    yield Case("2.10", [client_frame(PING, one) for one in ten], [(PONG, one) for one in ten])
    octets = chopped(b"".join(client_frame(PING, one) for one in ten), 1)
    yield Case("2.11", octets, [(PONG, one) for one in ten])


def reserved_bits() -> Iterator[Case]:
    hello = client_frame(TEXT, b"Hello, world!")
    yield Case("3.1", [client_frame(TEXT, b"Hello, world!", rsv=1)], code=1002)
    for number, rsv in enumerate((2, 3, 4), start=2):
        frames = [hello, client_frame(TEXT, b"Hello, world!", rsv=rsv), client_frame(PING)]
        sent = frames if number == 3 else [b"".join(frames)] if number == 2 else chopped(b"".join(frames), 1)
        yield Case(f"3.{number}", sent, [(TEXT, b"Hello, world!")], code=1002)
    yield Case("3.5", [client_frame(BINARY, NOT_TEXT, rsv=5)], code=1002)
    yield Case("3.6", [client_frame(PING, b"Hello, world!", rsv=6)], code=1002)
    yield Case("3.7", [client_frame(CLOSE, rsv=7)], code=1002)


def opcodes() -> Iterator[Case]:
    hello, ping = client_frame(TEXT, b"Hello, world!"), client_frame(PING)
    for group, first in ((1, 3), (2, 11)):
        yield Case(f"4.{group}.1", [client_frame(first)], code=1002)
        yield Case(f"4.{group}.2", [client_frame(first + 1, b"reserved opcode payload")], code=1002)
        for number in (3, 4, 5):
            frames = [hello, client_frame(first + number - 1, b"" if number == 3 else b"reserved"), ping]
            sent = chopped(b"".join(frames), 1) if number == 5 else frames
            yield Case(f"4.{group}.{number}", sent, [(TEXT, b"Hello, world!")], code=1002)


def fragments() -> Iterator[Case]:
    yield Case("5.1", [client_frame(PING, b"one", fin=False), client_frame(0, b"two")], code=1002)
    yield Case("5.2", [client_frame(PONG, b"one", fin=False), client_frame(0, b"two")], code=1002)
    two = in_parts(TEXT, [b"fragment1", b"fragment2"])
    whole = (TEXT, b"fragment1fragment2")
    for number, sent in enumerate(([b"".join(two)], two, chopped(b"".join(two), 1)), start=3):
        yield Case(f"5.{number}", sent, [whole])
    pinged = [two[0], client_frame(PING, b"ping payload"), two[1]]
    for number, sent in enumerate(([b"".join(pinged)], pinged, chopped(b"".join(pinged), 1)), start=6):
        yield Case(f"5.{number}", sent, [(PONG, b"ping payload"), whole])
    hello = client_frame(TEXT, b"Hello, world!")
    for first, fin in ((9, True), (12, False)):
        lost = [client_frame(0, b"non-continuation payload", fin=fin), hello]
        for number, sent in enumerate(([b"".join(lost)], lost, chopped(b"".join(lost), 1)), start=first):
            yield Case(f"5.{number}", sent, code=1002)
    yield Case(
        "5.15", [*two, client_frame(0, b"fragment3", fin=False), client_frame(TEXT, b"fragment4")], [whole], 1002
    )
    for number, fin in ((16, False), (17, True)):
        round_of = [client_frame(0, b"fragment1", fin=fin), *in_parts(TEXT, [b"fragment2", b"fragment3"])]
        yield Case(f"5.{number}", round_of * 2, code=1002)
    yield Case("5.18", [client_frame(TEXT, b"fragment1", fin=False), client_frame(TEXT, b"fragment2")], code=1002)
    five = in_parts(TEXT, [b"fragment%d" % number for number in range(1, 6)])
    woven = [*five[:2], client_frame(PING, b"pongme 1!"), *five[2:4], client_frame(PING, b"pongme 2!"), five[4]]
    answers = [(PONG, b"pongme 1!"), (PONG, b"pongme 2!"), (TEXT, b"fragment1fragment2fragment3fragment4fragment5")]
    yield Case("5.19", woven, answers)
    yield Case("5.20", chopped(b"".join(woven), 1), answers)


def utf8() -> Iterator[Case]:
    yield Case("6.1.1", [client_frame(TEXT)], [(TEXT, b"")])
    yield Case("6.1.2", in_parts(TEXT, [b"", b"", b""]), [(TEXT, b"")])
    yield Case("6.1.3", in_parts(TEXT, [b"", b"middle frame payload", b""]), [(TEXT, b"middle frame payload")])
    yield Case("6.2.1", [client_frame(TEXT, WORDS)], [(TEXT, WORDS)])
    yield Case("6.2.2", in_parts(TEXT, [WORDS[:12], WORDS[12:]]), [(TEXT, WORDS)])
    yield Case("6.2.3", in_parts(TEXT, chopped(WORDS, 1)), [(TEXT, WORDS)])
    yield Case("6.2.4", in_parts(TEXT, chopped(KOSME, 1)), [(TEXT, KOSME)])
    surrogate = KOSME + b"\xed\xa0\x80edited"
    yield Case("6.3.1", [client_frame(TEXT, surrogate)], code=1007)
    yield Case("6.3.2", in_parts(TEXT, chopped(surrogate, 1)), code=1007)
    # failed at once: what would end the message never comes
    beyond = [KOSME, b"\xf4\x90\x80\x80", b"edited"]
    yield Case("6.4.1", in_parts(TEXT, beyond)[:2], code=1007)
    yield Case("6.4.2", in_parts(TEXT, [KOSME + b"\xf4", b"\x90", b"\x80\x80edited"])[:2], code=1007)
    frame = client_frame(TEXT, b"".join(beyond))
    yield Case("6.4.3", [frame[: 6 + len(KOSME)], frame[6 + len(KOSME) : 6 + len(KOSME) + 4]], code=1007)
    yield Case("6.4.4", [frame[: 6 + len(KOSME) + 1], frame[6 + len(KOSME) + 1 : 6 + len(KOSME) + 2]], code=1007)
    for number, payload in enumerate(VALID):
        yield Case(f"6.valid.{number}", [client_frame(TEXT, payload)], [(TEXT, payload)])
        yield Case(f"6.valid.{number}.octets", in_parts(TEXT, chopped(payload, 1)), [(TEXT, payload)])
    for number, payload in enumerate(INVALID):
        yield Case(f"6.invalid.{number}", [client_frame(TEXT, payload)], code=1007)
        yield Case(f"6.invalid.{number}.octets", in_parts(TEXT, chopped(payload, 1)), code=1007)


def closing() -> Iterator[Case]:
    hello = client_frame(TEXT, b"Hello World!")
    echoed = [(TEXT, b"Hello World!")]
    yield Case("7.1.1", [hello, close(1000)], echoed, 1000)
    yield Case("7.1.2", [close(1000), close(1000)], code=1000)
    yield Case("7.1.3", [close(1000), client_frame(PING)], code=1000)
    yield Case("7.1.4", [close(1000), hello], code=1000)
    parts = in_parts(TEXT, [b"fragment1", b"fragment2"])
    yield Case("7.1.5", [parts[0], close(1000), parts[1]], code=1000)
    much = b"BAsd7&jh23" * 26_214
    yield Case("7.1.6", [client_frame(TEXT, much), hello, close(1000)], [(TEXT, much), *echoed], 1000)
    yield Case("7.3.1", [client_frame(CLOSE)], code=NO_CODE)
    yield Case("7.3.2", [client_frame(CLOSE, b"a")], code=1002)
    yield Case("7.3.3", [close(1000)], code=1000)
    yield Case("7.3.4", [close(1000, b"Hello World!")], code=1000)
    yield Case("7.3.5", [close(1000, b"*" * 123)], code=1000)
    yield Case("7.3.6", [close(1000, b"*" * 124)], code=1002)
    yield Case("7.5.1", [close(1000, KOSME + b"\xed\xa0\x80edited")], code=1007)
    good = (1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 3000, 3999, 4000, 4999)
    for number, code in enumerate(good, start=1):
        yield Case(f"7.7.{number}", [close(code)], code=code)
    for number, code in enumerate((0, 999, 1004, 1005, 1006, 1016, 1100, 2000, 2999), start=1):
        yield Case(f"7.9.{number}", [close(code)], code=1002)
    for number, code in enumerate((5000, 65_535), start=1):
        yield Case(f"7.13.{number}", [close(code)], code=1002)


VALID = [
    # 6.5: of one code point each; 6.9: first and last of each length; 6.11, 6.13: around what is invalid
    *(chr(point).encode() for point in (0x24, 0xA2, 0x20AC, 0x24B62, 0xFF5E)),
    *(chr(point).encode() for point in (0x0, 0x80, 0x800, 0x10000, 0x7F, 0x7FF, 0xFFFF, 0x10FFFF)),
    *(chr(point).encode() for point in (0xD7FF, 0xE000, 0xFFFD)),
    # 6.22: "non-characters" are characters; 6.23: the replacement character
    *(chr(plane << 16 | low).encode() for plane in range(17) for low in (0xFFFE, 0xFFFF)),
    b"hello" + KOSME,
]
INVALID = [
    # 6.6: cut off; 6.8, 6.10: five and six bytes; 6.12: continuation bytes alone
    *(KOSME[:end] for end in (1, 3, 4, 6, 8, 10)),
    b"\xf8\x88\x80\x80\x80",
    b"\xfc\x84\x80\x80\x80\x80",
    b"\xf7\xbf\xbf\xbf",
    b"\xfb\xbf\xbf\xbf\xbf",
    b"\xfd\xbf\xbf\xbf\xbf\xbf",
    *((b"\x80\xbf" * 4)[:size] for size in range(1, 8)),
    bytes(range(0x80, 0xC0)),
    # 6.14: lonely first bytes; 6.15, 6.16: sequences without their last byte; 6.17: one after the other
    *(b" ".join(bytes((first,)) for first in group) + b" " for group in (range(0xC0, 0xE0), range(0xE0, 0xF0))),
    *(b" ".join(bytes((first,)) for first in group) + b" " for group in (range(0xF0, 0xF8), range(0xF8, 0xFE))),
    b"\xc0",
    b"\xe0\x80",
    b"\xf0\x80\x80",
    b"\xf8\x80\x80\x80",
    b"\xfc\x80\x80\x80\x80",
    b"\xdf",
    b"\xef\xbf",
    b"\xf7\xbf\xbf",
    b"\xc0\xe0\x80\xf0\x80\x80\xf8\x80\x80\x80\xfc\x80\x80\x80\x80\xdf\xef\xbf\xf7\xbf\xbf",
    # 6.18: impossible bytes; 6.19, 6.20: longer than need be; 6.21: surrogates
    b"\xfe",
    b"\xff",
    b"\xfe\xfe\xff\xff",
    b"\xc0\xaf",
    b"\xe0\x80\xaf",
    b"\xf0\x80\x80\xaf",
    b"\xc1\xbf",
    b"\xe0\x9f\xbf",
    b"\xf0\x8f\xbf\xbf",
    b"\xc0\x80",
    b"\xe0\x80\x80",
    b"\xf0\x80\x80\x80",
    *(bytes((0xED, second, third)) for second in (0xA0, 0xAD, 0xAE, 0xAF, 0xB0, 0xBE, 0xBF) for third in (0x80, 0xBF)),
    b"\xed\xa0\x80\xed\xb0\x80",
    b"\xf4\x90\x80\x80",
]

"""The lights a picture can be painted in."""

from dataclasses import dataclass

Colour = tuple[int, int, int]


def _hex(*codes: str) -> tuple[Colour, ...]:
    return tuple((int(code[0:2], 16), int(code[2:4], 16), int(code[4:6], 16)) for code in codes)


@dataclass(frozen=True, slots=True)
class Palette:
    """Sky from the top down, the lit disc, far and near land, what glows in windows; `night`: stars and a moon."""

    name: str
    sky: tuple[Colour, ...]
    disc: Colour
    far: Colour
    near: Colour
    glow: Colour
    night: bool = False


def _palette(name: str, sky: str, disc: str, far: str, near: str, glow: str, *, night: bool = False) -> Palette:
    (disc_,), (far_,), (near_,), (glow_,) = _hex(disc), _hex(far), _hex(near), _hex(glow)
    return Palette(name, _hex(*sky.split()), disc_, far_, near_, glow_, night)


PALETTES: tuple[Palette, ...] = (
    _palette("rose dawn", "39527f 8d86ad e3a7a5 f7cfa8 fce8c6", "fff3d6", "b39ab0", "33324f", "ffd48a"),
    _palette("golden hour", "41719b 86a9b5 e8cf9c f6bf74 f29f5a", "fff0c2", "b98f6b", "3b3030", "ffe2a0"),
    _palette("clear noon", "2f79b5 64a6d1 a4cfe2 d6e9ea f3f2e2", "fffbe6", "8fb1b5", "2a5548", "ffe9b0"),
    _palette("meadow morning", "5b9ec4 9accd2 d3e8d0 f4f0cf fbe9b8", "fff8dc", "9dbd9b", "2f5d3a", "ffe9a8"),
    _palette("ember dusk", "262a52 5d3f74 a8506f e5735b f9b065", "ffdf9e", "85506b", "211d33", "ffc46b"),
    _palette("violet evening", "201f4a 43397c 7f5fa0 c48bb0 f1c1b8", "ffe9d6", "75608f", "1f1b3a", "ffcf87"),
    _palette("teal dusk", "103247 1d5a6b 4d8f8f a4c4a4 f0dcaa", "fff1c9", "5f8f8d", "12303a", "ffd98d"),
    _palette("storm light", "3a4654 5f7080 8fa0a4 c4c7b4 ecdcae", "fff5d8", "7d8c8f", "2b3338", "ffdf9a"),
    _palette("moonlit blue", "070d24 10204a 1f3c70 3a6391 7d9fb8", "f6f4e4", "35567f", "0a1226", "ffc879", night=True),
    _palette(
        "midnight green", "06141c 0c2b35 185048 3d7a66 8fb495", "f4f6da", "2f6359", "07191b", "ffd37c", night=True
    ),
    _palette("plum night", "140a2a 2c1550 542a72 8c4a83 cf8596", "fff0dc", "573769", "160c26", "ffc07a", night=True),
    _palette("winter air", "6f8fb0 a3bacd cfdae2 eceeee f8f3ea", "ffffff", "b7c4d1", "42536b", "ffdca0"),
)


def mix(one: Colour, other: Colour, share: float) -> Colour:
    """`share` 0 gives the one, 1 the other."""
    return (
        round(one[0] + (other[0] - one[0]) * share),
        round(one[1] + (other[1] - one[1]) * share),
        round(one[2] + (other[2] - one[2]) * share),
    )

"""What a scene's words put into its picture: a house, trees, a tea table, a castle, birds, flowers.

Each motif draws itself at a place on the ground, in the scale it is told: `size` is about its height in pixels.
"""

import math
import random

from PIL import Image, ImageDraw

from local.modelslab.palettes import Colour, Palette, mix

_WORDS: dict[str, tuple[str, ...]] = {
    "house": ("house", "cottage", "home", "door", "chimney", "kitchen", "room", "roof", "hall", "village", "inn"),
    "castle": ("castle", "palace", "king", "queen", "court", "throne", "tower", "knight", "duchess"),
    "table": ("table", "tea", "cup", "bread", "butter", "supper", "dinner", "breakfast", "milk"),
    "trees": ("tree", "wood", "forest", "garden", "leaves", "branch", "orchard", "park"),
    "water": ("sea", "river", "lake", "pool", "shore", "boat", "ship", "water", "tears", "well", "treacle", "ocean"),
    "flowers": ("flower", "rose", "garden", "spring", "meadow", "bloom"),
    "birds": ("bird", "wing", "fly", "flew", "raven", "owl", "bat", "sky", "gull"),
    "night": ("night", "moon", "star", "midnight", "dark", "asleep", "sleep", "dream", "twinkle"),
    "winter": ("snow", "winter", "ice", "frost", "cold"),
}


def told(words: str) -> set[str]:
    """The motifs that a scene's words ask for."""
    spoken = {"".join(filter(str.isalpha, word)) for word in words.casefold().split()}
    return {
        motif for motif, keys in _WORDS.items() if any(key in spoken or f"{key}s" in spoken for key in keys)
    }  # fmt: skip


def tree(rng: random.Random, image: Image.Image, x: float, ground: float, size: float, palette: Palette) -> None:
    """A broad-leafed tree: a forked trunk and a crown of overlapping tufts, lit from above."""
    draw = ImageDraw.Draw(image)
    bark = mix(palette.near, (30, 20, 20), 0.35)
    _branch(rng, draw, (x, ground), -math.pi / 2 + rng.uniform(-0.08, 0.08), size * 0.34, size * 0.075, 4, bark)
    leaf = mix(palette.near, (44, 92, 50), 0.0 if palette.night else 0.38)
    bright = mix(leaf, palette.glow, 0.2 if palette.night else 0.42)
    crown_y, reach = ground - size * 0.66, size * 0.36
    tufts = []
    for _ in range(90):
        angle, far = rng.uniform(0, math.tau), math.sqrt(rng.random())
        tufts.append((x + math.cos(angle) * far * reach * 1.12, crown_y + math.sin(angle) * far * reach * 0.85))
    for tuft_x, tuft_y in sorted(tufts, key=lambda tuft: -tuft[1]):
        light = max(0.0, min(1.0, (crown_y + reach - tuft_y) / (2 * reach) + rng.uniform(-0.25, 0.2)))
        radius = size * rng.uniform(0.045, 0.095)
        box = (tuft_x - radius * 1.2, tuft_y - radius * 0.8, tuft_x + radius * 1.2, tuft_y + radius * 0.8)
        draw.ellipse(box, fill=mix(leaf, bright, light))


def _branch(
    rng: random.Random,
    draw: ImageDraw.ImageDraw,
    start: tuple[float, float],
    angle: float,
    length: float,
    thick: float,
    forks: int,
    colour: Colour,
) -> None:
    end = (start[0] + math.cos(angle) * length, start[1] + math.sin(angle) * length)
    draw.line((start, end), fill=colour, width=max(1, round(thick)))
    if forks:
        for side in (-1, 1):
            turn = angle + side * rng.uniform(0.25, 0.6)
            _branch(rng, draw, end, turn, length * rng.uniform(0.6, 0.78), thick * 0.6, forks - 1, colour)


def pine(rng: random.Random, image: Image.Image, x: float, ground: float, size: float, palette: Palette) -> None:
    """A conifer in five ragged tiers."""
    draw = ImageDraw.Draw(image)
    dark = mix(palette.near, (16, 40, 34), 0.4)
    for tier in range(5):
        top, foot = ground - size * (1 - tier * 0.16), ground - size * (0.62 - tier * 0.14)
        half = size * (0.09 + tier * 0.042) * rng.uniform(0.9, 1.1)
        shade = mix(dark, palette.far, 0.18 - tier * 0.03)
        draw.polygon([(x, top), (x + half, foot), (x - half, foot)], fill=shade)


def house(rng: random.Random, image: Image.Image, x: float, ground: float, size: float, palette: Palette) -> None:
    """A gabled house with a chimney that smokes and windows that glow."""
    draw = ImageDraw.Draw(image, "RGBA")
    wall = mix(mix(palette.sky[-1], (205, 186, 160), 0.6), palette.near, 0.55 if palette.night else 0.22)
    roof = mix((120, 58, 48), palette.near, 0.45)
    wide, tall = size * 1.25, size * 0.55
    left, right, eaves = x - wide / 2, x + wide / 2, ground - tall
    chimney = x + wide * 0.27
    draw.rectangle((chimney - size * 0.06, eaves - size * 0.5, chimney + size * 0.06, eaves), fill=mix(wall, roof, 0.5))
    for puff in range(7):
        radius = size * (0.05 + puff * 0.022)
        at_x, at_y = chimney + size * 0.05 * puff * rng.uniform(0.6, 1.3), eaves - size * (0.56 + puff * 0.12)
        smoke = (*mix(palette.sky[-1], (255, 255, 255), 0.4), 95 - puff * 11)
        draw.ellipse((at_x - radius, at_y - radius, at_x + radius, at_y + radius), fill=smoke)
    draw.rectangle((left, eaves, right, ground + size * 0.06), fill=wall)
    draw.rectangle((x, eaves, right, ground + size * 0.06), fill=(*mix(wall, palette.near, 0.5), 90))
    overhang = size * 0.09
    ridge_left, ridge_right, ridge_y = left + wide * 0.17, right - wide * 0.17, eaves - size * 0.42
    slope = [(left - overhang, eaves), (ridge_left, ridge_y), (ridge_right, ridge_y), (right + overhang, eaves)]
    draw.polygon(slope, fill=roof)
    draw.line(
        (ridge_left, ridge_y, ridge_right, ridge_y),
        fill=mix(roof, palette.disc, 0.35),
        width=max(1, round(size * 0.02)),
    )
    pane = size * 0.085
    for place in (-0.36, -0.17, 0.17, 0.36):
        at_x, at_y = x + wide * place, eaves + tall * 0.42
        draw.ellipse((at_x - pane * 3, at_y - pane * 3, at_x + pane * 3, at_y + pane * 3), fill=(*palette.glow, 26))
        draw.rectangle((at_x - pane, at_y - pane, at_x + pane, at_y + pane * 1.1), fill=palette.glow)
        draw.line((at_x, at_y - pane, at_x, at_y + pane), fill=wall, width=max(1, round(size * 0.012)))
        draw.line((at_x - pane, at_y, at_x + pane, at_y), fill=wall, width=max(1, round(size * 0.012)))
    draw.rectangle(
        (x - size * 0.08, ground - tall * 0.55, x + size * 0.08, ground + size * 0.06),
        fill=mix(roof, (40, 25, 25), 0.5),
    )


def castle(rng: random.Random, image: Image.Image, x: float, ground: float, size: float, palette: Palette) -> None:
    """Towers with pointed roofs and small lit windows, standing far off."""
    draw = ImageDraw.Draw(image)
    stone = mix(palette.far, palette.near, 0.45)
    roof = mix(palette.near, (88, 40, 70), 0.35)
    towers = [(-0.52, 0.62, 0.12), (0.5, 0.7, 0.12), (-0.24, 0.86, 0.1), (0.22, 1.0, 0.11), (0.0, 0.74, 0.15)]
    draw.rectangle(
        (x - size * 0.55, ground - size * 0.4, x + size * 0.55, ground + size * 0.2), fill=mix(stone, palette.far, 0.2)
    )
    for place, high, half in towers:
        at, top = x + place * size, ground - size * high * rng.uniform(0.94, 1.04) * 0.78
        shade = mix(stone, palette.far, rng.uniform(0, 0.25))
        draw.rectangle((at - half * size, top, at + half * size, ground + size * 0.2), fill=shade)
        draw.polygon(
            [(at - half * size * 1.25, top), (at, top - size * 0.3), (at + half * size * 1.25, top)], fill=roof
        )
        for row in range(2):
            y = top + size * (0.1 + row * 0.2)
            draw.rectangle((at - size * 0.018, y, at + size * 0.018, y + size * 0.06), fill=palette.glow)


def table(rng: random.Random, image: Image.Image, x: float, ground: float, size: float, palette: Palette) -> None:
    """A long table laid with a cloth, a teapot that steams and cups."""
    draw = ImageDraw.Draw(image, "RGBA")
    cloth = mix((250, 243, 228), palette.near, 0.5 if palette.night else 0.12)
    wood = mix((96, 62, 44), palette.near, 0.4)
    wide, top = size * 1.9, ground - size * 0.52
    for leg in (-0.42, 0.42):
        draw.rectangle((x + wide * leg - size * 0.035, top, x + wide * leg + size * 0.035, ground), fill=wood)
    draw.polygon(
        [
            (x - wide * 0.46, top - size * 0.1),
            (x + wide * 0.46, top - size * 0.1),
            (x + wide / 2, top),
            (x - wide / 2, top),
        ],
        fill=mix(cloth, (255, 255, 255), 0.3),
    )
    hem = [(x + wide / 2, top)]
    folds = 24
    for fold in range(folds + 1):
        hem.append((x + wide / 2 - wide * fold / folds, top + size * (0.24 + (0.035 if fold % 2 else 0.0))))
    draw.polygon([*hem, (x - wide / 2, top)], fill=cloth)
    china = mix((236, 240, 246), palette.sky[1], 0.15)
    line = mix(palette.sky[0], (60, 80, 140), 0.5)
    for seat in (-0.38, -0.22, 0.2, 0.36):
        cup, y, r = x + wide * seat, top - size * 0.05, size * 0.062
        draw.ellipse((cup - r * 1.6, y - r * 0.3, cup + r * 1.6, y + r * 0.35), fill=mix(china, line, 0.15))
        draw.chord((cup - r, y - r * 1.9, cup + r, y + r * 0.3), 0, 180, fill=china)
        draw.arc((cup + r * 0.6, y - r * 0.9, cup + r * 1.5, y), 250, 110, fill=china, width=max(1, round(r * 0.22)))
    pot, y, r = x + wide * rng.uniform(-0.04, 0.04), top - size * 0.14, size * 0.15
    draw.polygon(
        [
            (pot + r * 0.7, y + r * 0.2),
            (pot + r * 1.7, y - r * 0.6),
            (pot + r * 1.8, y - r * 0.4),
            (pot + r * 0.8, y + r * 0.6),
        ],
        fill=china,
    )
    draw.arc(
        (pot - r * 1.65, y - r * 0.6, pot - r * 0.5, y + r * 0.6), 60, 300, fill=china, width=max(2, round(r * 0.17))
    )
    draw.ellipse((pot - r, y - r * 0.8, pot + r, y + r * 0.85), fill=china)
    draw.chord((pot - r * 0.6, y - r * 1.1, pot + r * 0.6, y - r * 0.4), 180, 360, fill=mix(china, line, 0.2))
    draw.ellipse((pot - r * 0.12, y - r * 1.3, pot + r * 0.12, y - r * 1.05), fill=line)
    draw.arc(
        (pot - r * 0.85, y - r * 0.3, pot + r * 0.85, y + r * 0.4), 20, 160, fill=line, width=max(1, round(r * 0.08))
    )
    for puff in range(6):
        radius, at_y = r * (0.18 + puff * 0.07), y - r * (0.9 + puff * 0.5)
        at_x = pot + r * 1.75 + math.sin(puff * 1.1) * r * 0.25
        draw.ellipse((at_x - radius, at_y - radius, at_x + radius, at_y + radius), fill=(255, 255, 255, 70 - puff * 10))


def flowers(rng: random.Random, image: Image.Image, x: float, ground: float, size: float, palette: Palette) -> None:
    """A drift of flowers in the grass around a point."""
    draw = ImageDraw.Draw(image)
    hues: tuple[Colour, ...] = ((222, 76, 90), (240, 196, 92), (236, 232, 238), (176, 120, 200))
    for _ in range(46):
        at_x, at_y = rng.gauss(x, size * 0.9), ground + abs(rng.gauss(0, size * 0.28))
        radius = size * rng.uniform(0.014, 0.032)
        draw.line(
            (at_x, at_y, at_x, at_y + radius * 4),
            fill=mix(palette.near, (60, 110, 60), 0.5),
            width=max(1, round(radius * 0.4)),
        )
        hue = mix(rng.choice(hues), palette.near, 0.45 if palette.night else 0.1)
        draw.ellipse((at_x - radius, at_y - radius, at_x + radius, at_y + radius), fill=hue)


def grass(rng: random.Random, image: Image.Image, x: float, ground: float, reach: float, palette: Palette) -> None:
    """Tufts along a foot, so that what stands there stands in something."""
    draw = ImageDraw.Draw(image)
    for _ in range(round(reach * 0.7)):
        at, tall = x + rng.uniform(-reach, reach), reach * rng.uniform(0.04, 0.1) + 6
        shade = mix(palette.near, mix(palette.far, (70, 120, 70), 0.35), rng.uniform(0.1, 0.5))
        tip = (at + rng.gauss(0, tall * 0.35), ground - tall)
        draw.line((at, ground + tall * 0.7, *tip), fill=shade, width=rng.choice((2, 3, 4)))


def bank(rng: random.Random, image: Image.Image, x: float, ground: float, unit: float, palette: Palette) -> None:
    """A tongue of land reaching into the water."""
    wide, deep = unit * rng.uniform(0.5, 0.62), unit * rng.uniform(0.07, 0.09)
    shade = mix(palette.near, palette.far, 0.22)
    draw = ImageDraw.Draw(image)
    draw.ellipse((x - wide, ground - deep * 0.55, x + wide, ground + deep), fill=mix(shade, palette.near, 0.7))
    draw.ellipse((x - wide, ground - deep * 0.7, x + wide, ground + deep * 0.8), fill=shade)


def birds(rng: random.Random, image: Image.Image, x: float, ground: float, size: float, palette: Palette) -> None:
    """A loose flock, far away; `ground` is the height it flies at."""
    draw = ImageDraw.Draw(image)
    for _ in range(rng.randint(5, 9)):
        at_x, at_y, span = rng.gauss(x, size * 2.2), rng.gauss(ground, size * 0.8), size * rng.uniform(0.13, 0.3)
        lift, thick = span * rng.uniform(0.3, 0.55), max(2, round(span * 0.1))
        dark = mix(palette.near, palette.sky[0], 0.2)
        draw.arc((at_x - span, at_y - lift, at_x, at_y + lift), 190, 340, fill=dark, width=thick)
        draw.arc((at_x, at_y - lift, at_x + span, at_y + lift), 200, 350, fill=dark, width=thick)

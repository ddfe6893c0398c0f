"""A picture for a prompt: painted from its words and seed, the scene's words written on it.

The same words, model, seed and size give the same bytes on the same version of Pillow.
"""

import io
import random
from dataclasses import dataclass
from zlib import crc32

from PIL import Image

from local.modelslab import landscape, motifs
from local.modelslab.brush import paint
from local.modelslab.caption import letter, scene_words
from local.modelslab.palettes import PALETTES, Palette, mix

WORKING_AREA = 900_000  # pixels; painted at this size (at most twice the one asked), then brought to the one asked


@dataclass(frozen=True, slots=True)
class Sitting:
    """All that decides a picture. Without `caption` no words are written on it."""

    prompt: str
    model: str
    seed: int
    width: int
    height: int
    caption: bool = True


def draw(sitting: Sitting) -> Image.Image:
    """The painted picture, RGB, at the size asked."""
    words = scene_words(sitting.prompt)
    rng = random.Random(f"{crc32(words.encode(errors='replace'))}/{sitting.model}/{sitting.seed}")
    scale = min(2.0, (WORKING_AREA / (sitting.width * sitting.height)) ** 0.5)
    size = (round(sitting.width * scale), round(sitting.height * scale))
    asked = motifs.told(words)
    palette = _palette(rng, asked)
    image = _painted(rng, size, palette, asked)
    image = image.resize((sitting.width, sitting.height), Image.Resampling.LANCZOS)
    if sitting.caption:
        letter(image, words, f"Simulated · {sitting.model} · seed {sitting.seed}")
    return image


def encoded(image: Image.Image, kind: str) -> bytes:
    """The picture as a file: `PNG`, `JPEG` or `WEBP`."""
    out = io.BytesIO()
    options = {"PNG": {"compress_level": 4}, "JPEG": {"quality": 88}, "WEBP": {"quality": 85, "method": 2}}
    image.save(out, kind, **options[kind])
    return out.getvalue()


def _palette(rng: random.Random, asked: set[str]) -> Palette:
    fitting = [palette for palette in PALETTES if palette.night == ("night" in asked)]
    if "winter" in asked:
        fitting = [palette for palette in PALETTES if palette.name in ("winter air", "storm light", "moonlit blue")]
    elif "night" not in asked and rng.random() < 0.12:
        fitting = [palette for palette in PALETTES if palette.night]
    return rng.choice(fitting)


def _painted(rng: random.Random, size: tuple[int, int], palette: Palette, asked: set[str]) -> Image.Image:
    width, height = size
    horizon = round(height * rng.uniform(0.46, 0.58))
    unit = min(width, height)
    image, disc_x = landscape.sky(rng, size, palette, horizon)
    if "birds" in asked or rng.random() < 0.35:
        motifs.birds(rng, image, width * rng.uniform(0.25, 0.75), horizon * rng.uniform(0.3, 0.6), unit * 0.13, palette)
    rough = rng.choice((0.0, 0.2, 0.7, 0.95))
    layers = 4
    base = float(horizon)
    for layer in range(layers):
        share = layer / (layers - 1)
        crest = mix(palette.far, palette.near, share * 0.8)
        line = landscape.ridge(rng, width, rough * (1 - share), unit * (0.075 - 0.035 * share))
        base = horizon - unit * 0.05 + (height - horizon) * 0.3 * share
        lit = mix(crest, palette.sky[-1], 0.32 - 0.14 * share)
        landscape.land(image, line, base, (lit, mix(crest, palette.near, 0.5)))
        if layer == 1 and "castle" in asked:
            at = width * (0.32 if disc_x > width / 2 else 0.68)
            motifs.castle(rng, image, at, base - line[int(at)] + unit * 0.02, unit * 0.3, palette)
        if layer < layers - 1:
            landscape.mist(image, base + unit * 0.06, round(unit * 0.1), palette.sky[-1], 0.3 - 0.08 * layer)
        if layer == 2:
            _far_trees(rng, image, line, base, unit, palette)
    shore: float | None = None
    if "water" in asked or (asked.isdisjoint(("table", "house", "flowers")) and rng.random() < 0.3):
        shore = base + (height - base) * (0.1 if asked.isdisjoint(("table", "house")) else 0.3)
        landscape.water(rng, image, round(shore), palette, disc_x)
    _foreground(rng, image, base, unit, palette, asked, disc_x, shore)
    return paint(rng, image, horizon, strokes=4200)


def _far_trees(
    rng: random.Random, image: Image.Image, line: list[float], base: float, unit: int, palette: Palette
) -> None:
    kind = rng.choice((motifs.pine, motifs.pine, motifs.tree))
    for _ in range(rng.randint(4, 16)):
        x = rng.gauss(rng.choice((0.15, 0.85)), 0.12) * image.width
        ground = base - line[min(max(int(x), 0), len(line) - 1)] + 4
        kind(rng, image, x, ground, unit * rng.uniform(0.07, 0.13), palette)


def _foreground(
    rng: random.Random,
    image: Image.Image,
    base: float,
    unit: int,
    palette: Palette,
    asked: set[str],
    disc_x: int,
    shore: float | None,
) -> None:
    """What the words name, with the tall things away from the disc; by the water they stand on its bank."""
    width, height = image.size
    side = 0.24 if disc_x > width / 2 else 0.76
    floor = base + (height - base) * 0.14 if shore is None else shore
    if shore is not None and not asked.isdisjoint(("trees", "house", "table", "flowers")):
        motifs.bank(rng, image, width * (1 - side), floor + unit * 0.03, unit, palette)
        motifs.bank(rng, image, width * side, floor + unit * 0.05, unit, palette)
    if "house" in asked:
        motifs.house(rng, image, width * (1 - side) + unit * 0.02, floor - unit * 0.02, unit * 0.27, palette)
        motifs.grass(rng, image, width * (1 - side) + unit * 0.02, floor - unit * 0.004, unit * 0.42, palette)
    if "trees" in asked or (shore is None and "castle" not in asked and rng.random() < 0.4):
        tall = unit * rng.uniform(0.55, 0.68) * (0.7 if "castle" in asked else 1.0)
        motifs.tree(rng, image, width * side, floor + unit * 0.05, tall, palette)
        motifs.grass(rng, image, width * side, floor + unit * 0.05, unit * 0.16, palette)
    if "flowers" in asked or (shore is None and rng.random() < 0.3):
        at = width * (side if shore is not None else rng.uniform(0.2, 0.8))
        motifs.flowers(rng, image, at, floor + unit * 0.06, unit * (0.22 if shore is not None else 0.4), palette)
    if "table" in asked:
        motifs.table(rng, image, width * 0.5, floor + unit * 0.13, unit * 0.36, palette)

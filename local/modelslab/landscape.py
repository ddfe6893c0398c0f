"""Sky, disc, clouds, hills and water: the ground of every picture. No picture library but Pillow; all seeded."""

import math
import random

from PIL import Image, ImageChops, ImageDraw, ImageFilter

from local.modelslab.palettes import Colour, Palette, mix

Ridge = list[float]


def vertical(size: tuple[int, int], stops: tuple[Colour, ...]) -> Image.Image:
    """A vertical gradient through evenly spaced colours."""
    column = Image.new("RGB", (1, 64))
    for row in range(64):
        at = row / 63 * (len(stops) - 1)
        lower = min(int(at), len(stops) - 2)
        column.putpixel((0, row), mix(stops[lower], stops[lower + 1], at - lower))
    return column.resize(size, Image.Resampling.BICUBIC)


def noise(rng: random.Random, size: tuple[int, int], cells: tuple[int, int], octaves: int = 4) -> Image.Image:
    """Soft grey noise (mode L), coarse at first: each octave twice as fine and half as strong."""
    total = Image.new("L", size, 0)
    for octave in range(octaves):
        across, down = cells[0] << octave, cells[1] << octave
        layer = Image.frombytes("L", (across, down), rng.randbytes(across * down)).resize(
            size, Image.Resampling.BICUBIC
        )
        total = Image.blend(total, layer, 1.0 if octave == 0 else 0.5 ** (octave + 0.35))
    return total


def sky(rng: random.Random, size: tuple[int, int], palette: Palette, horizon: int) -> tuple[Image.Image, int]:
    """The sky down to the horizon, and how far across its disc stands."""
    width = size[0]
    image = Image.new("RGB", size, palette.sky[-1])
    image.paste(vertical((width, horizon), palette.sky), (0, 0))
    disc_x = round(width * rng.choice((rng.uniform(0.14, 0.38), rng.uniform(0.62, 0.86))))
    disc_y = round(horizon * (rng.uniform(0.2, 0.38) if palette.night else rng.uniform(0.3, 0.72)))
    if palette.night:
        _stars(rng, image, horizon)
    _halo(image, (disc_x, disc_y), round(min(size) * rng.uniform(0.75, 1.1)), palette.disc, 0.5)
    _disc(rng, image, (disc_x, disc_y), round(min(size) * rng.uniform(0.045, 0.085)), palette)
    _clouds(rng, image, palette, horizon)
    return image, disc_x


def _stars(rng: random.Random, image: Image.Image, horizon: int) -> None:
    draw = ImageDraw.Draw(image, "RGBA")
    for _ in range(170):
        x, y = rng.uniform(0, image.width), rng.uniform(0, horizon * 0.85)
        radius = rng.choice((1.2, 1.2, 1.8, 2.6))
        draw.ellipse((x - radius, y - radius, x + radius, y + radius), fill=(255, 250, 230, rng.randint(70, 230)))


def _halo(image: Image.Image, at: tuple[int, int], radius: int, colour: Colour, strength: float) -> None:
    glow = ImageChops.invert(Image.radial_gradient("L")).point(
        [round((i / 255) ** 2.2 * 255 * strength) for i in range(256)]
    )
    mask = Image.new("L", image.size, 0)
    mask.paste(glow.resize((2 * radius, 2 * radius), Image.Resampling.BICUBIC), (at[0] - radius, at[1] - radius))
    image.paste(colour, (0, 0), mask)


def _disc(rng: random.Random, image: Image.Image, at: tuple[int, int], radius: int, palette: Palette) -> None:
    x, y = at
    draw = ImageDraw.Draw(image)
    draw.ellipse((x - radius, y - radius, x + radius, y + radius), fill=palette.disc)
    if palette.night and rng.random() < 0.5:
        shade = image.getpixel((x, max(0, y - radius * 2)))
        away = round(radius * 0.45)
        draw.ellipse((x - radius + away, y - radius - away // 3, x + radius + away, y + radius - away // 3), fill=shade)


def _clouds(rng: random.Random, image: Image.Image, palette: Palette, horizon: int) -> None:
    cover = rng.randint(120, 165)
    shapes = noise(rng, (image.width, horizon), (3, 7), 5)
    mask = shapes.point([max(0, min(190, round((level - cover) * 5.0))) for level in range(256)])
    light = mix(palette.sky[-1], (255, 255, 255), 0.08 if palette.night else 0.55)
    shade = mix(palette.sky[1], light, 0.45)
    lower = ImageChops.offset(mask, 0, 16).filter(ImageFilter.GaussianBlur(9))
    image.paste(shade, (0, 0), lower.point([round(level * 0.45) for level in range(256)]))
    image.paste(light, (0, 0), mask.filter(ImageFilter.GaussianBlur(2)))


def ridge(rng: random.Random, width: int, rough: float, swing: float) -> Ridge:
    """The height of a line of hills at each column, around 0, in pixels; `rough` 0 is rolling, 1 is rock."""
    waves = []
    for octave in range(6):
        strength = swing * (0.52 + 0.16 * rough) ** octave
        waves.append((strength, (1.1 * 1.95**octave) * math.tau / width, rng.uniform(0, math.tau)))
    line = []
    for x in range(width):
        y = 0.0
        for strength, turn, phase in waves:
            swung = math.sin(x * turn + phase)
            y += strength * (swung if rough < 0.5 else 1 - 2 * abs(swung) ** 0.8)
        line.append(y)
    return line


def land(image: Image.Image, line: Ridge, base: float, colours: tuple[Colour, Colour]) -> None:
    """Fill below a ridge whose mean height is `base`, from the lit crest to the foot."""
    top = max(0, int(base - max(line)) - 2)
    foot = max(top + 2, image.height)
    mask = Image.new("L", image.size, 0)
    outline = [(x, base - line[x]) for x in range(0, len(line), 2)]
    ImageDraw.Draw(mask).polygon([*outline, (image.width, image.height), (0, image.height)], fill=255)
    fill = Image.new("RGB", image.size)
    fill.paste(vertical((image.width, foot - top), colours), (0, top))
    image.paste(fill, (0, 0), mask)


def mist(image: Image.Image, at: float, depth: int, colour: Colour, strength: float) -> None:
    """A band of haze around a height."""
    band = Image.linear_gradient("L").resize((image.width, depth))
    both = Image.new("L", (image.width, 2 * depth))
    both.paste(band, (0, 0))
    both.paste(band.transpose(Image.Transpose.FLIP_TOP_BOTTOM), (0, depth))
    faint = both.point([round(level * strength) for level in range(256)])
    mask = Image.new("L", image.size, 0)
    mask.paste(faint, (0, round(at) - depth))
    image.paste(colour, (0, 0), mask)


def water(rng: random.Random, image: Image.Image, shore: int, palette: Palette, disc_x: int) -> None:
    """Everything below the shore becomes water that mirrors what is above it, with the disc's path of light."""
    depth = image.height - shore
    above = image.crop((0, max(0, shore - depth), image.width, shore)).transpose(Image.Transpose.FLIP_TOP_BOTTOM)
    mirror = above.resize((image.width, depth)).filter(ImageFilter.GaussianBlur(5))
    tint = vertical(
        (image.width, depth), (mix(palette.sky[2], palette.far, 0.4), mix(palette.near, palette.sky[0], 0.35))
    )
    image.paste(Image.blend(mirror, tint, 0.42), (0, shore))
    draw = ImageDraw.Draw(image, "RGBA")
    for _ in range(240):
        nearness = rng.random() ** 1.4
        y = shore + nearness * depth
        path = rng.random() < 0.5
        x = rng.gauss(disc_x, 18 + nearness * 90) if path else rng.uniform(0, image.width)
        length, thick = 14 + nearness * 70, 1.5 + nearness * 3
        colour = palette.disc if path else rng.choice((palette.sky[-1], palette.near))
        draw.ellipse(
            (x - length, y - thick, x + length, y + thick), fill=(*colour, rng.randint(45, 130 if path else 70))
        )

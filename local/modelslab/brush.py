"""Makes a drawn image look painted: short strokes that take their colour from what is beneath."""

import math
import random

from PIL import Image, ImageDraw, ImageFilter


def paint(rng: random.Random, image: Image.Image, horizon: int, *, strokes: int) -> Image.Image:
    """The image in brush strokes: broad first, then finer; level in the sky, steeper on the land."""
    width, height = image.size
    soft = image.filter(ImageFilter.GaussianBlur(2.5)).tobytes()
    canvas = image.filter(ImageFilter.GaussianBlur(3))
    draw = ImageDraw.Draw(canvas)
    unit = math.sqrt(width * height) / 1000
    for length, thick, share in ((26.0, 11.0, 0.3), (17.0, 6.0, 0.7)):
        for _ in range(round(strokes * share)):
            x, y = rng.randrange(width), rng.randrange(height)
            at = 3 * (y * width + x)
            shift = rng.randint(-9, 9)
            lean = rng.gauss(0.0, 0.22) if y < horizon else rng.gauss(0.35, 0.5)
            dx, dy = math.cos(lean) * length * unit / 2, math.sin(lean) * length * unit / 2
            draw.line(
                (x - dx, y - dy, x + dx, y + dy),
                fill=(soft[at] + shift, soft[at + 1] + shift, soft[at + 2] + shift),
                width=max(1, round(thick * unit * rng.uniform(0.6, 1.2))),
            )
    return Image.blend(canvas, image, 0.42)

"""The scene's words, legibly over the foot of a picture, in the font that comes with Pillow."""

import re
import unicodedata

from PIL import Image, ImageDraw, ImageFont

_LEAD = re.compile(r"^\s*(scene|a scene|image|illustration)\s*:\s*", re.IGNORECASE)
_TAIL = re.compile(
    r"[\s.,;]*\b(wide establishing shot|detailed environment|atmospheric perspective|professional scene composition|"
    r"character portrait,|photorealistic,|cinematic,|cinematic (style|lighting|shot)|realistic style|animated style|"
    r"animated film style|fantasy (art|style)\b).*$",
    re.IGNORECASE | re.DOTALL,
)
_SPELT = {"—": " - ", "–": "-", "•": "·", "ß": "ss", "ø": "o", "ł": "l", "æ": "ae", "œ": "oe", "×": "x"}
LINES_MAX = 4


def scene_words(prompt: str) -> str:
    """The part of a prompt that tells the scene: without a leading label and the usual words of craft behind it."""
    words = _TAIL.sub("", _LEAD.sub("", prompt)).strip()
    return " ".join((words or prompt).split())


def letter(image: Image.Image, words: str, footnote: str) -> None:
    """Write the words on the image, wrapped and cut to four lines, with a small line below."""
    width, height = image.size
    text = _printable(words)
    margin = max(14, round(min(width, height) * 0.055))
    size = max(13, round(min((width + height) / 2, height * 1.1, width * 1.35) * 0.0465))
    font, small = ImageFont.load_default(size=size), ImageFont.load_default(size=max(10, round(size * 0.5)))
    lines = _wrapped(text, font, width - 2 * margin)
    leading = round(size * 1.32)
    block = len(lines) * leading + round(size * 1.25)
    _scrim(image, min(height, round((block + margin) * 1.75)))
    draw = ImageDraw.Draw(image)
    y = height - margin - block + round(size * 0.35)
    for line in lines:
        draw.text((margin + 1, y + 2), line, font=font, fill=(0, 0, 0))
        draw.text((margin, y), line, font=font, fill=(252, 248, 238))
        y += leading
    draw.text((margin, y + round(size * 0.3)), _printable(footnote), font=small, fill=(206, 204, 200))


def _scrim(image: Image.Image, depth: int) -> None:
    """Darkens the foot of the image, softly, so that white letters stand on any light."""
    fade = (
        Image.linear_gradient("L")
        .resize((image.width, depth))
        .point([round(230 * (i / 255) ** 0.9) for i in range(256)])
    )
    image.paste((12, 12, 22), (0, image.height - depth), fade)


def _printable(text: str) -> str:
    """What the font has glyphs for: accents are dropped, and what is left over becomes a middle dot."""
    spelt = "".join(_SPELT.get(letter, letter) for letter in text)
    plain = "".join(letter for letter in unicodedata.normalize("NFKD", spelt) if not unicodedata.combining(letter))
    return "".join(letter if " " <= letter <= "~" or letter in "‘’“”…·" else "·" for letter in plain)


def _wrapped(text: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont, width: int) -> list[str]:
    lines: list[str] = []
    line = ""
    for word in text.split():
        while font.getlength(word) > width:
            word = word[: max(1, len(word) * 3 // 4)]
        longer = f"{line} {word}".strip()
        if font.getlength(longer) <= width:
            line = longer
            continue
        lines.append(line)
        line = word
        if len(lines) == LINES_MAX:
            cut = lines[-1]
            while cut and font.getlength(f"{cut}…") > width:
                cut = cut.rpartition(" ")[0]
            lines[-1] = f"{cut.rstrip(' ,.;:')}…"
            return lines
    return [*lines, line] if line else lines

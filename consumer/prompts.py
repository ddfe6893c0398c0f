"""The words that go to the provider: a named template per image type, deterministic for the same request.

Invariants: the scene's own words come first and are cut last; every printable character of them keeps its place and
case; the result is never longer than the model's limit and is cut between words.
"""

import unicodedata
from collections.abc import Iterable
from types import MappingProxyType

TEMPLATES = MappingProxyType(
    {
        "scene": (
            "Wide establishing shot, detailed environment, atmospheric perspective, rich visual storytelling, "
            "immersive background, professional scene composition"
        ),
        "character": (
            "Character portrait, clear background, centered composition, expressive face, detailed features, "
            "professional character design"
        ),
    }
)
"""Image type -> how such a picture is framed."""

STYLES = MappingProxyType(
    {
        "realistic": "Photorealistic, natural light, true-to-life detail",
        "cinematic": "Cinematic, dramatic light, film still composition, rich colours",
        "animated": "Animated film style, clean lines, vibrant colours, expressive characters",
        "fantasy": "Fantasy art, magical atmosphere, painterly detail, otherworldly light",
    }
)

_DROPPED = dict.fromkeys(
    [code for code in [*range(0x20), *range(0x7F, 0xA0)] if chr(code) not in "\t\n\v\f\r\x85"]
    + [*range(0xD800, 0xE000)]
)
"""Control characters that are no white space, and lone surrogates, which no JSON body can carry."""

_CLOSING = tuple(".!?…。！？;:,؟।")
_QUOTES = "\"'”’»)]」』"
_LONGEST_WORD = 40
"""Characters; looking further back for a space would drop most of a text that is written without spaces."""


class UnknownTemplate(KeyError):
    """There is no prompt template of this name; the names are those of TEMPLATES."""


def build(template: str, scene_description: str, style: str, custom_prompt: str | None, limit: int) -> str:
    """The prompt, at most `limit` characters: scene, custom prompt, style, framing, in this order.

    A style that is no preset is used as words. Raises UnknownTemplate.
    """
    if template not in TEMPLATES:
        raise UnknownTemplate(template)
    parts = (scene_description, custom_prompt or "", STYLES.get(style, style), TEMPLATES[template])
    return fit(_joined(cleaned for part in parts if (cleaned := clean(part))), limit)


def clean(text: str) -> str:
    """Without control characters, white space joined; every printable character keeps its place and case."""
    return " ".join(text.translate(_DROPPED).split())


def fit(text: str, limit: int) -> str:
    """The longest beginning of whole words within `limit` characters; a text without spaces is cut at a character."""
    if len(text) <= limit:
        return text
    if limit <= 0:
        return ""
    space = text.rfind(" ", 0, limit + 1)
    if space > 0 and limit - space <= _LONGEST_WORD:
        return text[:space].rstrip()
    end = limit
    # not between a letter and its accent, or inside a joined emoji
    while end > 1 and (unicodedata.combining(text[end]) or "\u200d" in (text[end], text[end - 1])):
        end -= 1
    return text[:end].rstrip()


def _joined(parts: Iterable[str]) -> str:
    text = ""
    for part in parts:
        if not text:
            text = part
        elif text.rstrip(_QUOTES).endswith(_CLOSING):
            text = f"{text} {part}"
        else:
            text = f"{text}. {part}"
    return text

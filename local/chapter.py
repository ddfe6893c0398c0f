"""The demo chapter: the words that the studio page shows and `make demo` sends, from one file.

*A Mad Tea-Party* is chapter VII of Lewis Carroll's *Alice's Adventures in Wonderland* (1865, public domain); the scenes
were written for here after it.
"""

from pathlib import Path

from pydantic import BaseModel, Field

from schemas.requests import AspectRatio, Description, SceneNumber
from schemas.words import Style

FILE = Path(__file__).parent.parent / "client" / "studio" / "public" / "chapter.json"


class Scene(BaseModel):
    scene_number: SceneNumber
    title: str
    scene_description: Description


class Chapter(BaseModel):
    book: str
    author: str
    chapter: str
    title: str
    style: Style
    aspect_ratio: AspectRatio
    scenes: list[Scene] = Field(min_length=1)


def load() -> Chapter:
    return Chapter.model_validate_json(FILE.read_text(encoding="utf-8"))

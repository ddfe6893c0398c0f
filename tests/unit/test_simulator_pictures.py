"""Pictures: distinct by scene, the same for the same seed, of the size asked, with the scene's words; drawn once."""

import asyncio
import hashlib
import io

import pytest
from PIL import Image

from local.modelslab.caption import letter, scene_words
from local.modelslab.drawing import Sitting, draw, encoded
from local.modelslab.gallery import Gallery
from local.modelslab.job import Job
from local.modelslab.motifs import told
from local.modelslab.orders import Order, size_of
from local.modelslab.script import Action

TEA = "The March Hare and the Hatter were having tea at a table set out under a tree in front of the house"


def sitting(prompt: str = TEA, seed: int = 1, size: tuple[int, int] = (320, 180)) -> Sitting:
    return Sitting(prompt, "seedream-4", seed, *size)


def digest(picture: Sitting) -> str:
    return hashlib.sha256(draw(picture).tobytes()).hexdigest()


def test_the_same_sitting_gives_the_same_picture_and_any_other_another() -> None:
    assert digest(sitting()) == digest(sitting())
    others = [sitting(seed=2), sitting("Twinkle, twinkle, little bat"), Sitting(TEA, "imagen-4", 1, 320, 180)]
    assert len({digest(other) for other in [sitting(), *others]}) == 4


@pytest.mark.parametrize("size", [(320, 180), (256, 256), (144, 256), (320, 137)])
def test_the_size_is_the_one_asked(size: tuple[int, int]) -> None:
    assert draw(sitting(size=size)).size == size


def test_the_words_are_written_over_the_foot() -> None:
    plain = Image.new("RGB", (640, 360), (90, 120, 150))
    lettered = plain.copy()
    letter(lettered, TEA, "Simulated")
    assert lettered.crop((0, 0, 640, 100)).tobytes() == plain.crop((0, 0, 640, 100)).tobytes()
    light = [level for level, count in enumerate(lettered.crop((0, 200, 640, 360)).convert("L").histogram()) if count]
    assert max(light) > 235
    for awkward in ("", "Ж中 — café " * 90, "unbroken" * 200):
        letter(plain.copy(), awkward, "Simulated")


@pytest.mark.parametrize(
    ("prompt", "words"),
    [
        ("Scene: A hare at tea. Wide establishing shot, detailed environment", "A hare at tea"),
        ("A hare at tea. cinematic lighting. Wide establishing shot", "A hare at tea"),
        ("A hare at tea. Cinematic, dramatic light, film still composition. Wide establishing shot", "A hare at tea"),
        ("A  hare\nat tea", "A hare at tea"),
        ("Scene:", ""),
    ],
)
def test_the_scenes_words_are_found_in_the_prompt(prompt: str, words: str) -> None:
    assert scene_words(prompt) == (words or prompt)


def test_the_words_decide_what_is_in_the_picture() -> None:
    assert told(TEA) == {"table", "trees", "house"}
    assert told("A boat on the sea at night") == {"water", "night"}
    assert told("theatre steam") == set()


@pytest.mark.parametrize(("ratio", "size"), [("16:9", (1024, 576)), ("21:9", (1024, 439)), ("1080:1920", (576, 1024))])
def test_ratios(ratio: str, size: tuple[int, int]) -> None:
    assert size_of(ratio) == size


def job(number: int, *, seed: int = 1, action: Action | None = None) -> Job:
    order = Order("text-to-image", "flux", "x", 64, 64, None, None, 1, None, None, "")
    return Job(number, "owner", order, action or Action(), seed, 0, 0, 0, True)


async def test_a_picture_is_drawn_once_however_many_ask() -> None:
    drawn: list[Sitting] = []

    def painter(asked: Sitting) -> Image.Image:
        drawn.append(asked)
        return Image.new("RGB", (asked.width, asked.height))

    gallery = Gallery(budget=1_000_000, painter=painter)
    files = await asyncio.gather(*(gallery.picture(job(1), 0) for _ in range(8)))
    files.append(await gallery.picture(job(1), 0))
    assert len(drawn) == 1
    assert len(set(files)) == 1
    await gallery.prerender(3)
    shelf = [await gallery.picture(job(number), 0, prerendered=True) for number in range(6)]
    assert len(drawn) == 4
    assert shelf[:3] == shelf[3:]
    gallery.close()


async def test_the_oldest_pictures_make_room() -> None:
    drawn: list[int] = []

    def painter(asked: Sitting) -> Image.Image:
        drawn.append(asked.seed)
        return Image.effect_noise((64, 64), 90).convert("RGB")

    gallery = Gallery(budget=20_000, painter=painter)
    for seed in (1, 2, 3, 3, 1):
        await gallery.picture(job(seed, seed=seed), 0)
    assert drawn == [1, 2, 3, 1]
    gallery.close()


async def test_a_picture_that_cannot_be_drawn_is_drawn_again_when_asked_again() -> None:
    failures = [MemoryError()]

    def painter(asked: Sitting) -> Image.Image:
        if failures:
            raise failures.pop()
        return Image.new("RGB", (8, 8))

    gallery = Gallery(budget=20_000, painter=painter)
    with pytest.raises(MemoryError):
        await gallery.picture(job(1), 0)
    assert (await gallery.picture(job(1), 0)).startswith(b"\x89PNG")
    gallery.close()


@pytest.mark.parametrize(("kind", "format_"), [("PNG", "PNG"), ("JPEG", "JPEG"), ("WEBP", "WEBP")])
def test_files_can_be_opened(kind: str, format_: str) -> None:
    data = encoded(Image.new("RGB", (32, 18), (200, 100, 50)), kind)
    assert Image.open(io.BytesIO(data)).format == format_

"""The prompt, as a table: what stands where, what is removed, what is cut first."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from consumer.prompts import STYLES, TEMPLATES, UnknownTemplate, build, clean, fit
from schemas.words import Style

SCENE = "The March Hare and the Hatter were having tea under a tree"


def test_scene_then_custom_words_then_style_then_framing() -> None:
    assert build("scene", SCENE, "cinematic", "Long evening shadows!", 2_000) == (
        "The March Hare and the Hatter were having tea under a tree. Long evening shadows! "
        "Cinematic, dramatic light, film still composition, rich colours. "
        "Wide establishing shot, detailed environment, atmospheric perspective, rich visual storytelling, "
        "immersive background, professional scene composition"
    )


def test_a_character_is_framed_as_a_portrait() -> None:
    prompt = build("character", "Alice", Style.ANIMATED, None, 2_000)
    assert prompt.startswith("Alice. Animated film style")
    assert "portrait" in prompt


def test_every_style_has_its_words() -> None:
    assert set(STYLES) == {style.value for style in Style}
    assert len({build("scene", SCENE, style, None, 2_000) for style in Style}) == len(Style)


def test_a_style_that_is_no_preset_is_used_as_words() -> None:
    assert "tree. woodcut. Wide" in build("scene", SCENE, "woodcut", "", 2_000)


def test_an_unknown_template_is_an_error() -> None:
    with pytest.raises(UnknownTemplate):
        build("map", SCENE, "cinematic", None, 2_000)


@pytest.mark.parametrize(
    ("text", "cleaned"),
    [
        ("  a \t b\r\n\n c  ", "a b c"),
        ("a\x00b\x07c\x1b[31md\x7fe\x9bf", "abc[31mdef"),
        ("a\u00a0b\u2003c\u2028d\x85e\x0bf\x0cg", "a b c d e f g"),
        ("a\x1cb\x1fc", "abc"),
        ("ÄÖÜ ß É 龍 مرحبا Ünïcödé", "ÄÖÜ ß É 龍 مرحبا Ünïcödé"),
        ("WHY is a Raven LIKE a writing-desk?", "WHY is a Raven LIKE a writing-desk?"),
        ("👩\u200d🚀 & <b>“tea”</b> {x} \\ %s", "👩\u200d🚀 & <b>“tea”</b> {x} \\ %s"),
        ("e\u0301 stays decomposed", "e\u0301 stays decomposed"),
        ("lone \ud800 surrogate", "lone surrogate"),
        ("", ""),
        (" \n ", ""),
    ],
)
def test_cleaning(text: str, cleaned: str) -> None:
    assert clean(text) == cleaned


@pytest.mark.parametrize(
    ("text", "limit", "fitted"),
    [
        ("tea for two", 11, "tea for two"),
        ("tea for two", 10, "tea for"),
        ("tea for two", 8, "tea for"),
        ("tea for two", 7, "tea for"),
        ("tea for two", 6, "tea"),
        ("tea for two", 2, "te"),
        ("tea", 0, ""),
        ("龍" * 50, 20, "龍" * 20),
        ("Alice " + "龍" * 100, 60, "Alice " + "龍" * 54),
        ("e\u0301" * 10, 5, "e\u0301" * 2),
        ("👩\u200d🚀" * 10, 4, "👩\u200d🚀"),
        ("👩\u200d🚀" * 10, 5, "👩\u200d🚀"),
    ],
)
def test_fitting(text: str, limit: int, fitted: str) -> None:
    assert fit(text, limit) == fitted


def test_the_framing_is_cut_first_and_the_scene_last() -> None:
    whole = build("scene", SCENE, "cinematic", "At dusk", 2_000)
    for limit in range(len(whole) + 5):
        prompt = build("scene", SCENE, "cinematic", "At dusk", limit)
        assert len(prompt) <= limit
        assert whole.startswith(prompt)
        if limit > len(SCENE):
            assert prompt.startswith(SCENE)
        if limit >= 3:
            assert prompt == whole[: len(prompt)]
            assert len(prompt) == len(whole) or whole[len(prompt)] == " "


@pytest.mark.parametrize(
    ("scene", "start"),
    [
        ("It was late!", "It was late! Cinematic"),
        ("It was late…", "It was late… Cinematic"),
        ('"No room!"', '"No room!" Cinematic'),
        ("The table (a large one)", "The table (a large one). Cinematic"),
        ("夜の茶会。", "夜の茶会。 Cinematic"),
    ],
)
def test_sentences_are_joined_as_sentences(scene: str, start: str) -> None:
    assert build("scene", scene, "cinematic", None, 2_000).startswith(start)


@given(st.text(), st.sampled_from(sorted(TEMPLATES)), st.none() | st.text(max_size=50), st.integers(0, 300))
def test_any_text_gives_the_same_storable_prompt_within_the_limit(
    scene: str, template: str, custom: str | None, limit: int
) -> None:
    prompt = build(template, scene, "fantasy", custom, limit)
    assert prompt == build(template, scene, "fantasy", custom, limit)
    assert len(prompt) <= limit
    assert "\x00" not in prompt
    prompt.encode()


@given(st.text())
def test_no_printable_character_is_lost_or_moved(scene: str) -> None:
    kept = [c for c in scene if c.isprintable() and not c.isspace()]
    assert [c for c in clean(scene) if c.isprintable() and not c.isspace()] == kept

"""The request's body and the words: what is taken, trimmed, refused."""

import json
from typing import Any
from uuid import UUID

import pytest
from pydantic import ValidationError

from schemas import topics
from schemas.errors import DEAD_CLASSES
from schemas.frames import CLIENT_FRAME
from schemas.requests import SceneImageRequest
from schemas.words import ASPECT_RATIOS, PIXEL_RATIOS, Lane, Status, Style, Tier


def body(**fields: Any) -> SceneImageRequest:
    return SceneImageRequest.model_validate_json(json.dumps({"scene_description": "A tea-party", **fields}))


def test_only_the_description_is_required() -> None:
    request = body()
    assert request.style is Style.CINEMATIC
    assert request.aspect_ratio == "16:9"
    assert request.extras() == {}


@pytest.mark.parametrize(("given", "kept"), [("  tea \n", "tea"), ("t", "t"), ("x" * 4_000, "x" * 4_000)])
def test_descriptions_are_trimmed(given: str, kept: str) -> None:
    assert body(scene_description=given).scene_description == kept


@pytest.mark.parametrize("name", [*ASPECT_RATIOS, *ASPECT_RATIOS.values(), *PIXEL_RATIOS])
def test_an_aspect_ratio_goes_by_name_or_ratio(name: str) -> None:
    assert body(aspect_ratio=name).aspect_ratio in ASPECT_RATIOS.values()


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("scene_description", ""),
        ("scene_description", " \t\n"),
        ("scene_description", "x" * 4_001),
        ("scene_description", "a\x00b"),
        ("scene_description", 7),
        ("scene_description", None),
        ("custom_prompt", "x" * 2_001),
        ("custom_prompt", "\x00"),
        ("style", "cubist"),
        ("style", 1),
        ("aspect_ratio", "5:4"),
        ("aspect_ratio", 1.5),
        ("script_id", "no uuid"),
        ("character_ids", "alice"),
        ("character_ids", [1]),
        ("character_ids", ["a\x00"]),
        ("character_image_urls", [""]),
        ("character_image_urls", ["file:///etc/passwd"]),
        ("character_image_urls", ["ftp://cdn.test/alice.png"]),
        ("character_image_urls", ["//cdn.test/alice.png"]),
        ("character_image_urls", ["data:image/png;base64,iVBOR"]),
        ("character_image_urls", ["https:///alice.png"]),
        ("character_image_urls", ["http://[oops/alice.png"]),
        ("character_image_urls", ["https://cdn.test/a b.png"]),
        ("character_image_urls", ["https://cdn.test/a\x00.png"]),
        ("character_image_urls", ["https://cdn.test/a\nb.png"]),
        ("character_image_urls", ["https://cdn.test/" + "a" * 2_000]),
        ("character_image_urls", ["https://cdn.test/alice.png"] * 51),
        ("character_image_urls", "https://cdn.test/alice.png"),
        ("colour", "red"),
    ],
)
def test_what_does_not_fit_is_refused_by_its_name(field: str, value: object) -> None:
    with pytest.raises(ValidationError) as refused:
        body(**{field: value})
    assert {str(fault["loc"][0]) for fault in refused.value.errors()} == {field}


@pytest.mark.parametrize(
    ("name", "ratio"),
    [
        ("video_landscape", "16:9"),
        ("video_portrait", "9:16"),
        ("instagram_square", "1:1"),
        ("instagram_story", "9:16"),
        ("1920:1080", "16:9"),
        ("1080:1920", "9:16"),
        ("1080:1080", "1:1"),
    ],
)
def test_the_old_systems_presets_are_known(name: str, ratio: str) -> None:
    assert body(aspect_ratio=name).aspect_ratio == ratio


def test_addresses_of_reference_pictures_are_kept_as_they_came() -> None:
    addresses = ["https://cdn.test/alice.png?w=1#x", "http://cdn.test:8080/Älice.png", "HTTPS://cdn.test/a%20b.png"]
    assert body(character_image_urls=addresses).character_image_urls == addresses


def test_a_lone_surrogate_is_refused() -> None:
    with pytest.raises(ValidationError):
        SceneImageRequest.model_validate_json(b'{"scene_description": "\\ud800"}')


@pytest.mark.parametrize(
    ("claim", "tier", "lane"),
    [
        ("free", Tier.FREE, Lane.STANDARD),
        ("basic", Tier.BASIC, Lane.STANDARD),
        ("standard", Tier.STANDARD, Lane.STANDARD),
        ("premium", Tier.PREMIUM, Lane.INTERACTIVE),
        ("professional", Tier.PROFESSIONAL, Lane.INTERACTIVE),
        ("enterprise", Tier.ENTERPRISE, Lane.INTERACTIVE),
        ("gold", Tier.STANDARD, Lane.STANDARD),
        (None, Tier.STANDARD, Lane.STANDARD),
        (["premium"], Tier.STANDARD, Lane.STANDARD),
    ],
)
def test_tiers_and_their_lanes(claim: object, tier: Tier, lane: Lane) -> None:
    assert Tier.of(claim) is tier
    assert tier.lane is lane


def test_terminal_statuses() -> None:
    assert [status for status in Status if status.terminal] == [Status.COMPLETED, Status.FAILED, Status.CANCELLED]


@pytest.mark.parametrize(
    ("delay", "tier"),
    [(0, 5), (4.9, 5), (5, 5), (9.99, 5), (10, 10), (19, 10), (20, 20), (59, 20), (60, 60), (900, 60)],
)
def test_a_delay_goes_to_the_largest_retry_topic_not_above_it(delay: float, tier: int) -> None:
    assert topics.retry_tier(delay) == tier


def test_each_class_one_can_die_of_has_its_topic() -> None:
    assert {topics.dead(error_class) for error_class in DEAD_CLASSES} <= set(topics.BY_NAME)


CHAPTER = "639c79ec-109b-45d0-99fe-02102eb7f43f"


@pytest.mark.parametrize(
    ("frame", "valid"),
    [
        ({"type": "subscribe", "id": "a", "chapter_id": CHAPTER}, True),
        ({"type": "subscribe", "id": "a", "record_id": CHAPTER, "cursor": "x"}, True),
        ({"type": "subscribe", "id": "a", "mine": True}, True),
        ({"type": "subscribe", "id": "a"}, False),
        ({"type": "subscribe", "id": "a", "mine": False}, False),
        ({"type": "subscribe", "id": "a", "mine": True, "chapter_id": CHAPTER}, False),
        ({"type": "subscribe", "id": "", "mine": True}, False),
        ({"type": "subscribe", "id": "a", "mine": True, "cursor": "x" * 1025}, True),
        ({"type": "unsubscribe", "id": "a"}, True),
        ({"type": "auth", "token": "t"}, True),
        ({"type": "auth"}, False),
        ({"type": "ping"}, True),
        ({"type": "dance"}, False),
        ({}, False),
    ],
)
def test_frames_a_client_may_send(frame: dict[str, Any], valid: bool) -> None:
    if valid:
        CLIENT_FRAME.validate_json(json.dumps(frame))
    else:
        with pytest.raises(ValidationError):
            CLIENT_FRAME.validate_json(json.dumps(frame))


def test_a_token_is_not_shown() -> None:
    assert "secret-token" not in repr(CLIENT_FRAME.validate_json('{"type": "auth", "token": "secret-token"}'))


def test_ids_are_uuids() -> None:
    assert body(script_id=CHAPTER).script_id == UUID(CHAPTER)

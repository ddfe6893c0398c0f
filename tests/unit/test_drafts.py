"""What is drafted for a record: words alone or after reference pictures, in the order of its tier's chain."""

from typing import Any
from uuid import uuid4

import pytest

from consumer.drafts import Drafts
from consumer.models import IMAGE_TO_IMAGE, TEXT_TO_IMAGE, Catalogue
from schemas.words import Tier
from storage.dispatching import Waiting

DRAFTS = Drafts(Catalogue.load())
ALICE, HARE = "https://cdn.test/alice.png", "https://cdn.test/hare.png"


def waiting(**changes: Any) -> Waiting:
    known: dict[str, Any] = {
        "record_id": uuid4(),
        "attempt": 1,
        "image_type": "scene",
        "scene_description": "A mad tea party",
        "style": "cinematic",
        "aspect_ratio": "16:9",
        "custom_prompt": None,
        "user_tier": "premium",
        "reference_urls": [],
    }
    return Waiting(**(known | changes))


def drafted(about: Waiting) -> list[tuple[str, str, dict[str, object]]]:
    """Each attempt of one pass of the chain."""
    found: list[tuple[str, str, dict[str, object]]] = []
    while (draft := DRAFTS.next(about, [model for model, _, _ in found])) is not None:
        assert draft.prompt.startswith("A mad tea party")
        assert draft.payload["prompt"] == draft.prompt
        found.append((draft.model_id, draft.path, draft.payload))
    assert [model for model, _, _ in found] == DRAFTS.models(about)
    return found


@pytest.mark.parametrize("tier", [*Tier, "of old"])
def test_words_alone_are_drawn_by_the_chain_of_the_tier(tier: str) -> None:
    found = drafted(waiting(user_tier=tier))
    assert [model for model, _, _ in found] == [model.id for model in DRAFTS.catalogue.chain(Tier.of(tier))]
    assert {path for _, path, _ in found} == {TEXT_TO_IMAGE}
    assert not any("init_image" in payload for _, _, payload in found)


@pytest.mark.parametrize("tier", list(Tier))
def test_reference_pictures_go_to_every_model_that_is_tried(tier: Tier) -> None:
    found = drafted(waiting(user_tier=tier, reference_urls=[ALICE, HARE]))
    assert len(found) >= 2
    assert {path for _, path, _ in found} == {IMAGE_TO_IMAGE}
    for _, _, payload in found:
        given = payload["init_image"]
        assert (given if isinstance(given, str) else given[0]) == ALICE  # type: ignore[index]


def test_a_character_is_drawn_as_one_and_an_unknown_type_as_a_scene() -> None:
    assert "Character portrait" in DRAFTS.next(waiting(image_type="character"), []).prompt  # type: ignore[union-attr]
    assert "Wide establishing shot" in DRAFTS.next(waiting(image_type="map"), []).prompt  # type: ignore[union-attr]


def test_a_webhook_gets_a_token_of_its_own() -> None:
    drafts = Drafts(DRAFTS.catalogue, webhooks=True)
    tokens = [drafts.next(waiting(), []).webhook_token for _ in range(2)]  # type: ignore[union-attr]
    assert all(token is not None and len(token) >= 32 for token in tokens)
    assert len(set(tokens)) == 2

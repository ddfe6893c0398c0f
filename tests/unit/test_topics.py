"""The one list of topics."""

import re

import pytest

from schemas import topics
from schemas.errors import DEAD_CLASSES
from schemas.words import Lane

_DAY_MS = 24 * 60 * 60 * 1000


def test_every_topic_of_the_contract_is_listed_once() -> None:
    names = [topic.name for topic in topics.TOPICS]
    assert len(names) == len(set(names))
    assert set(names) == {
        *(topics.requested(lane) for lane in Lane),
        *(topics.retry(tier) for tier in topics.RETRY_TIERS),
        *(topics.dead(error_class) for error_class in DEAD_CLASSES),
        topics.STATUS,
        topics.COMPLETED,
        topics.FAILED,
    }
    assert topics.BY_NAME.keys() == set(names)


@pytest.mark.parametrize("topic", topics.TOPICS, ids=lambda topic: topic.name)
def test_names_carry_their_version_and_are_legal(topic: topics.Topic) -> None:
    assert re.fullmatch(r"scene-images\.[a-z0-9-]+(\.[a-z]+)?\.v1", topic.name)
    assert topic.partitions >= 1


def test_facts_and_dead_letters_are_kept_as_promised() -> None:
    assert topics.BY_NAME[topics.COMPLETED].retention_ms == topics.BY_NAME[topics.FAILED].retention_ms == 7 * _DAY_MS
    assert {topics.BY_NAME[topics.dead(error_class)].retention_ms for error_class in DEAD_CLASSES} == {14 * _DAY_MS}
    assert topics.BY_NAME[topics.STATUS].key == "chapter_id"


@pytest.mark.parametrize(
    ("delay", "tier"),
    [(0.0, 5), (4.9, 5), (5, 5), (6.2, 5), (10, 10), (19.9, 10), (20, 20), (59, 20), (60, 60), (900, 60)],
)
def test_a_delay_goes_to_the_largest_tier_not_above_it(delay: float, tier: int) -> None:
    assert topics.retry_tier(delay) == tier

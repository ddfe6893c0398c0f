"""The one list of topics. `python -m messaging.provision` creates and checks them from here.

Names are logical: a deployment's `SCENEWIRE_NAMESPACE` is put in front of them by `messaging`, nowhere else.
"""

from typing import Final

from pydantic import BaseModel, ConfigDict

from schemas.errors import DEAD_CLASSES, ErrorClass
from schemas.words import Lane

_DAY_MS = 24 * 60 * 60 * 1000


class Topic(BaseModel):
    """One topic: what its key is, how many partitions it has and how long (ms) Kafka keeps its events."""

    model_config = ConfigDict(frozen=True)

    name: str
    key: str
    partitions: int
    retention_ms: int
    purpose: str


def requested(lane: Lane) -> str:
    return f"scene-images.requested.{lane.value}.v1"


def retry(tier_seconds: int) -> str:
    return f"scene-images.retry-{tier_seconds}s.v1"


def dead(error_class: ErrorClass) -> str:
    return f"scene-images.dead-{error_class.value}.v1"


RETRY_TIERS: Final = (5, 10, 20, 60)
"""Seconds; the names of the retry topics. Delays are floors."""

STATUS: Final = "scene-images.status.v1"
COMPLETED: Final = "scene-images.completed.v1"
FAILED: Final = "scene-images.failed.v1"


def retry_tier(delay_seconds: float) -> int:
    """The largest tier not above the delay (the smallest for a shorter delay)."""
    return max((t for t in RETRY_TIERS if t <= delay_seconds), default=RETRY_TIERS[0])


TOPICS: tuple[Topic, ...] = (
    *(
        Topic(
            name=requested(lane),
            key="record_id",
            partitions=4,
            retention_ms=7 * _DAY_MS,
            purpose=f"requests of the {lane.value} lane; other services may publish here",
        )
        for lane in Lane
    ),
    *(
        Topic(
            name=retry(tier),
            key="record_id",
            partitions=2,
            retention_ms=2 * _DAY_MS,
            purpose=f"wakes dispatch for attempts that wait {tier} s or more",
        )
        for tier in RETRY_TIERS
    ),
    Topic(
        name=STATUS,
        key="chapter_id",
        partitions=4,
        retention_ms=2 * _DAY_MS,
        purpose="every change of an image generation, with its version",
    ),
    Topic(
        name=COMPLETED, key="chapter_id", partitions=4, retention_ms=7 * _DAY_MS, purpose="facts: a picture is stored"
    ),
    Topic(name=FAILED, key="chapter_id", partitions=4, retention_ms=7 * _DAY_MS, purpose="facts: a request has failed"),
    *(
        Topic(
            name=dead(error_class),
            key="record_id",
            partitions=1,
            retention_ms=14 * _DAY_MS,
            purpose=f"requests that ended as {error_class.value}, with all that a replay needs",
        )
        for error_class in DEAD_CLASSES
    ),
)

BY_NAME: dict[str, Topic] = {topic.name: topic for topic in TOPICS}

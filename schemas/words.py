"""The closed vocabularies of the contract: statuses, stages, lanes, tiers, styles and aspect ratios."""

from enum import StrEnum


class Status(StrEnum):
    """What clients of the old system know; a terminal one changes only by an explicit replay."""

    PENDING = "pending"
    IN_PROGRESS = "in_progress"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def terminal(self) -> bool:
        return self in TERMINAL


TERMINAL = frozenset({Status.COMPLETED, Status.FAILED, Status.CANCELLED})


class Stage(StrEnum):
    """The finer word, for people."""

    QUEUED = "queued"
    SUBMITTING = "submitting"
    GENERATING = "generating"
    STORING = "storing"
    RETRY_WAIT = "retry_wait"
    PROVIDER_PAUSED = "provider_paused"
    DONE = "done"


class Lane(StrEnum):
    """A class of service; dispatch serves them 8 : 3 : 1."""

    INTERACTIVE = "interactive"
    STANDARD = "standard"
    BULK = "bulk"


class Tier(StrEnum):
    """What the user pays for; decides lane and models."""

    FREE = "free"
    BASIC = "basic"
    STANDARD = "standard"
    PREMIUM = "premium"
    PROFESSIONAL = "professional"
    ENTERPRISE = "enterprise"

    @property
    def lane(self) -> Lane:
        return Lane.INTERACTIVE if self in _PAID_FOR_SPEED else Lane.STANDARD

    @classmethod
    def of(cls, claim: object) -> "Tier":
        """The tier a token claims; an unknown one is `standard`."""
        try:
            return cls(str(claim))
        except ValueError:
            return cls.STANDARD


_PAID_FOR_SPEED = frozenset({Tier.PREMIUM, Tier.PROFESSIONAL, Tier.ENTERPRISE})


class Style(StrEnum):
    REALISTIC = "realistic"
    CINEMATIC = "cinematic"
    ANIMATED = "animated"
    FANTASY = "fantasy"


ASPECT_RATIOS: dict[str, str] = {
    "square": "1:1",
    "portrait": "3:4",
    "landscape": "4:3",
    "widescreen": "16:9",
    "ultrawide": "21:9",
    "vertical": "9:16",
    "photo": "3:2",
    "poster": "2:3",
    # names of the old system, which asked for pixels (1920:1080, ...); a model draws at the size it can
    "video_landscape": "16:9",
    "video_portrait": "9:16",
    "instagram_square": "1:1",
    "instagram_story": "9:16",
}
"""Preset name -> ratio; a request may name either."""

PIXEL_RATIOS: dict[str, str] = {"1920:1080": "16:9", "1080:1920": "9:16", "1080:1080": "1:1"}
"""How the old system wrote the ratios of its last four presets."""

DEFAULT_ASPECT_RATIO = "16:9"
SCENE_NUMBER_MAX = 2_147_483_647

"""What became of a request, and of a scene: its calls of the provider, and the pictures it has had."""

from datetime import datetime
from typing import Literal
from uuid import UUID

from pydantic import BaseModel, Field

from schemas.errors import ErrorClass
from schemas.statuses import ImageStatus
from schemas.usage import Dollars

AttemptOutcome = Literal[
    "success",
    "failed",
    "deferred",
    "handed_over",
    "superseded",
    "not_sent",
    "uncertain",
    "cancelled",
    "late_success",
    "late_failure",
]
Charge = Literal["settled", "uncertain", "open", "released"]

ATTEMPTS_SHOWN = 200
PICTURES_SHOWN = 50


class ImageAttempt(BaseModel):
    """One call of the provider's, as its owner may see it: no key, no address of the provider's, no answer of its."""

    attempt: int = Field(description="its number within the image generation")
    model_id: str = Field(description="the provider's model")
    prompt: str = Field(description="the very words that the model was given")
    claimed_at: datetime | None
    sent_at: datetime | None = Field(description="null: nothing was sent")
    closed_at: datetime | None = Field(description="null: it is under way")
    outcome: AttemptOutcome | None = Field(description="null: it is under way")
    counted: bool | None = Field(description="whether it was one of the four tries that an image generation has")
    error_class: ErrorClass | None
    error_code: str | None = Field(description="a stable word within the class")
    message: str = Field(description="what happened, and where there is something to be done, what: for a person")
    cost_usd: Dollars | None = Field(description="the model's price in US dollars")
    charge: Charge = Field(
        description="`settled`: the provider took it; `uncertain`: it may have been charged; `open`: under way; "
        "`released`: it has cost nothing"
    )


class ImageAttempts(BaseModel):
    """The calls of one image generation, in their order; of very many the newest 200."""

    record_id: UUID
    version: int = Field(description="of the image generation when they were read")
    attempts: list[ImageAttempt]


class ScenePictures(BaseModel):
    """The completed images of a scene, the newest request first, 50 at most: the first is `current`."""

    images: list[ImageStatus]

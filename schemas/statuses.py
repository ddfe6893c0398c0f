"""`ImageStatus`: the same in frames, polls, lists and status events."""

from datetime import datetime
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field

from schemas.errors import ErrorClass
from schemas.usage import Dollars
from schemas.words import Stage, Status


class ImageStatus(BaseModel):
    """One image generation at one version. Absent is null; versions compare within one `record_id` only."""

    model_config = ConfigDict(extra="ignore")

    record_id: UUID
    task_id: UUID = Field(description="`record_id` under the old system's name")
    user_id: UUID | None
    chapter_id: UUID | None
    script_id: UUID | None
    scene_number: int | None
    image_type: str
    status: Status
    stage: Stage | None
    progress: int = Field(ge=0, le=100, description="percent; never falls within an attempt")
    version: int = Field(description="rises with every change; 0 for rows of the old system")
    attempt: int = Field(description="rises with each submit to the provider")
    retry_count: int = Field(description="retries after counted failures, 3 at most")
    retry_at: datetime | None = Field(description="when a waiting image generation goes on")
    queue_position: int | None = Field(
        description="where it stands among those of its lane that wait, 1 is next; computed when read, so null in "
        "status events and `status` frames, and null where it stands in no line, too far behind, or nothing moves"
    )
    eta_seconds: int | None = Field(
        description="seconds until the picture is there, as things are now; computed when read, so null in status "
        "events and `status` frames, and null where it cannot be known"
    )
    image_url: str | None = Field(description="the stored picture, absolute, for a plain `<img>`")
    thumbnail_url: str | None = Field(
        default=None, description="the same, 480 pixels wide, as WebP; made when it is first asked for"
    )
    model_id: str | None = Field(description="the provider's model")
    cost_usd: Dollars | None = Field(
        default=None,
        description="US dollars spent on it so far, by the models' prices; computed when read, null in events and "
        "frames, and for rows of the old system",
    )
    error_class: ErrorClass | None
    error_code: str | None = Field(description="a stable word within the class")
    error_message: str | None = Field(description="a sentence a person can act on")
    created_at: datetime | None
    updated_at: datetime | None
    completed_at: datetime | None


class CurrentImage(BaseModel):
    """The newest completed picture of a scene."""

    record_id: UUID
    image_url: str
    thumbnail_url: str | None = None


class SceneStatus(ImageStatus):
    """`latest` of a scene, and the picture to show meanwhile."""

    current: CurrentImage | None


class ChapterImages(BaseModel):
    """`latest` and `current` of each scene of a chapter (each record once), in order of scene and request."""

    images: list[ImageStatus]
    cursor: str = Field(description="for the next call or a socket's `subscribe`")
    resumed: str | None = Field(description="`memory`, `log` or `snapshot`: from what the given cursor was answered")

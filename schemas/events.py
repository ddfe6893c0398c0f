"""CloudEvents 1.0 (structured JSON) as Scenewire writes and reads them."""

from datetime import datetime
from typing import Annotated, Any, Generic, TypeVar
from uuid import UUID

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from schemas.requests import SceneImageRequest, SceneNumber
from schemas.statuses import ImageStatus
from schemas.words import Tier

CONTENT_TYPE = "application/cloudevents+json"
RAW_BYTES = "application/octet-stream"
"""The content type of a dead letter that carries an event's own bytes: they may be no CloudEvent, or anything."""

REQUESTED_TYPE = "scene-images.requested.v1"
RETRY_TYPE = "scene-images.retry.v1"
STATUS_TYPE = "scene-images.status.v1"
COMPLETED_TYPE = "scene-images.completed.v1"
FAILED_TYPE = "scene-images.failed.v1"
DEAD_TYPE = "scene-images.dead.v1"

Data = TypeVar("Data", bound=BaseModel)


class CloudEvent(BaseModel, Generic[Data]):
    """The envelope. `subject` is the record_id, `sequence` its version, `partitionkey` the Kafka key."""

    model_config = ConfigDict(extra="ignore")

    specversion: str = Field(pattern=r"^1\.0$")
    id: str = Field(min_length=1)
    source: str
    type: str
    subject: str | None = None
    time: datetime | None = None
    datacontenttype: str | None = "application/json"
    sequence: str | None = None
    traceparent: str | None = None
    partitionkey: str | None = None
    data: Data


class RequestedData(SceneImageRequest):
    """`data` of `scene-images.requested.*`: who, where, and the body of POST. `record_id` is the idempotency key."""

    record_id: UUID
    user_id: UUID
    chapter_id: UUID
    scene_number: SceneNumber
    # as in a token's claim, an unknown tier is `standard`
    user_tier: Annotated[Tier, BeforeValidator(Tier.of, json_schema_input_type=str)] = Tier.STANDARD

    def body(self) -> SceneImageRequest:
        return SceneImageRequest.model_construct(
            **{name: getattr(self, name) for name in SceneImageRequest.model_fields}
        )


class RetryData(BaseModel):
    """`data` of `scene-images.retry-*`: wakes dispatch if the record still waits for this attempt."""

    record_id: UUID
    attempt: int


class PictureFacts(BaseModel):
    """What is known of the stored bytes."""

    content_type: str
    bytes: int
    sha256: str
    width: int | None = None
    height: int | None = None


class CompletedData(ImageStatus):
    """`data` of `scene-images.completed.v1`."""

    cost: float | None = Field(description="US dollars, estimated from the model's price; the provider states none")
    prompt: str | None
    picture: PictureFacts | None


class FailedData(ImageStatus):
    """`data` of `scene-images.failed.v1`."""

    cost: float | None
    prompt: str | None


class DeadData(BaseModel):
    """`data` of `scene-images.dead-*`: the request as it was accepted, and why it ended."""

    record_id: UUID | None
    request: dict[str, Any] | None
    attempt: int | None
    error_class: str
    error_code: str | None
    error_message: str | None


RequestedEvent = CloudEvent[RequestedData]
RetryEvent = CloudEvent[RetryData]
StatusEvent = CloudEvent[ImageStatus]
CompletedEvent = CloudEvent[CompletedData]
FailedEvent = CloudEvent[FailedData]
DeadEvent = CloudEvent[DeadData]

"""What a caller asks for, and the answer to it."""

from typing import Annotated, Any
from urllib.parse import urlsplit
from uuid import UUID

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, StringConstraints

from schemas.words import ASPECT_RATIOS, PIXEL_RATIOS, SCENE_NUMBER_MAX, Style


def _storable(text: str) -> str:
    if "\x00" in text:
        raise ValueError("must not contain the NUL character")
    return text


def _ratio(value: object) -> object:
    if not isinstance(value, str):
        return value
    if value in ASPECT_RATIOS:
        return ASPECT_RATIOS[value]
    if value in PIXEL_RATIOS:
        return PIXEL_RATIOS[value]
    if value in ASPECT_RATIOS.values():
        return value
    names = ", ".join(f"{name} ({ratio})" for name, ratio in ASPECT_RATIOS.items())
    raise ValueError(f"must be one of {names}, by name or by ratio")


def _web_address(text: str) -> str:
    """Only its form is looked at: the provider fetches it, never we. Raises ValueError."""
    address = urlsplit(text)
    if address.scheme not in ("http", "https") or not address.hostname:
        raise ValueError("must be an http or https address, such as https://example.org/alice.png")
    if not text.isprintable() or " " in text:
        raise ValueError("must not contain spaces or control characters")
    return text


Description = Annotated[
    str, StringConstraints(strip_whitespace=True, min_length=1, max_length=4_000), AfterValidator(_storable)
]
CustomPrompt = Annotated[str, StringConstraints(strip_whitespace=True, max_length=2_000), AfterValidator(_storable)]
CharacterId = Annotated[str, StringConstraints(strip_whitespace=True, max_length=200), AfterValidator(_storable)]
AspectRatio = Annotated[
    str,
    BeforeValidator(_ratio, json_schema_input_type=str),
    Field(description="a preset name or its ratio", examples=["widescreen", "16:9"]),
]
SceneNumber = Annotated[int, Field(ge=1, le=SCENE_NUMBER_MAX)]
ImageUrl = Annotated[
    str, StringConstraints(strip_whitespace=True, min_length=1, max_length=2_000), AfterValidator(_web_address)
]


class SceneImageRequest(BaseModel):
    """Body of `POST /chapters/{chapter_id}/images/scenes/{scene_number}`: types are strict, unknown fields refused."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    scene_description: Description = Field(description="what is to be seen")
    style: Style = Style.CINEMATIC
    aspect_ratio: AspectRatio = ASPECT_RATIOS["widescreen"]
    custom_prompt: CustomPrompt | None = Field(default=None, description="a wish of one's own, added to the prompt")
    script_id: UUID | None = Field(default=None, description="the script that the scene is from")
    character_ids: list[CharacterId] | None = Field(default=None, max_length=50, description="kept with the record")
    character_image_urls: list[ImageUrl] | None = Field(
        default=None,
        max_length=50,
        description="pictures of those who appear, at public http(s) addresses: the provider fetches them and draws "
        "after them, after the first few where its model takes no more",
    )

    def extras(self) -> dict[str, Any]:
        """The fields that are kept in `metadata` and have no column."""
        if self.character_ids is None and self.character_image_urls is None:
            return {}  # nearly always, and a dump costs as much as the rest of reading a request
        return self.model_dump(mode="json", include={"character_ids", "character_image_urls"}, exclude_none=True)


class ImageGenerationQueuedResponse(BaseModel):
    """202: the request is on record. `task_id` is `record_id` under the old system's name."""

    task_id: UUID
    record_id: UUID = Field(description="the image generation, in every status and event")
    status: str = "queued"
    message: str = Field(description="a sentence for people")
    estimated_time_seconds: int = Field(description="until the picture is there, as far as is known")
    scene_number: int
    retry_count: int = 0
    status_url: str = Field(description="where the scene's status is polled; absolute")
    events_url: str = Field(description="where the chapter's changes will be streamed; absolute")

"""Dead letters as operators see them: over HTTP (`/admin/dead-letters`) and from `python -m consumer.deadletters`."""

import re
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Annotated, Literal, Self
from uuid import UUID

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, StringConstraints, model_validator

DeadClass = Literal["invalid", "auth", "quota", "content", "exhausted", "deadline", "poison", "unexpected"]
"""The classes of schemas.errors.DEAD_CLASSES."""

_AGE = re.compile(r"([0-9]{1,6})([smhdw])")
_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}
_LONGEST_AGE = timedelta(days=36_500)
# Postgres and asyncpg take these whatever the zone
_YEARS = range(1971, 2900)


class Refusal(StrEnum):
    """Why a dead letter is not replayed."""

    UNKNOWN = "unknown"
    ALREADY_REPLAYED = "already_replayed"
    NOT_FAILED = "not_failed"
    ATTEMPT_MOVED_ON = "attempt_moved_on"
    RECORD_GONE = "record_gone"

    @property
    def sentence(self) -> str:
        return _SENTENCES[self]


_SENTENCES = {
    Refusal.UNKNOWN: "There is no such dead letter.",
    Refusal.ALREADY_REPLAYED: "It was replayed before; had it died again, there would be a newer letter.",
    Refusal.NOT_FAILED: "Its image generation is not failed any more.",
    Refusal.ATTEMPT_MOVED_ON: "Its image generation was tried again since: look for its newer letter.",
    Refusal.RECORD_GONE: "Its image generation is not there any more.",
}


def age(value: object) -> timedelta:
    """A span such as `90s`, `30m`, `2h`, `3d`, `1w`; what is one already is left alone."""
    if isinstance(value, timedelta):
        return value
    found = _AGE.fullmatch(value) if isinstance(value, str) else None
    if found is None or (span := timedelta(**{_UNITS[found[2]]: int(found[1])})) > _LONGEST_AGE:
        raise ValueError("must be an age such as 90s, 30m, 2h, 3d or 1w, of 100 years at most")
    return span


def moment(value: object) -> datetime | timedelta:
    """A date and time (ISO 8601; without a zone it is UTC), or how long ago it is, such as `2h`."""
    if isinstance(value, datetime | timedelta):
        return value
    if isinstance(value, str) and _AGE.fullmatch(value):
        return age(value)
    time = _read(value) if isinstance(value, str) else None
    if time is None or time.year not in _YEARS:
        raise ValueError("must be a time such as 2026-01-31T08:00:00Z, or an age such as 2h or 3d")
    return time if time.tzinfo is not None else time.replace(tzinfo=UTC)


def _read(text: str) -> datetime | None:
    try:
        return datetime.fromisoformat(text)
    except ValueError:
        return None


Age = Annotated[timedelta, BeforeValidator(age, json_schema_input_type=str)]
Moment = Annotated[datetime | timedelta, BeforeValidator(moment, json_schema_input_type=str)]
Word = Annotated[str, StringConstraints(pattern=r"^[!-~]{1,200}$")]
LetterId = Annotated[int, Field(ge=1, le=2**63 - 1)]


class LetterChoice(BaseModel):
    """Which dead letters: those that fit everything that is named."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    error_class: list[DeadClass] | None = Field(default=None, min_length=1, description="any of these classes")
    error_code: list[Word] | None = Field(default=None, min_length=1, max_length=50, description="any of these codes")
    model_id: list[Word] | None = Field(default=None, min_length=1, max_length=50, description="any of these models")
    user_id: UUID | None = Field(default=None, description="of this user")
    chapter_id: UUID | None = Field(default=None, description="of this chapter")
    record_id: UUID | None = Field(default=None, description="of this image generation")
    since: Moment | None = Field(default=None, description="died then or later: a time (ISO 8601) or an age (`2h`)")
    until: Moment | None = Field(default=None, description="died before then: a time or an age")

    def narrows(self) -> bool:
        """Whether anything is named."""
        return any(getattr(self, name) is not None for name in LetterChoice.model_fields)


class LetterFilters(LetterChoice):
    """The same, also by what became of them."""

    replayed: bool | None = Field(default=None, description="only replayed ones, or only those that were not")


class LetterQuery(LetterFilters):
    """The query of `GET /admin/dead-letters`."""

    group: bool = Field(default=False, description="counts by class, code and model instead of letters")
    limit: int = Field(default=50, ge=1, le=500, description="letters to a page")
    cursor: str | None = Field(default=None, max_length=200, description="`cursor` of the page before")


class _Named(LetterChoice):
    ids: list[LetterId] | None = Field(
        default=None, min_length=1, max_length=1_000, description="these letters, and no filter"
    )
    dry_run: bool = Field(default=False, description="change nothing, only say what would be")

    @model_validator(mode="after")
    def _ids_or_filters(self) -> Self:
        if self.ids is not None and self.narrows():
            raise ValueError("name ids or filters, not both")
        return self


class ReplayRequest(_Named):
    """Which dead letters to replay: by their ids, by filters, or `all` that can be."""

    all: bool = Field(default=False, description="every letter that can be replayed; else name ids or a filter")
    limit: int = Field(default=100, ge=1, le=1_000, description="most letters in this call, the oldest first")

    @model_validator(mode="after")
    def _means_something(self) -> Self:
        if not self.all and self.ids is None and not self.narrows():
            raise ValueError("name ids, a filter, or all")
        return self


class PurgeRequest(_Named):
    """Which dead letters to delete: replayed ones; with `older_than` all of that age; with `all` whatever fits."""

    older_than: Age | None = Field(default=None, description="also those never replayed, when they died so long ago")
    all: bool = Field(default=False, description="also those never replayed, of any age")
    limit: int = Field(default=1_000, ge=1, le=10_000, description="most letters in this call, the oldest first")


class DeadLetter(BaseModel):
    """One line of the list."""

    id: int
    kind: Literal["record", "event"] = Field(
        description="`record`: an image generation that failed; `event`: bytes that were not worked on, or not sent"
    )
    record_id: UUID | None
    user_id: UUID | None
    chapter_id: UUID | None
    attempt: int | None = Field(description="the number of the attempt that was the last")
    model_id: str | None = Field(description="the last attempt's model")
    error_class: str
    error_code: str | None
    error_message: str | None = Field(description="what the user was told, or why the event was not worked on")
    topic: str = Field(description="the topic of its class; of an event that Kafka would not take, its own")
    origin_topic: str | None = Field(description="where the event was read")
    origin_partition: int | None
    origin_offset: int | None
    first_failed_at: datetime | None
    failed_at: datetime
    replayed_at: datetime | None


class LetterGroup(BaseModel):
    """How many there are of one class, code and model."""

    error_class: str
    error_code: str | None
    model_id: str | None
    letters: int
    replayed: int = Field(description="of these, how many were replayed")
    first_failed_at: datetime = Field(description="when the first of them died")
    last_failed_at: datetime


class DeadLetters(BaseModel):
    """A page, the newest first; with `group=true` the groups, the largest first."""

    letters: list[DeadLetter] = []
    groups: list[LetterGroup] | None = None
    cursor: str | None = Field(default=None, description="for the next page; null on the last one")


class LetterRecord(BaseModel):
    """The image generation as it is now."""

    status: str | None
    stage: str | None
    version: int
    attempt: int
    retry_count: int
    scene_number: int | None
    scene_description: str | None
    user_tier: str | None
    lane: str | None
    created_at: datetime | None
    deadline_at: datetime | None


class LetterAttempt(BaseModel):
    """One call of the provider's. `error_detail` is what it said, without secrets."""

    id: UUID = Field(description="the provider knows it as `track_id`")
    attempt: int
    model_id: str
    sent_at: datetime | None
    provider_request_id: str | None
    outcome: str | None
    counted: bool | None
    error_class: str | None
    error_code: str | None
    error_detail: str | None
    cost: float | None = Field(description="US dollars, estimated from the model's price")
    closed_at: datetime | None


class LetterHeader(BaseModel):
    name: str
    value: str | None


class LetterEvent(BaseModel):
    """The event's own key, headers and bytes, for reading: without secrets, what is not UTF-8 as escapes."""

    key: str | None
    headers: list[LetterHeader]
    exact: bool = Field(description="false: an older version kept neither key nor headers, a replay goes without")
    bytes: int = Field(description="of the whole body")
    body: str = Field(description="its beginning")


class DeadLetterDetail(DeadLetter):
    """Everything about one."""

    refusal: Refusal | None = Field(description="why it cannot be replayed; null: it can")
    record: LetterRecord | None
    attempts: list[LetterAttempt]
    event: LetterEvent | None


class Refused(BaseModel):
    """A letter that was not replayed."""

    id: int
    code: Refusal
    message: str


class ReplayOutcome(BaseModel):
    """What became of a replay; with `dry_run` what would."""

    dry_run: bool
    replayed: int
    skipped: int = Field(description="not replayed, each for a reason")
    reasons: dict[Refusal, int] = Field(description="how many were skipped for what")
    refused: list[Refused] = Field(description="the letters that were named by id and skipped")
    left: int = Field(description="more that can be replayed, for the next call")
    groups: list[LetterGroup] = Field(description="with `dry_run`: what the replayed ones are")


class PurgeOutcome(BaseModel):
    """What was deleted; with `dry_run` what would be."""

    dry_run: bool
    purged: int
    left: int = Field(description="more that may be, for the next call")
    groups: list[LetterGroup] = Field(description="with `dry_run`: what the purged ones are")

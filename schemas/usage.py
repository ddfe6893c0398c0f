"""What image generations have cost: money, and `GET /me/usage`."""

from datetime import date
from decimal import Decimal
from typing import Annotated
from uuid import UUID

from pydantic import BaseModel, Field, PlainSerializer, WithJsonSchema

Dollars = Annotated[
    Decimal,
    # to the cent's fraction as it is: a float's shortest text has the digits of the decimal it came from
    PlainSerializer(float, return_type=float, when_used="json"),
    WithJsonSchema({"type": "number"}),
]
"""US dollars; summed as decimals, a number in JSON."""

LONGEST_PERIOD = 366
"""Days of one answer."""


class Spent(BaseModel):
    """What some image generations have cost, by the models' prices: the provider's answers carry none.

    An attempt has cost its price once the provider gave it an id or a picture, whatever came of it: whether failed jobs
    are charged is not documented. What it refused, or what was never sent, has cost nothing.
    """

    images: int = Field(description="image generations asked for; of a model: those it was tried for")
    pictures: int = Field(description="pictures that were made")
    attempts: int = Field(description="calls that have cost something, or may have")
    cost_usd: Dollars = Field(description="US dollars, settled")
    uncertain_attempts: int = Field(description="calls that were sent and not answered: they may have been charged")
    uncertain_usd: Dollars = Field(description="their prices, not in `cost_usd`")
    open_usd: Dollars = Field(description="prices of calls that are under way, in neither of the two")


class DaySpent(Spent):
    day: date = Field(description="UTC, of the request")


class ChapterSpent(Spent):
    chapter_id: UUID | None = Field(description="null for what belongs to no chapter")


class ModelSpent(Spent):
    model_id: str


class Usage(BaseModel):
    """One user's, of the image generations asked for in a period; figures change while these are worked on."""

    first: date = Field(alias="from", description="the period's first day, UTC")
    last: date = Field(alias="to", description="its last, included")
    total: Spent
    by_day: list[DaySpent] = Field(description="days with requests, in order")
    by_chapter: list[ChapterSpent] = Field(description="the costliest first; at most 1,000, `total` counts all")
    by_model: list[ModelSpent] = Field(description="the costliest first")

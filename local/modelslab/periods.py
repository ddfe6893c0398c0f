"""Lengths of time as a script writes them: a number, a range, or a distribution with a long tail."""

import math
import random
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, model_validator

Seconds = Annotated[float, Field(ge=0, le=86_400)]
Z99 = 2.326  # the 99th percentile of the normal distribution


class Uniform(BaseModel):
    """Anything from `low` to `high` seconds, equally likely."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    low: Seconds
    high: Seconds

    @model_validator(mode="after")
    def ordered(self) -> "Uniform":
        if self.high < self.low:
            raise ValueError("high must not be below low")
        return self


class LongTail(BaseModel):
    """Log-normal: half of the draws are below `median`, one in a hundred above `p99`; never above twice `p99`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    median: Annotated[float, Field(gt=0, le=86_400)]
    p99: Seconds

    @model_validator(mode="after")
    def ordered(self) -> "LongTail":
        if self.p99 < self.median:
            raise ValueError("p99 must not be below median")
        return self


Period = Seconds | Uniform | LongTail


def draw(period: Period, rng: random.Random) -> float:
    """One length in seconds; a plain number draws nothing, so that adding one changes no other draw."""
    match period:
        case Uniform(low=low, high=high):
            return rng.uniform(low, high)
        case LongTail(median=median, p99=p99):
            sigma = math.log(p99 / median) / Z99
            return min(median * math.exp(sigma * rng.gauss(0, 1)), 2 * p99)
        case _:
            return float(period)

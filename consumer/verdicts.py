"""What becomes of an attempt that failed: one pure function, no clock, no database, no chance but an argument.

Invariants: a delay is a floor that jitter only extends, by at most a quarter; a deferral and the next model cost no
retry, nor does anything that an open breaker explains; the fourth counted failure ends the request.
"""

from dataclasses import dataclass
from typing import Literal, TypeAlias

from schemas.errors import DEAD_CLASSES, ErrorClass

UncertainPolicy: TypeAlias = Literal["retry", "fail"]


@dataclass(frozen=True, slots=True)
class Failure:
    """Why the attempt failed. `message` is for the person who waits; `retry_after` in seconds."""

    error_class: ErrorClass
    code: str
    message: str
    retry_after: float | None = None


@dataclass(frozen=True, slots=True)
class Facts:
    """What else decides. `retry_count` counts the retries already spent; `jitter` lies in [0, 1)."""

    retry_count: int
    uncertain_policy: UncertainPolicy = "retry"
    models_left: bool = False
    retry_delays: tuple[float, ...] = (5.0, 10.0, 20.0)
    jitter: float = 0.0
    rate_limit_default: float = 30.0
    # the provider's breaker is open; and seconds to the next probe where all models of the chain are shut by theirs
    paused: bool = False
    models_shut_for: float | None = None


@dataclass(frozen=True, slots=True)
class Retry:
    """Another attempt after `delay` seconds, counted."""

    delay: float


@dataclass(frozen=True, slots=True)
class Defer:
    """Not now: another attempt after `delay` seconds, uncounted; the slot rests as long."""

    delay: float


@dataclass(frozen=True, slots=True)
class PutOff:
    """A breaker is open: another attempt, uncounted, when it lets one through; `delay` seconds at the least."""

    delay: float


@dataclass(frozen=True, slots=True)
class NextModel:
    """The next model of the tier's chain, at once, uncounted, with the same claim and slot."""


@dataclass(frozen=True, slots=True)
class Dead:
    """The end. `error_class` names the dead-letter topic."""

    error_class: ErrorClass
    code: str
    message: str


Verdict: TypeAlias = Retry | Defer | PutOff | NextModel | Dead

_MIN_DEFERRAL = 1.0
_JITTER_SHARE = 0.25

_DEFERRED = frozenset({ErrorClass.RATE_LIMITED})
_COUNTED = frozenset(
    {
        ErrorClass.NETWORK,
        ErrorClass.TIMEOUT,
        ErrorClass.UNAVAILABLE,
        ErrorClass.MODEL_UNAVAILABLE,  # its chain used up
        ErrorClass.UNEXPECTED,
    }
)
OPENING = frozenset({ErrorClass.AUTH, ErrorClass.QUOTA, ErrorClass.NETWORK, ErrorClass.TIMEOUT, ErrorClass.UNAVAILABLE})
"""The classes that open the provider's breaker, and cost nobody a retry while it is open (PIPELINE K2)."""
_OUTCOME_UNKNOWN = (
    "The image service did not answer, so it is not known whether a picture was made. Request the scene again to retry."
)


def judge(failure: Failure, facts: Facts) -> Verdict:
    """The fate of an image generation whose attempt failed so."""
    if failure.error_class in _DEFERRED:
        asked = failure.retry_after if failure.retry_after is not None else facts.rate_limit_default
        return Defer(_extended(max(asked, _MIN_DEFERRAL), facts.jitter))
    if failure.error_class in OPENING and facts.paused:
        return PutOff(0.0)
    if failure.error_class is ErrorClass.MODEL_UNAVAILABLE:
        if facts.models_left:
            return NextModel()
        if facts.models_shut_for is not None:
            return PutOff(_extended(facts.models_shut_for, facts.jitter))
    if failure.error_class is ErrorClass.TIMEOUT and facts.uncertain_policy == "fail":
        return Dead(ErrorClass.EXHAUSTED, "outcome_unknown", _OUTCOME_UNKNOWN)
    if failure.error_class in _COUNTED:
        if facts.retry_count < len(facts.retry_delays):
            return Retry(_extended(facts.retry_delays[max(0, facts.retry_count)], facts.jitter))
        unexpected = failure.error_class is ErrorClass.UNEXPECTED
        return Dead(ErrorClass.UNEXPECTED if unexpected else ErrorClass.EXHAUSTED, failure.code, failure.message)
    assert failure.error_class in DEAD_CLASSES
    return Dead(failure.error_class, failure.code, failure.message)


def _extended(delay: float, jitter: float) -> float:
    return delay * (1 + _JITTER_SHARE * min(max(jitter, 0.0), 1.0))

"""How work fails: the closed set of error classes and, for those that end a request, their dead-letter topic."""

from enum import StrEnum


class ErrorClass(StrEnum):
    NETWORK = "network"
    TIMEOUT = "timeout"
    UNAVAILABLE = "unavailable"
    RATE_LIMITED = "rate_limited"
    MODEL_UNAVAILABLE = "model_unavailable"
    INVALID = "invalid"
    AUTH = "auth"
    QUOTA = "quota"
    CONTENT = "content"
    EXHAUSTED = "exhausted"
    DEADLINE = "deadline"
    POISON = "poison"
    UNEXPECTED = "unexpected"


DEAD_CLASSES: tuple[ErrorClass, ...] = (
    ErrorClass.INVALID,
    ErrorClass.AUTH,
    ErrorClass.QUOTA,
    ErrorClass.CONTENT,
    ErrorClass.EXHAUSTED,
    ErrorClass.DEADLINE,
    ErrorClass.POISON,
    ErrorClass.UNEXPECTED,
)
"""The classes a request can die of, each with a topic `scene-images.dead-<class>.v1`."""

ERROR_MESSAGE_MAX_BYTES = 1024

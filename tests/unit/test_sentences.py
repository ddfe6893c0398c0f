"""What became of an attempt, in words."""

from itertools import product
from typing import get_args

import pytest

from consumer import taxonomy
from notifier.sentences import told
from schemas.errors import ErrorClass
from schemas.history import AttemptOutcome

CODES = {
    *(code for _, code, _ in [*taxonomy.CODES.values(), *taxonomy.PHASES.values()]),
    *(rule.code for rule in taxonomy.RULES),
}


def test_whatever_comes_is_a_sentence() -> None:
    outcomes = [None, *get_args(AttemptOutcome)]
    classes = [None, *ErrorClass, "of a later version"]
    for outcome, error_class, code in product(outcomes, classes, [None, *CODES, "of_a_later_version"]):
        words = told(outcome, error_class, code)
        assert words[0].isupper(), words
        assert words.endswith("."), words


@pytest.mark.parametrize(
    ("outcome", "error_class", "code", "words"),
    [
        ("success", None, None, "The picture was made."),
        (None, None, None, "Under way."),
        ("failed", "unavailable", "provider_unavailable", "The image service said that it could not at that moment."),
        (
            "uncertain",
            "timeout",
            "connection_lost",
            "The connection to the image service broke off. A picture may have been made and charged.",
        ),
        (
            "handed_over",
            "model_unavailable",
            "model_busy",
            "This model could not at that moment. The next model was asked.",
        ),
        (
            "deferred",
            "rate_limited",
            "rate_limited",
            "Too many pictures at once: the image service asked to wait. This costs no try.",
        ),
        (
            "failed",
            "content",
            "content_refused",
            "Refused by the content rules of the image service. Change the description.",
        ),
        (
            "failed",
            "auth",
            "api_key_refused",
            "The image service refused our account. That is for our team to mend, not for you.",
        ),
        ("failed", "unexpected", "unknown_status", "The image service gave an answer that could not be used."),
        # its record has ended, its picture is still looked for
        (None, "deadline", "storing_failed", "The picture was made, and could not be fetched or stored in time."),
        (
            "late_success",
            "timeout",
            "connection_lost",
            "The picture came after all, later than it was waited for.",
        ),
    ],
)
def test_what_became_of_it(outcome: str | None, error_class: str | None, code: str | None, words: str) -> None:
    assert told(outcome, error_class, code) == words

"""What became of an attempt, in a sentence for the person who waits: what happened, and what is to be done if anything.

A status says what one reads now; these tell what was, so they promise nothing about what comes next.
"""

from schemas.errors import ErrorClass

_OUTCOMES = {
    "success": "The picture was made.",
    "late_success": "The picture came after all, later than it was waited for.",
    "late_failure": "The image service was late, and had not made the picture.",
    "superseded": "Nothing was sent: an earlier call had been answered meanwhile.",
    "not_sent": "Nothing was sent: this server was about to stop or had lost its turn.",
    "cancelled": "Ended before there was an answer: its time was over, or the request was cancelled.",
}

_MAYBE = "A picture may have been made and charged."
_CODES = {
    "connect_failed": "The image service could not be reached; nothing was sent.",
    "no_connection_free": "There was no free connection to the image service; nothing was sent.",
    "no_answer": f"The image service did not answer in time. {_MAYBE}",
    "connection_lost": f"The connection to the image service broke off. {_MAYBE}",
    "unreadable_answer": f"Something on the way to the image service answered in its place. {_MAYBE}",
    "outcome_unknown": f"The image service did not answer. {_MAYBE}",
    "provider_unavailable": "The image service said that it could not at that moment.",
    "rate_limited": "Too many pictures at once: the image service asked to wait. This costs no try.",
    "model_busy": "This model could not at that moment.",
    "models_unavailable": "None of the models for this image could work; nothing was sent.",
    "model_not_in_plan": "This model is not in our plan with the image service.",
    "model_unknown": "The image service does not have this model any more.",
    "invalid_prompt": "The words were not accepted. Change or shorten the description.",
    "invalid_request": "The request was not accepted. Change the description or the picture's shape.",
    "reference_unreachable": "A reference picture could not be opened. Check that its address is public.",
    "nsfw_flagged": "The picture was made, and marked as not safe to show. Change the description.",
    "content_refused": "Refused by the content rules of the image service. Change the description.",
    "empty_output": "The image service said that it was done, and gave no picture.",
    "request_not_found": "The image service did not know its own job any more.",
    "never_finished": "The image service never finished the picture.",
    "not_a_picture": "What the image service gave as the picture was none.",
    "storing_failed": "The picture was made, and could not be fetched or stored in time.",
    "deadline_exceeded": "Its time was over before there was a picture.",
}

_ACCOUNT = "The image service refused our account. That is for our team to mend, not for you."
_CLASSES = {
    ErrorClass.NETWORK: _CODES["connect_failed"],
    ErrorClass.TIMEOUT: _CODES["no_answer"],
    ErrorClass.UNAVAILABLE: _CODES["provider_unavailable"],
    ErrorClass.RATE_LIMITED: _CODES["rate_limited"],
    ErrorClass.MODEL_UNAVAILABLE: _CODES["model_busy"],
    ErrorClass.INVALID: _CODES["invalid_request"],
    ErrorClass.AUTH: _ACCOUNT,
    ErrorClass.QUOTA: _ACCOUNT,
    ErrorClass.CONTENT: _CODES["content_refused"],
    ErrorClass.EXHAUSTED: _CODES["outcome_unknown"],
    ErrorClass.DEADLINE: _CODES["deadline_exceeded"],
    ErrorClass.POISON: "The request could not be read.",
    ErrorClass.UNEXPECTED: "The image service gave an answer that could not be used.",
}
_NEXT_MODEL = " The next model was asked."
_UNDER_WAY = "Under way."


def told(outcome: str | None, error_class: str | None, error_code: str | None) -> str:
    """A sentence or two. An attempt with its error but without an outcome is followed still, for its picture."""
    if outcome in _OUTCOMES:
        return _OUTCOMES[outcome]
    if error_class is None and error_code is None:
        return _UNDER_WAY if outcome is None else _CLASSES[ErrorClass.UNEXPECTED]
    known = _CODES.get(error_code or "")
    if known is None:
        known = _CLASSES[ErrorClass(error_class) if error_class in set(ErrorClass) else ErrorClass.UNEXPECTED]
    return known + _NEXT_MODEL if outcome == "handed_over" else known

"""Everything ModelsLab is known to answer when it refuses or fails, by name, with the strength of the evidence.

Grades: `D` current official documentation (docs.modelslab.com: error-codes, rate-limits, openapi), `L` legacy official
documentation (stablediffusionapi.com), `C` seen in the code or notes of others who call the API, `guess` made up here
because a client must survive it. The HTTP code of a body is evidence only where the grade is `D`; errors are
documented inside HTTP 200 too, which is what the script's `errors_in_200` and a rule's `code` are for.
"""

import json
from dataclasses import dataclass
from typing import Any, Literal

Grade = Literal["D", "L", "C", "guess"]


@dataclass(frozen=True, slots=True)
class Reply:
    """What goes over the wire: a code and a body that is JSON, or text when it is not."""

    code: int
    body: dict[str, Any] | str
    content_type: str = "application/json"

    def encoded(self) -> bytes:
        return self.body.encode() if isinstance(self.body, str) else json.dumps(self.body).encode()


@dataclass(frozen=True, slots=True)
class Fault:
    """A named way to fail; `{model}`, `{slots}` and `{retry_after}` in it are filled in."""

    code: int
    body: dict[str, Any] | str
    grade: Grade
    content_type: str = "application/json"

    def reply(self, *, code: int | None = None, **facts: object) -> Reply:
        return Reply(code or self.code, _filled(self.body, facts), self.content_type)


def _filled(value: Any, facts: dict[str, object]) -> Any:
    if isinstance(value, dict):
        return {name: _filled(inner, facts) for name, inner in value.items()}
    if not isinstance(value, str):
        return value
    for name, fact in facts.items():
        if value == f"{{{name}}}":
            return fact
        value = value.replace(f"{{{name}}}", str(fact))
    return value


def _error(message: object, **more: object) -> dict[str, Any]:
    return {"status": "error", "message": message, **more}


_SALES = "Get 20x faster image generation using enterprise plan. Click here : https://modelslab.com/enterprise"
_HEADER_TIP = "1. Make sure you are passing Content-Type: application/json in header."
_BAD_GATEWAY = (
    "<html>\n<head><title>502 Bad Gateway</title></head>\n<body>\n"
    "<center><h1>502 Bad Gateway</h1></center>\n<hr><center>cloudflare</center>\n</body>\n</html>\n"
)

FAULTS: dict[str, Fault] = {
    # who may call
    "key_missing": Fault(401, _error("API key required"), "D"),
    "invalid_key": Fault(401, _error("Invalid API key"), "D"),
    "invalid_key_legacy": Fault(200, _error("Invalid Api Key", tip=_HEADER_TIP), "L"),
    # what is paid for
    "credits": Fault(402, _error("Insufficient credits. Please add more credits to continue."), "D"),
    "monthly_limit": Fault(
        200,
        _error("Your monthly limit exceeded, upgrade subscription now on https://stablediffusionapi.com/pricing"),
        "L",
    ),
    "out_of_credits": Fault(200, _error("You are out of credits"), "C"),
    "plan": Fault(403, _error("This feature requires a premium subscription"), "D"),
    "feature_unavailable": Fault(403, _error("Feature not available"), "D"),
    # not now
    "rate_limited": Fault(
        429,
        _error("Rate limit exceeded. Maximum {slots} queued requests allowed.", retry_after="{retry_after}"),
        "D",
    ),
    "rate_limited_legacy": Fault(
        200,
        _error(
            "Rate limit exceeded",
            tips="you are sending same request multiple times, spam filter is enabled, "
            "please wait for {retry_after} seconds and try again",
        ),
        "L",
    ),
    "internal_error": Fault(500, _error("Internal server error. Please try again."), "D"),
    "unavailable": Fault(503, _error("Service temporarily unavailable. Please try again later."), "D"),
    "try_again": Fault(200, {"status": "failed", "id": "", "message": "Failed, Try Again", "output": ""}, "L"),
    # which model
    "model_unavailable": Fault(200, _error("Images cannot be generated at the moment, try use another model"), "C"),
    "model_not_found": Fault(404, _error("Model not found: {model}"), "D"),
    "model_not_found_legacy": Fault(200, _error("Model id not found"), "L"),
    "invalid_model": Fault(400, _error("Invalid model ID"), "C"),
    # what was asked
    "validation": Fault(400, _error("prompt is required"), "D"),
    "validation_object": Fault(200, _error({"prompt": ["The prompt field is required."]}), "L"),
    "invalid_request": Fault(400, _error("Invalid API Request", tip=_HEADER_TIP), "L"),
    "init_image": Fault(400, _error("Unable to fetch image from provided URL"), "D"),
    "content": Fault(400, _error("Your prompt was blocked by our content policy"), "guess"),
    # how it is said
    "messege": Fault(
        500, {"status": "error", "messege": "Internal server error. Please try again.", "tip": _SALES}, "D"
    ),
    "error_field": Fault(500, {"status": "error", "error": "Internal server error. Please try again."}, "C"),
    "unknown_status": Fault(200, {"status": "queued", "message": "Request queued"}, "guess"),
    "not_found": Fault(
        200, {"status": "failed", "id": "", "message": "Request not found", "output": "", "tip": _SALES}, "C"
    ),
    "dimensions": Fault(
        200, {"status": "failed", "message": "Processing failed: Invalid input dimensions", "output": ""}, "D"
    ),
    # not said in JSON at all
    "bad_gateway": Fault(502, _BAD_GATEWAY, "guess", "text/html"),
    "gateway_timeout": Fault(
        504, _BAD_GATEWAY.replace("502 Bad Gateway", "504 Gateway Time-out"), "guess", "text/html"
    ),
    "empty_body": Fault(200, "", "guess", "text/html"),
    "half_json": Fault(200, '{"status": "success", "id": 1234, "outp', "guess"),
}


def refusal(message: object, *, code: int = 400) -> Reply:
    """A refusal of what was asked, in the documented form."""
    return Reply(code, _error(message))

"""Every way in which the provider is known to behave, as a scene's own rules for the simulator.

`docs/provider.md` says what becomes of each; `tests/flow/test_provider_modes.py` holds it to that.
"""

from dataclasses import dataclass
from typing import Any, Literal

from local.modelslab.faults import FAULTS

KEY = "sk-live-key-of-the-modes-0123456789"

Line = Literal["usual", "hooked", "careful", "impatient"]
"""The consumer's settings: the usual ones, with webhooks, with `SCENEWIRE_UNCERTAIN=fail`, or a short deadline."""


@dataclass(frozen=True, slots=True)
class Mode:
    """`rules` of a script, without the prompt's text; the first that fits a call decides."""

    name: str
    rules: tuple[dict[str, Any], ...]
    line: Line = "usual"

    @property
    def words(self) -> str:
        """What the scene is about, and no other scene's description holds."""
        return f"mode {self.name.replace('_', ' ')};"

    def script(self) -> list[dict[str, Any]]:
        return [{"name": self.name, "text": self.words, **rule} for rule in self.rules]


def _submit(first: int | None = None, **action: Any) -> dict[str, Any]:
    return {"action": action} if first is None else {"first": first, "action": action}


def _fetch(first: int, **action: Any) -> dict[str, Any]:
    return {"call": "fetch", "first": first, "action": action}


def _job(**action: Any) -> dict[str, Any]:
    return _submit(answer="processing", duration=0.2, **action)


def _fault(name: str, **action: Any) -> dict[str, Any]:
    return _submit(1, answer="error", fault=name, **action)


ODD_SHAPES = {
    "id": "text",
    "fetch_result": "unreadable",
    "message": "messege",
    "tip": "tips",
    "proxy_links": "object",
    "pending_output": "text",
    "future_links": False,
    "eta": "int",
    "generation_time": False,
}

TWICE = {"duplicated": 1, "delay": 0.5}

MODES: tuple[Mode, ...] = (
    # how it goes well
    Mode("synchronous", (_submit(),)),
    Mode("processing", (_job(),)),
    Mode("no_fetch_result", (_job(shape={"fetch_result": "missing"}),)),
    Mode("foreign_fetch_result", (_job(shape={"fetch_result": "foreign"}),)),
    Mode("odd_shapes", (_job(shape=ODD_SHAPES),)),
    Mode("eta_too_early", (_job(eta=0.0),)),
    Mode("base64", (_submit(picture="base64"),)),
    Mode("plain_text_type", (_submit(picture="text/plain"),)),
    Mode("webp", (_submit(picture="webp"),)),
    Mode("fresh_404", (_submit(fresh_404=2),)),
    Mode("second_source", (_submit(gone=True),)),
    # a look at the job fails, not the job
    Mode("fetch_5xx", (_fetch(2, answer="error", fault="internal_error"), _job())),
    Mode("fetch_gateway", (_fetch(2, answer="error", fault="bad_gateway"), _job())),
    Mode("fetch_429", (_fetch(1, answer="error", fault="rate_limited"), _job())),
    Mode("fetch_cut", (_fetch(2, answer="reset"), _job())),
    Mode("fetch_key_refused", (_fetch(2, answer="error", fault="invalid_key"), _job())),
    # the job fails
    Mode("job_failed", (_submit(1, answer="processing", duration=0.2, outcome="failed", fault="try_again"), _job())),
    Mode("job_error", (_submit(1, answer="processing", duration=0.2, outcome="error", fault="model_unavailable"),)),
    Mode("job_invalid", (_job(outcome="failed", fault="dimensions"),)),
    Mode("job_forgotten", (_fetch(1, answer="error", fault="not_found"), _job())),
    Mode("job_never_ends", (_job(outcome="never"),), line="impatient"),
    # a success that is none
    Mode("nsfw", (_submit(nsfw=True),)),
    Mode("empty_list", (_submit(1, output="empty"),)),
    Mode("empty_text", (_submit(1, output="text"),)),
    Mode("always_empty", (_submit(output="empty"),)),
    Mode("no_picture", (_submit(1, picture="not_a_picture"),)),
    Mode("half_a_picture", (_submit(1, picture="cut_short"),)),
    Mode("links_die", (_submit(expires_after=0.0),), line="impatient"),
    # sent, and no answer
    Mode("cut", (_submit(1, answer="reset"),)),
    Mode("cut_yet_made", (_submit(1, answer="reset", created=True),)),
    Mode("hangs_yet_made", (_submit(1, answer="hang"),)),
    Mode("cut_for_the_careful", (_submit(1, answer="reset", created=True),), line="careful"),
    Mode("cut_and_named", (_submit(1, answer="reset", created=True, duration=1.0),), line="hooked"),
    Mode("named_twice", (_submit(1, answer="reset", created=True, duration=1.0, webhook=TWICE),), line="hooked"),
    Mode("named_by_nobody", (_submit(1, answer="reset", created=True, webhook={"lost": 1}),), line="hooked"),
    # the key comes back
    Mode("key_in_an_error", (_submit(1, answer="error", code=500, body={"status": "error", "message": f"No {KEY}"}),)),
    Mode("key_on_a_page", (_submit(1, answer="error", code=502, body=f"<html>{KEY}</html>"),)),
    Mode("key_as_id", (_submit(1, answer="error", code=500, body={"status": "error", "id": KEY, "message": "x"}),)),
    # each refusal once, and the worst of them for ever
    *(Mode(name, (_fault(name),)) for name in FAULTS),
    Mode("always_unavailable", (_submit(answer="error", fault="unavailable"),)),
    Mode("always_cut", (_submit(answer="reset"),)),
    Mode("no_model_left", (_submit(answer="error", fault="model_unavailable"),)),
)


def other_code(mode: Mode) -> Mode | None:
    """The same refusal in HTTP 200 where its own code is an error, and the other way round: errors are documented both
    ways. None for what no code of its own could make clearer.
    """
    fault = FAULTS.get(mode.name)
    if fault is None or not isinstance(fault.body, dict) or fault.body["status"] not in ("error", "failed"):
        return None
    code = 200 if fault.code != 200 else 400
    return Mode(f"{mode.name}_in_{code}", (_fault(mode.name, code=code),), mode.line)

"""The words of a script: rules that pick a call and say how it goes. `PUT /simulator/script` takes exactly this."""

import re
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, field_validator, model_validator

from local.modelslab.faults import FAULTS
from local.modelslab.periods import Period
from local.modelslab.settings import ProfileName

CallKind = Literal["submit", "fetch", "picture"]


class Words(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Shape(Words):
    """How an answer is written; the defaults are what the current documentation and samples show."""

    id: Literal["int", "text"] = "int"
    fetch_result: Literal["given", "missing", "foreign", "unreadable"] = "given"
    message: Literal["message", "messege", "error"] = "message"
    tip: Literal["tip", "tips", "absent"] = "tip"
    proxy_links: Literal["list", "object", "absent"] = "list"
    pending_output: Literal["list", "text", "absent"] = "list"
    future_links: bool = True
    eta: Literal["float", "int", "absent"] = "float"
    generation_time: bool = True


class WebhookFate(Words):
    """How a webhook travels, where the request asked for one. `lost` and `duplicated` are probabilities."""

    lost: float = Field(default=0, ge=0, le=1)
    duplicated: float = Field(default=0, ge=0, le=1)
    delay: Period = 0.0
    early: bool = Field(default=False, description="A `processing` payload is sent first; receivers must tolerate it.")


class Action(Words):
    """How one call goes. For a submit it is also the fate of the job it makes.

    answer: `success` at once, after `latency`; `processing`, ready `duration` after it was made; `error` says `fault`
    (or `body` with `code`); `reset` cuts the connection; `hang` makes the job and holds the connection for `latency`.
    On a fetch or a picture `success` means: as the job's own fate has it.
    """

    answer: Literal["success", "processing", "error", "reset", "hang"] = "success"
    latency: Period = Field(default=0.0, description="Before the answer; with `success` the time of the generation.")
    duration: Period = Field(default=0.0, description="From submit to ready, where the job outlives the answer.")
    eta: float | None = Field(default=None, description="What it promises; default: the duration, give or take.")
    outcome: Literal["success", "failed", "error", "never"] = "success"
    fault: str | None = Field(default=None, description="A name of faults.py: of the answer, or of a failing outcome.")
    code: int | None = Field(default=None, ge=200, le=599, description="HTTP code in place of the fault's own.")
    body: dict[str, Any] | str | None = Field(default=None, description="An answer in the script's own words.")
    created: bool = Field(default=False, description="`error` and `reset`: the job is made (and charged) all the same.")
    charged: bool | None = Field(default=None, description="Default: charged if a job was made.")
    output: Literal["urls", "empty", "text"] = "urls"
    nsfw: bool = False
    fresh_404: int = Field(default=0, ge=0, description="The first GETs of the picture that find nothing yet.")
    gone: bool = Field(default=False, description="The output URL never works; proxy_links do.")
    expires_after: float | None = Field(
        default=None, ge=0, description="Seconds after which the picture's URLs are dead."
    )
    picture: Literal["png", "jpeg", "webp", "base64", "text/plain", "not_a_picture", "cut_short"] = "png"
    webhook: WebhookFate = WebhookFate()
    shape: Shape = Shape()

    @field_validator("fault")
    @classmethod
    def known(cls, fault: str | None) -> str | None:
        if fault is not None and fault not in FAULTS:
            raise ValueError(f"unknown fault; known are {', '.join(sorted(FAULTS))}")
        return fault

    @model_validator(mode="after")
    def says_something(self) -> "Action":
        if self.answer == "error" and self.fault is None and self.body is None:
            raise ValueError("an error needs a fault or a body")
        return self

    @property
    def bad(self) -> bool:
        """True when no usable picture comes of the submit; what `mercy` counts."""
        return (
            self.answer in ("error", "reset", "hang")
            or self.outcome != "success"
            or self.output != "urls"
            or self.nsfw
            or self.picture in ("not_a_picture", "cut_short")
        )


def _listed(value: object) -> object:
    return [value] if isinstance(value, int) else value


class Rule(Words):
    """Which calls an action is for; all that is given must hold. The first rule that holds decides.

    `nth` and `first` count the calls that `text`, `pattern` and `model` fit, whichever rule then takes them: all of
    them (`per: rule`), those of the same prompt, or those of the same job. `probability` is drawn after that.
    """

    name: str = ""
    call: CallKind = "submit"
    text: str | None = Field(default=None, description="A part of the prompt, whatever the case.")
    pattern: str | None = Field(default=None, description="A regular expression found in the prompt.")
    model: str | None = None
    nth: Annotated[list[int] | None, BeforeValidator(_listed)] = None
    first: int | None = Field(default=None, ge=1)
    per: Literal["rule", "prompt", "job"] = "rule"
    times: int | None = Field(default=None, ge=1, description="Used up after so many uses.")
    probability: float = Field(default=1, ge=0, le=1)
    action: Action

    @field_validator("pattern")
    @classmethod
    def compiles(cls, pattern: str | None) -> str | None:
        if pattern is not None:
            try:
                re.compile(pattern)
            except re.error as broken:
                raise ValueError(f"not a regular expression: {broken}") from broken
        return pattern


class Script(Words):
    """Rules, then the profile's own rules. `mercy`: after so many bad fates in a row a prompt is treated well."""

    profile: ProfileName | None = Field(default=None, description="Default: the one it was started with.")
    rules: list[Rule] = []
    seed: int | None = None
    mercy: int | None = Field(default=None, ge=0)
    errors_in_200: bool = Field(
        default=False, description="Every JSON error in HTTP 200, its code in the body's words alone."
    )
    validation: Literal["text", "object"] = "text"
    retry_after: float | None = Field(default=None, ge=0, description="What a 429 says; default: as started.")
    slots: int | None = Field(default=None, ge=1, description="Requests in flight per key; default: as started.")
    pictures: Literal["drawn", "prerendered"] | None = None

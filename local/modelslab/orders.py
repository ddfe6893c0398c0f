"""What a submit asks for, checked as the documentation says it is checked. Reference pictures are counted, never
fetched.
"""

from dataclasses import dataclass
from typing import Any, Literal

from local.modelslab.catalogue import MODELS, Model

Endpoint = Literal["text-to-image", "image-to-image"]
LONG_SIDE = 1024
SMALLEST, LARGEST = 256, 2048  # "width must be between 256 and 1024" is documented, and 1920x1080 in use


class UnknownModel(Exception):
    """No such model, or not at this endpoint."""


class Invalid(Exception):
    """A field that does not pass: its name and what is wrong, in the provider's words."""

    def __init__(self, field: str, message: str) -> None:
        super().__init__(message)
        self.field = field
        self.message = message


@dataclass(frozen=True, slots=True)
class Order:
    """One valid submit, without the key. Width and height in pixels; `seed` is None where none was given; of reference
    pictures only the number is kept.
    """

    endpoint: Endpoint
    model: str
    prompt: str
    width: int
    height: int
    aspect_ratio: str | None
    seed: int | None
    samples: int
    track_id: str | None
    webhook: str | None
    negative_prompt: str
    references: int = 0


def read(body: dict[str, Any], endpoint: Endpoint) -> Order:
    """The order in a request body. Unknown fields are passed over.

    Raises:
        Invalid: a field is missing or wrong.
        UnknownModel: the model is not known at this endpoint.
    """
    prompt = body.get("prompt")
    if prompt is None or prompt == "":
        raise Invalid("prompt", "prompt is required")
    if not isinstance(prompt, str):
        raise Invalid("prompt", "prompt must be a string")
    name = body.get("model_id")
    if name is None or name == "":
        raise Invalid("model_id", "model_id is required")
    model = MODELS.get(name) if isinstance(name, str) else None
    if model is None or not (model.text if endpoint == "text-to-image" else model.images > 0):
        raise UnknownModel(str(name))
    references = _references(body, model) if endpoint == "image-to-image" else 0
    ratio = _ratio(body.get("aspect_ratio"), model)
    width, height = _size(body, model, ratio)
    if (scale := body.get("guidance_scale")) is not None:
        _number("guidance_scale", scale, 1, 20)
    seed = body.get("seed")
    return Order(
        endpoint=endpoint,
        model=name,
        prompt=prompt,
        width=width,
        height=height,
        aspect_ratio=ratio,
        seed=None if seed is None or seed == "" else _whole("seed", seed, 0, 2**63 - 1),
        samples=_whole("samples", body.get("samples", 1), 1, 4),
        track_id=_text(body, "track_id"),
        webhook=_webhook(body),
        negative_prompt=_text(body, "negative_prompt") or "",
        references=references,
    )


def size_of(ratio: str) -> tuple[int, int]:
    """Pixels for a ratio such as `16:9`: the long side 1024, as the old system asked for."""
    across, down = (int(part) for part in ratio.split(":"))
    if across >= down:
        return LONG_SIDE, max(64, round(LONG_SIDE * down / across))
    return max(64, round(LONG_SIDE * across / down)), LONG_SIDE


def _references(body: dict[str, Any], model: Model) -> int:
    """How many reference pictures there are: `init_image` as text or list, then `init_image_2` and so on."""
    first = body.get("init_image")
    if not first:
        raise Invalid("init_image", "init_image is required")
    given = list(first) if isinstance(first, list) else [first]
    number = 2
    while (another := body.get(f"init_image_{number}")) is not None:
        given.append(another)
        number += 1
    if not all(isinstance(one, str) and one.startswith(("https://", "http://")) for one in given):
        raise Invalid("init_image", "init_image must be a valid URL")
    if len(given) > model.images:
        raise Invalid("init_image", f"init_image must not have more than {model.images} images")
    return len(given)


def _ratio(value: object, model: Model) -> str | None:
    if value is None or value == "":
        if model.ratio_required:
            raise Invalid("aspect_ratio", "aspect_ratio is required")
        return None
    if not isinstance(value, str):
        raise Invalid("aspect_ratio", "aspect_ratio must be a string")
    if not model.ratios:
        return None
    if value not in model.ratios:
        raise Invalid("aspect_ratio", f"aspect_ratio must be one of {', '.join(sorted(model.ratios))}")
    return value


def _size(body: dict[str, Any], model: Model, ratio: str | None) -> tuple[int, int]:
    if ratio is not None and not model.sizes:
        return size_of(ratio)
    given = [body.get("width"), body.get("height")]
    if given == [None, None]:
        if model.sizes:
            raise Invalid("width", "width is required")
        return LONG_SIDE, LONG_SIDE
    width, height = (
        _whole(name, LONG_SIDE if value is None else value, SMALLEST, LARGEST, said=(SMALLEST, LONG_SIDE))
        for name, value in zip(("width", "height"), given, strict=True)
    )
    return width, height


def _whole(name: str, value: object, low: int, high: int, said: tuple[int, int] | None = None) -> int:
    shown = said or (low, high)
    try:
        number = int(value) if isinstance(value, (int, str)) and not isinstance(value, bool) else None
    except ValueError:
        number = None
    if number is None:
        raise Invalid(name, f"{name} must be an integer")
    if not low <= number <= high:
        raise Invalid(name, f"{name} must be between {shown[0]} and {shown[1]}")
    return number


def _number(name: str, value: object, low: float, high: float) -> None:
    try:
        number = float(value) if isinstance(value, (int, float, str)) else None
    except ValueError:
        number = None
    if number is None or not low <= number <= high:
        raise Invalid(name, f"{name} must be between {low} and {high}")


def _text(body: dict[str, Any], name: str) -> str | None:
    value = body.get(name)
    return None if value is None or value == "" else str(value)


def _webhook(body: dict[str, Any]) -> str | None:
    webhook = body.get("webhook")
    if webhook is None or webhook == "":
        return None
    if not isinstance(webhook, str) or not webhook.startswith(("https://", "http://")):
        raise Invalid("webhook", "webhook must be a valid URL")
    return webhook

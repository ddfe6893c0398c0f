"""Which models there are, what they cost, how they take a picture's form, and the order each tier tries them in.

All of it is data in `models.toml`; a file that is not right is refused at start, with every fault in one message.
"""

import math
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError, model_validator

from schemas.words import DEFAULT_ASPECT_RATIO, Tier

BUILT_IN = Path(__file__).with_name("models.toml")
TEXT_TO_IMAGE = "/api/v7/images/text-to-image"
_MULTIPLE = 8
"""Pixels; the provider refuses sides that are not divisible by it (its error-codes page)."""

Ratio = Annotated[str, StringConstraints(pattern=r"^[1-9]\d{0,3}:[1-9]\d{0,3}$")]


class CatalogueError(ValueError):
    """The models' file cannot be used."""


class Model(BaseModel):
    """One model of the provider. `price_usd` a picture; `prompt_limit` in characters; `sides` in pixels."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    id: str = Field(min_length=1, max_length=100)
    shape: Literal["aspect_ratio", "size", "prompt"]
    price_usd: float = Field(ge=0, allow_inf_nan=False)
    prompt_limit: int = Field(ge=100)
    seconds: float = Field(gt=0, allow_inf_nan=False)
    ratios: tuple[Ratio, ...] = ()
    sides: tuple[Annotated[int, Field(ge=64)], Annotated[int, Field(le=8192)]] = (512, 1024)
    path: str = Field(default=TEXT_TO_IMAGE, pattern=r"^/[A-Za-z0-9/_.-]+$")

    @model_validator(mode="after")
    def _complete(self) -> "Model":
        if self.shape == "aspect_ratio" and not self.ratios:
            raise ValueError("shape aspect_ratio needs ratios")
        if any(side % _MULTIPLE for side in self.sides) or self.sides[0] > self.sides[1]:
            raise ValueError(f"sides must be [smallest, largest], both divisible by {_MULTIPLE}")
        return self

    def payload(self, prompt: str, aspect_ratio: str = DEFAULT_ASPECT_RATIO) -> dict[str, object]:
        """The request's body without key, track_id and webhook. A ratio the model lacks becomes its nearest."""
        body: dict[str, object] = {"model_id": self.id, "prompt": prompt}
        if self.shape == "aspect_ratio":
            body["aspect_ratio"] = aspect_ratio if aspect_ratio in self.ratios else self._nearest(aspect_ratio)
        elif self.shape == "size":
            body["width"], body["height"] = self._size(aspect_ratio)
        return body

    def _nearest(self, aspect_ratio: str) -> str:
        wanted = math.log(_value(aspect_ratio))
        return min(self.ratios, key=lambda ratio: abs(math.log(_value(ratio)) - wanted))

    def _size(self, aspect_ratio: str) -> tuple[int, int]:
        """The longer side at its largest, the shorter by the ratio, not below the smallest the model draws."""
        ratio = _value(aspect_ratio)
        smallest, largest = self.sides
        shorter = round(largest * min(ratio, 1 / ratio) / _MULTIPLE) * _MULTIPLE
        shorter = max(smallest, shorter)
        return (largest, shorter) if ratio >= 1 else (shorter, largest)


class Catalogue:
    """The models by id, and each tier's chain."""

    def __init__(self, models: Mapping[str, Model], chains: Mapping[Tier, tuple[Model, ...]]) -> None:
        self._models = dict(models)
        self._chains = dict(chains)

    @classmethod
    def load(cls, path: Path | str | None = None) -> "Catalogue":
        """Read and check the file (the built-in one without a path). Raises CatalogueError with every fault."""
        source = BUILT_IN if path is None else Path(path)
        try:
            document = tomllib.loads(source.read_text(encoding="utf-8"))
        except OSError as error:
            raise CatalogueError(f"cannot read the models' file {source}: {error.strerror}") from None
        except ValueError as error:
            raise CatalogueError(f"{source} is not TOML: {error}") from None
        try:
            file = _File.model_validate(_named(document))
        except ValidationError as error:
            raise CatalogueError(_faults(source, error)) from None
        chains = {tier: tuple(file.models[name] for name in names) for tier, names in file.chains.items()}
        return cls(file.models, chains)

    def chain(self, tier: Tier) -> tuple[Model, ...]:
        """The tier's models in the order they are tried; at least two."""
        return self._chains[tier]

    def get(self, model_id: str) -> Model | None:
        """The model of that id; None for one that has left the file since the attempt was made."""
        return self._models.get(model_id)

    def models(self) -> tuple[Model, ...]:
        return tuple(self._models.values())


class _File(BaseModel):
    model_config = ConfigDict(extra="forbid")

    models: dict[str, Model]
    chains: dict[Tier, Annotated[tuple[str, ...], Field(min_length=2)]]

    @model_validator(mode="after")
    def _consistent(self) -> "_File":
        faults = [f"chains.{tier.value} is missing" for tier in Tier if tier not in self.chains]
        for tier, names in self.chains.items():
            faults += [
                f"chains.{tier.value} names {name!r}, which is no model" for name in names if name not in self.models
            ]
            if len(set(names)) != len(names):
                faults.append(f"chains.{tier.value} names a model twice")
        if faults:
            raise ValueError("; ".join(faults))
        return self


def _named(document: dict[str, object]) -> dict[str, object]:
    """Each table under [models] with its name as `id`."""
    tables = document.get("models")
    if not isinstance(tables, dict):
        return document
    named = {name: {"id": name, **table} if isinstance(table, dict) else table for name, table in tables.items()}
    return {**document, "models": named}


def _faults(source: Path, error: ValidationError) -> str:
    lines = []
    for fault in error.errors(include_url=False, include_input=False):
        place = ".".join(str(part) for part in fault["loc"] if part != "[key]")
        message = fault["msg"].removeprefix("Value error, ")
        lines.append(f"{place}: {message}" if place else message)
    return f"{source} cannot be used: " + "; ".join(lines)


def _value(ratio: str) -> float:
    width, _, height = ratio.partition(":")
    return int(width) / int(height)

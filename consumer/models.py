"""Which models there are, what they cost, how they take a picture's form and reference pictures, and the order each
tier tries them in.

All of it is data in `models.toml`; a file that is not right is refused at start, with every fault in one message.
"""

import math
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError, model_validator

from schemas.words import DEFAULT_ASPECT_RATIO, Tier

BUILT_IN = Path(__file__).with_name("models.toml")
TEXT_TO_IMAGE = "/api/v7/images/text-to-image"
IMAGE_TO_IMAGE = "/api/v7/images/image-to-image"
_MULTIPLE = 8
"""Pixels; the provider refuses sides that are not divisible by it (its error-codes page)."""

Ratio = Annotated[str, StringConstraints(pattern=r"^[1-9]\d{0,3}:[1-9]\d{0,3}$")]


class CatalogueError(ValueError):
    """The models' file cannot be used."""


class Model(BaseModel):
    """One way to have a picture made.

    `price_usd` a picture; `prompt_limit` in characters; `sides` in pixels; `seconds` is a typical generation, and after
    `longest` seconds one is no longer expected soon. With `images` it draws after reference pictures, and says how it
    takes them.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    id: str = Field(min_length=1, max_length=100)
    provider_id: str | None = Field(default=None, min_length=1, max_length=100)
    shape: Literal["aspect_ratio", "size", "prompt"]
    images: Literal["list", "one", "numbered"] | None = None
    most_images: int = Field(default=1, ge=1, le=20)
    price_usd: float = Field(ge=0, allow_inf_nan=False)
    prompt_limit: int = Field(ge=100)
    seconds: float = Field(gt=0, allow_inf_nan=False)
    longest: float = Field(gt=0, allow_inf_nan=False)
    ratios: tuple[Ratio, ...] = ()
    sides: tuple[Annotated[int, Field(ge=64)], Annotated[int, Field(le=8192)]] = (512, 1024)
    endpoint: str | None = Field(default=None, pattern=r"^/[A-Za-z0-9/_.-]+$")

    @model_validator(mode="after")
    def _complete(self) -> "Model":
        if self.shape == "aspect_ratio" and not self.ratios:
            raise ValueError("shape aspect_ratio needs ratios")
        if any(side % _MULTIPLE for side in self.sides) or self.sides[0] > self.sides[1]:
            raise ValueError(f"sides must be [smallest, largest], both divisible by {_MULTIPLE}")
        if self.longest < self.seconds:
            raise ValueError("longest must not be below seconds")
        if self.most_images > 1 and self.images not in ("list", "numbered"):
            raise ValueError('most_images above 1 needs images "list" or "numbered"')
        return self

    @property
    def path(self) -> str:
        """Where it is submitted."""
        return self.endpoint or (IMAGE_TO_IMAGE if self.images else TEXT_TO_IMAGE)

    def payload(
        self, prompt: str, aspect_ratio: str = DEFAULT_ASPECT_RATIO, references: Sequence[str] = ()
    ) -> dict[str, object]:
        """The request's body without key, track_id and webhook. A ratio the model lacks becomes its nearest, and of
        the addresses in `references` only as many go along as it takes.
        """
        body: dict[str, object] = {"model_id": self.provider_id or self.id, "prompt": prompt}
        if self.shape == "aspect_ratio":
            body["aspect_ratio"] = aspect_ratio if aspect_ratio in self.ratios else self._nearest(aspect_ratio)
        elif self.shape == "size":
            body["width"], body["height"] = self._size(aspect_ratio)
        if self.images == "list":
            body["init_image"] = list(references[: self.most_images])
        elif self.images:
            for number, address in enumerate(references[: self.most_images], start=1):
                body["init_image" if number == 1 else f"init_image_{number}"] = address
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
    """The models by id, and each tier's chains: from words alone, and after reference pictures."""

    def __init__(
        self,
        models: Mapping[str, Model],
        chains: Mapping[Tier, tuple[Model, ...]],
        reference_chains: Mapping[Tier, tuple[Model, ...]],
    ) -> None:
        self._models = dict(models)
        self._chains = dict(chains)
        self._reference_chains = dict(reference_chains)

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
        return cls(file.models, file.chosen(file.chains), file.chosen(file.reference_chains))

    def chain(self, tier: Tier, *, references: bool = False) -> tuple[Model, ...]:
        """The tier's models in the order they are tried; at least two. With `references` those that draw after some."""
        return (self._reference_chains if references else self._chains)[tier]

    def longest(self, model_id: str) -> float:
        """Seconds after which a job of this model is no longer expected soon; of a model that has left the file, those
        of the most patient one.
        """
        model = self._models.get(model_id)
        return model.longest if model is not None else max(model.longest for model in self._models.values())

    def get(self, model_id: str) -> Model | None:
        """The model of that id; None for one that has left the file since the attempt was made."""
        return self._models.get(model_id)

    def models(self) -> tuple[Model, ...]:
        return tuple(self._models.values())


Chain = Annotated[tuple[str, ...], Field(min_length=2)]


class _File(BaseModel):
    model_config = ConfigDict(extra="forbid")

    ratios: Annotated[frozenset[Ratio], Field(min_length=1)]
    models: dict[str, Model]
    chains: dict[Tier, Chain]
    reference_chains: dict[Tier, Chain]

    def chosen(self, chains: Mapping[Tier, Chain]) -> dict[Tier, tuple[Model, ...]]:
        return {tier: tuple(self.models[name] for name in names) for tier, names in chains.items()}

    @model_validator(mode="after")
    def _consistent(self) -> "_File":
        faults = [
            f"models.{name}.ratios: {ratio} is not among the file's ratios"
            for name, model in self.models.items()
            for ratio in model.ratios
            if ratio not in self.ratios
        ]
        for table, chains, after_pictures in (
            ("chains", self.chains, False),
            ("reference_chains", self.reference_chains, True),
        ):
            faults += [f"{table}.{tier.value} is missing" for tier in Tier if tier not in chains]
            for tier, names in chains.items():
                faults += self._chain_faults(f"{table}.{tier.value}", names, after_pictures=after_pictures)
        if faults:
            raise ValueError("; ".join(faults))
        return self

    def _chain_faults(self, place: str, names: Chain, *, after_pictures: bool) -> list[str]:
        faults = [f"{place} names {name!r}, which is no model" for name in names if name not in self.models]
        if len(set(names)) != len(names):
            faults.append(f"{place} names a model twice")
        needs = "needs reference pictures" if not after_pictures else "takes no reference pictures"
        return faults + [
            f"{place} names {name!r}, which {needs}"
            for name in names
            if name in self.models and (self.models[name].images is not None) != after_pictures
        ]


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

"""From a waiting record to the attempt that will be sent: model, prompt and request body, by pure functions."""

import secrets
from collections.abc import Collection
from dataclasses import dataclass

from consumer import prompts
from consumer.models import Catalogue, Model
from schemas.words import Tier
from storage.dispatching import Claimed, Draft, Waiting


@dataclass(frozen=True, slots=True)
class Drafts:
    """Makes drafts from a catalogue; with `webhooks` each gets an unguessable token for the provider's webhook."""

    catalogue: Catalogue
    webhooks: bool = False

    def next(self, about: Waiting | Claimed, without: Collection[str]) -> Draft | None:
        """The attempt with the first model of the tier's chain that is not among these; None when there is none."""
        for model in self._chain(about):
            if model.id not in without:
                return self._draft(about, model)
        return None

    def models(self, about: Waiting | Claimed) -> list[str]:
        """The tier's chain."""
        return [model.id for model in self._chain(about)]

    def _chain(self, about: Waiting | Claimed) -> tuple[Model, ...]:
        return self.catalogue.chain(Tier.of(about.user_tier), references=bool(about.reference_urls))

    def _draft(self, about: Waiting | Claimed, model: Model) -> Draft:
        template = about.image_type if about.image_type in prompts.TEMPLATES else "scene"
        prompt = prompts.build(template, about.scene_description, about.style, about.custom_prompt, model.prompt_limit)
        return Draft(
            model_id=model.id,
            prompt=prompt,
            path=model.path,
            payload=model.payload(prompt, about.aspect_ratio, about.reference_urls),
            cost=model.price_usd,
            webhook_token=secrets.token_urlsafe(24) if self.webhooks else None,
        )

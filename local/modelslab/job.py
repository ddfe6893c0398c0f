"""One generation at the provider."""

from dataclasses import dataclass, field
from typing import Any, Literal

from local.modelslab.orders import Order
from local.modelslab.script import Action

JobState = Literal["processing", "success", "failed", "error"]


@dataclass(slots=True)
class Job:
    """One generation. Times in seconds of `Clock.monotonic`, `created` of `Clock.wall`. `seed` is the resolved one."""

    id: int
    owner: str
    order: Order
    action: Action
    seed: int
    created: float
    made_at: float
    ready_at: float
    charged: bool
    fetches: int = 0
    gets: int = 0
    webhooks: list[dict[str, Any]] = field(default_factory=list)

    def state(self, now: float) -> JobState:
        if now < self.ready_at or self.action.outcome == "never":
            return "processing"
        return self.action.outcome

    @property
    def names(self) -> list[str]:
        """The file names of its pictures; they hold all it takes to find the job again."""
        ending = {"jpeg": "jpg", "webp": "webp", "base64": "base64"}.get(self.action.picture, "png")
        return [f"{sample}-{self.id}-{self.seed:08x}.{ending}" for sample in range(self.order.samples)]

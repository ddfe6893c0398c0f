"""How the provider behaves when nobody scripts it: four kinds of day."""

from dataclasses import dataclass

from local.modelslab.periods import LongTail, Uniform
from local.modelslab.script import Action, Rule, Shape, WebhookFate
from local.modelslab.settings import ProfileName


@dataclass(frozen=True, slots=True)
class Profile:
    """Rules, the last of which fits every call. `mercy`: bad fates in a row a prompt may meet; None: any number."""

    rules: tuple[Rule, ...]
    mercy: int | None = None


def _now_and_then(name: str, probability: float, action: Action) -> Rule:
    return Rule(name=name, probability=probability, action=action)


def _fetch(name: str, probability: float, action: Action) -> Rule:
    return Rule(name=name, call="fetch", probability=probability, action=action)


_QUICK = LongTail(median=0.05, p99=0.3)

INSTANT = Profile((Rule(name="at once", action=Action()),))

CALM = Profile(
    (
        _now_and_then("synchronous", 0.25, Action(latency=Uniform(low=0.6, high=1.2))),
        Rule(name="calm", action=Action(answer="processing", latency=_QUICK, duration=Uniform(low=1.0, high=2.5))),
    )
)

BUSY = Profile(
    (
        _now_and_then("turned away", 0.05, Action(answer="error", fault="rate_limited")),
        _now_and_then("overloaded", 0.02, Action(answer="error", fault="unavailable")),
        _now_and_then("slow answer", 0.2, Action(latency=LongTail(median=4, p99=20))),
        Rule(
            name="busy",
            action=Action(
                answer="processing", latency=LongTail(median=0.3, p99=2), duration=LongTail(median=6, p99=30)
            ),
        ),
    ),
    mercy=3,
)

# Bad, but with mercy: after two bad fates in a row a prompt is treated well, so that a chapter still completes within
# an image generation's three retries.
BAD_DAY = Profile(
    (
        _now_and_then("no such moment", 0.08, Action(answer="error", fault="model_unavailable")),
        _now_and_then("turned away", 0.04, Action(answer="error", fault="rate_limited_legacy")),
        _now_and_then("overloaded", 0.06, Action(answer="error", fault="unavailable")),
        _now_and_then("broken", 0.04, Action(answer="error", fault="messege")),
        _now_and_then("gateway", 0.04, Action(answer="error", fault="bad_gateway")),
        _now_and_then("cut", 0.03, Action(answer="reset")),
        _now_and_then("cut, yet made", 0.02, Action(answer="reset", created=True, duration=2)),
        _now_and_then("try again", 0.05, Action(answer="error", fault="try_again")),
        _now_and_then(
            "fails half-way",
            0.06,
            Action(answer="processing", duration=Uniform(low=1, high=3), outcome="failed", fault="try_again"),
        ),
        _now_and_then("nothing in it", 0.03, Action(output="empty", latency=1)),
        _now_and_then(
            "not there yet",
            0.15,
            Action(
                answer="processing", duration=Uniform(low=1, high=4), fresh_404=3, shape=Shape(fetch_result="missing")
            ),
        ),
        _now_and_then(
            "second source",
            0.05,
            Action(
                answer="processing", duration=2, gone=True, shape=Shape(proxy_links="object", pending_output="text")
            ),
        ),
        _fetch("fetch: gateway", 0.06, Action(answer="error", fault="bad_gateway")),
        _fetch("fetch: overloaded", 0.04, Action(answer="error", fault="unavailable")),
        _fetch("fetch: cut", 0.03, Action(answer="reset")),
        Rule(
            name="bad day",
            action=Action(
                answer="processing",
                latency=LongTail(median=0.4, p99=4),
                duration=LongTail(median=3, p99=12),
                webhook=WebhookFate(lost=0.3, duplicated=0.2, delay=Uniform(low=0, high=2)),
            ),
        ),
    ),
    mercy=2,
)

PROFILES: dict[ProfileName, Profile] = {"calm": CALM, "busy": BUSY, "bad-day": BAD_DAY, "instant": INSTANT}

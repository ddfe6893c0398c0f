"""When a job is looked at: by its eta first, then each few seconds, rarely past its model's longest time."""

from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any
from uuid import UUID, uuid4

import pytest

from consumer.answers import Processing, ProviderFailure, Succeeded
from consumer.following import Follower, NeverFinished
from consumer.settings import ConsumerSettings
from schemas.errors import ErrorClass
from storage.dispatching import Claimed

SETTINGS = ConsumerSettings.model_validate(
    {
        "database_url": "postgresql://nobody@nowhere/none",
        "kafka_servers": "nowhere:1",
        "media_url": "file:///nowhere",
        "jwt_secret": "0123456789abcdef0123456789abcdef",
        "modelslab_api_key": "a-key",
    }
)
DONE = Succeeded("j", ["https://pictures.test/j.png"], [], False)
LONGEST = 60.0


def claimed(**changes: Any) -> Claimed:
    known: dict[str, Any] = dict.fromkeys(Claimed.__dataclass_fields__)
    known |= {
        "attempt_id": uuid4(),
        "claim_token": uuid4(),
        "model_id": "seedream-4",
        "provider_request_id": "j",
        "eta": 8.0,
        "seconds_left": 900.0,
    }
    return Claimed(**(known | changes))


@dataclass
class Hand:
    """The provider, on a clock that only sleeping moves; `ready_at` in seconds of that clock."""

    answers: list[Processing | Succeeded | ProviderFailure] = field(default_factory=list)
    ready_at: float = float("inf")
    now: float = 1000.0
    looked_at: list[float] = field(default_factory=list)
    told: list[int] = field(default_factory=list)

    async def sleep(self, seconds: float) -> None:
        assert seconds > 0
        self.now += seconds

    async def fetch(self, provider_request_id: str, fetch_url: str | None) -> Processing | Succeeded:
        assert provider_request_id == "j"
        self.looked_at.append(round(self.now - 1000.0, 1))
        answer = self.answers.pop(0) if self.answers else Processing("j", None, None)
        if isinstance(answer, ProviderFailure):
            raise answer
        return DONE if self.now >= 1000.0 + self.ready_at else answer

    async def progress(self, _: UUID, percent: int) -> bool:
        self.told.append(percent)
        return True

    async def follow(self, job: Claimed, **more: float) -> Succeeded:
        provider: Any = self
        follower = Follower(
            SETTINGS,
            provider=provider,
            progress=self.progress,
            longest=lambda _: LONGEST,
            sleep=self.sleep,
            clock=lambda: self.now,
        )
        return await follower.follow(job, **more)


@pytest.mark.parametrize(
    ("eta", "sent_for", "first"),
    [
        (8.0, None, 8.0),
        (20.9379869184, None, 20.9),
        (None, None, 5.0),
        (500.0, None, 30.0),
        # an eta of 0 is no order to ask without rest
        (0.0, None, 0.5),
        # somebody else sent it: who waits has waited for the takeover already
        (8.0, 3.0, 0.0),
        (None, 300.0, 0.0),
    ],
)
async def test_the_first_look_waits_for_the_eta(eta: float | None, sent_for: float | None, first: float) -> None:
    hand = Hand(ready_at=0)
    assert await hand.follow(claimed(eta=eta, sent=sent_for is not None, sent_for=sent_for)) == DONE
    assert hand.looked_at == [first]


async def test_then_it_is_looked_at_each_few_seconds_never_in_step() -> None:
    hand = Hand(ready_at=55)
    await hand.follow(claimed())
    gaps = [after - before for before, after in pairwise(hand.looked_at)]
    assert all(3.9 <= gap <= 6.1 for gap in gaps)
    assert len(set(gaps)) > 1
    assert hand.looked_at[-1] >= 55


async def test_a_short_eta_of_a_fetch_is_worth_an_earlier_look() -> None:
    hand = Hand(answers=[Processing("j", 1.0, None), Processing("j", 0.0, None)], ready_at=9.4)
    await hand.follow(claimed())
    assert hand.looked_at[:2] == [8.0, 9.0]
    assert 9.4 <= hand.looked_at[2] <= 9.6


async def test_past_its_models_longest_time_it_is_looked_at_each_thirty_seconds_until_the_deadline() -> None:
    hand = Hand(ready_at=800)
    assert await hand.follow(claimed()) == DONE
    late = [at for at in hand.looked_at if at > LONGEST]
    gaps = {round(after - before, 1) for before, after in pairwise(late)}
    assert gaps == {30.0}
    assert len(hand.looked_at) < 40


async def test_the_longest_time_counts_from_the_submit_whoever_sent_it() -> None:
    hand = Hand(ready_at=100)
    await hand.follow(claimed(sent=True, sent_for=LONGEST))
    assert hand.looked_at == [0.0, 30.0, 60.0, 90.0, 120.0]


def failure(error_class: ErrorClass, *, terminal: bool = False, retry_after: float | None = None) -> ProviderFailure:
    return ProviderFailure(error_class, "code", "Words.", terminal=terminal, retry_after=retry_after)


async def test_a_look_that_failed_is_repeated_and_waits_as_long_as_it_is_told() -> None:
    hand = Hand(
        answers=[
            failure(ErrorClass.TIMEOUT),
            failure(ErrorClass.NETWORK),
            failure(ErrorClass.UNAVAILABLE),
            failure(ErrorClass.RATE_LIMITED, retry_after=17),
            failure(ErrorClass.AUTH),
        ],
        ready_at=40,
    )
    assert await hand.follow(claimed()) == DONE
    assert round(hand.looked_at[4] - hand.looked_at[3], 1) == 17.0


async def test_the_end_of_the_job_is_the_end() -> None:
    hand = Hand(answers=[failure(ErrorClass.UNAVAILABLE, terminal=True)])
    with pytest.raises(ProviderFailure):
        await hand.follow(claimed())
    assert len(hand.looked_at) == 1


@pytest.mark.parametrize(("left", "grace"), [(900.0, 0.0), (900.0, 120.0), (4.0, 0.0), (-30.0, 0.0), (-30.0, 120.0)])
async def test_a_job_that_never_ends_is_given_up_at_its_deadline_after_a_last_look(left: float, grace: float) -> None:
    hand = Hand()
    with pytest.raises(NeverFinished) as caught:
        await hand.follow(claimed(seconds_left=left), grace=grace)
    assert (caught.value.code, caught.value.terminal) == ("never_finished", True)
    assert hand.looked_at[-1] == pytest.approx(max(0.0, left) + grace)
    assert hand.now == pytest.approx(1000 + max(0.0, left) + grace)


async def test_progress_rises_while_it_waits_and_is_never_quite_there() -> None:
    hand = Hand(ready_at=50)
    await hand.follow(claimed(eta=20.0))
    assert hand.told == sorted(set(hand.told))
    assert len(hand.told) > 3
    assert hand.told[-1] < 85

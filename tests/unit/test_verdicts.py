"""`judge` as a table: every class at every count."""

import pytest

from consumer.verdicts import OPENING, Dead, Defer, Facts, Failure, NextModel, PutOff, Retry, Verdict, judge
from schemas.errors import DEAD_CLASSES
from schemas.errors import ErrorClass as C

MESSAGE = "Say what to do."


def fate(error_class: C, *, retry_after: float | None = None, **facts: object) -> Verdict:
    failure = Failure(error_class, "some_code", MESSAGE, retry_after)
    return judge(failure, Facts(**{"retry_count": 0, **facts}))  # type: ignore[arg-type]


@pytest.mark.parametrize("error_class", [C.NETWORK, C.TIMEOUT, C.UNAVAILABLE, C.MODEL_UNAVAILABLE, C.UNEXPECTED])
@pytest.mark.parametrize(("spent", "delay"), [(0, 5.0), (1, 10.0), (2, 20.0)])
def test_counted_failures_wait_longer_each_time(error_class: C, spent: int, delay: float) -> None:
    assert fate(error_class, retry_count=spent) == Retry(delay)


@pytest.mark.parametrize(
    ("error_class", "topic"),
    [
        (C.NETWORK, C.EXHAUSTED),
        (C.TIMEOUT, C.EXHAUSTED),
        (C.UNAVAILABLE, C.EXHAUSTED),
        (C.MODEL_UNAVAILABLE, C.EXHAUSTED),
        (C.UNEXPECTED, C.UNEXPECTED),
    ],
)
@pytest.mark.parametrize("spent", [3, 4])
def test_the_fourth_counted_failure_is_the_end(error_class: C, topic: C, spent: int) -> None:
    assert fate(error_class, retry_count=spent) == Dead(topic, "some_code", MESSAGE)


@pytest.mark.parametrize("error_class", [C.INVALID, C.AUTH, C.QUOTA, C.CONTENT, C.DEADLINE, C.POISON, C.EXHAUSTED])
@pytest.mark.parametrize("spent", [0, 3])
def test_what_no_retry_mends_ends_at_once(error_class: C, spent: int) -> None:
    assert fate(error_class, retry_count=spent) == Dead(error_class, "some_code", MESSAGE)


@pytest.mark.parametrize(
    ("retry_after", "jitter", "delay"),
    [(None, 0.0, 30.0), (45.0, 0.0, 45.0), (0.0, 0.0, 1.0), (0.5, 0.0, 1.0), (40.0, 0.5, 45.0), (None, 0.8, 36.0)],
)
@pytest.mark.parametrize("spent", [0, 3])
def test_a_rate_limit_defers_and_costs_no_retry(
    retry_after: float | None, jitter: float, delay: float, spent: int
) -> None:
    assert fate(C.RATE_LIMITED, retry_after=retry_after, jitter=jitter, retry_count=spent) == Defer(delay)


def test_the_default_wait_of_a_rate_limit_is_a_setting() -> None:
    assert fate(C.RATE_LIMITED, rate_limit_default=2.0) == Defer(2.0)


@pytest.mark.parametrize("spent", [0, 3])
def test_a_broken_model_hands_over_while_there_is_another(spent: int) -> None:
    assert fate(C.MODEL_UNAVAILABLE, models_left=True, retry_count=spent) == NextModel()


@pytest.mark.parametrize("error_class", [c for c in C if c is not C.MODEL_UNAVAILABLE])
def test_no_other_class_hands_over(error_class: C) -> None:
    assert fate(error_class, models_left=True) == fate(error_class, models_left=False)


@pytest.mark.parametrize("spent", [0, 2, 3])
def test_an_uncertain_attempt_is_not_repeated_where_the_policy_says_fail(spent: int) -> None:
    verdict = fate(C.TIMEOUT, uncertain_policy="fail", retry_count=spent)
    assert isinstance(verdict, Dead)
    assert (verdict.error_class, verdict.code) == (C.EXHAUSTED, "outcome_unknown")


@pytest.mark.parametrize("error_class", [C.NETWORK, C.UNAVAILABLE, C.UNEXPECTED])
def test_the_policy_is_about_uncertain_attempts_only(error_class: C) -> None:
    assert fate(error_class, uncertain_policy="fail") == Retry(5.0)


@pytest.mark.parametrize(("jitter", "delay"), [(0.0, 10.0), (0.5, 11.25), (0.999999, 12.5), (7.0, 12.5), (-3.0, 10.0)])
def test_jitter_only_extends_and_by_a_quarter_at_most(jitter: float, delay: float) -> None:
    verdict = fate(C.NETWORK, retry_count=1, jitter=jitter)
    assert isinstance(verdict, Retry)
    assert verdict.delay == pytest.approx(delay, rel=1e-5)
    assert 10.0 <= verdict.delay <= 12.5


def test_delays_are_settings() -> None:
    assert fate(C.NETWORK, retry_delays=(0.1,)) == Retry(0.1)
    assert fate(C.NETWORK, retry_delays=(0.1,), retry_count=1) == Dead(C.EXHAUSTED, "some_code", MESSAGE)
    assert fate(C.NETWORK, retry_delays=()) == Dead(C.EXHAUSTED, "some_code", MESSAGE)


@pytest.mark.parametrize("error_class", list(C))
@pytest.mark.parametrize("spent", range(5))
@pytest.mark.parametrize("models_left", [True, False])
@pytest.mark.parametrize("policy", ["retry", "fail"])
def test_every_case_has_a_fate_and_every_death_a_topic(
    error_class: C, spent: int, models_left: bool, policy: str
) -> None:
    verdict = fate(error_class, retry_count=spent, models_left=models_left, uncertain_policy=policy)
    assert isinstance(verdict, Retry | Defer | NextModel | Dead)
    if isinstance(verdict, Dead):
        assert verdict.error_class in DEAD_CLASSES
        assert verdict.message


@pytest.mark.parametrize("error_class", sorted(OPENING))
@pytest.mark.parametrize("policy", ["retry", "fail"])
@pytest.mark.parametrize("spent", [0, 3])
def test_while_the_breaker_is_open_its_classes_cost_nothing(error_class: C, policy: str, spent: int) -> None:
    assert fate(error_class, paused=True, uncertain_policy=policy, retry_count=spent) == PutOff(0.0)


@pytest.mark.parametrize("error_class", sorted(set(C) - OPENING))
def test_while_the_breaker_is_open_other_classes_keep_their_fate(error_class: C) -> None:
    assert fate(error_class, paused=True) == fate(error_class)


def test_a_chain_whose_models_are_all_shut_waits_for_the_first_probe() -> None:
    assert fate(C.MODEL_UNAVAILABLE, models_shut_for=8.0, retry_count=3) == PutOff(8.0)
    assert fate(C.MODEL_UNAVAILABLE, models_shut_for=8.0, jitter=0.5) == PutOff(9.0)
    assert fate(C.MODEL_UNAVAILABLE, models_shut_for=8.0, models_left=True) == NextModel()

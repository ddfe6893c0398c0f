"""When a breaker opens, as a table (PIPELINE K1)."""

from uuid import uuid4

import pytest

from storage.breakers import Failing, Row, Rules, opens

RULES = Rules(denials=3, outages=10, span=10.0, records=5)
SOME = [uuid4() for _ in range(5)]


@pytest.mark.parametrize("failing", [Failing.AUTH, Failing.QUOTA, Failing.MODEL])
@pytest.mark.parametrize(("failures", "open_"), [(1, False), (2, False), (3, True), (4, True)])
def test_a_few_refusals_are_enough_whoever_met_them_and_however_fast(
    failing: Failing, failures: int, open_: bool
) -> None:
    assert opens(Row(failing, failures, 0.0, SOME[:1]), RULES, others_open=True) is open_


@pytest.mark.parametrize(
    ("failures", "age", "records", "others_open", "open_"),
    [
        (10, 10.0, 5, True, True),
        (9, 60.0, 5, True, False),
        (500, 9.9, 5, True, False),
        (10, 10.0, 4, True, False),
        (10, 10.0, 4, False, True),
        (10, 10.0, 1, False, True),
        (9, 10.0, 1, False, False),
    ],
)
def test_an_outage_must_last_and_hit_several_or_all_that_are_open(
    failures: int, age: float, records: int, others_open: bool, open_: bool
) -> None:
    assert opens(Row(Failing.OUTAGE, failures, age, SOME[:records]), RULES, others_open=others_open) is open_

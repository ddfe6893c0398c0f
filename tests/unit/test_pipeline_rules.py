"""Every rule of docs/pipeline.md is held by tests that exist, and no rule is named that is not there."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
ROWS = re.findall(r"^\| ([A-Z])(\d+) \| (.+?) \| (.+) \|$", (ROOT / "docs/pipeline.md").read_text(), re.MULTILINE)
RULES = {f"{letter}{number}": re.findall(r"`(test_\w+)`", tests) for letter, number, _, tests in ROWS}
_ROOMS = ("producer", "consumer", "notifier", "storage", "messaging", "media", "schemas", "web")
_NAMED = re.compile(r"PIPELINE ([A-Z]\d[^).\n]*)|\(([A-Z]\d(?:(?:, | to | and )[A-Z]\d)*)\)")


def _existing() -> set[str]:
    return {
        name
        for path in (ROOT / "tests").rglob("test_*.py")
        for name in re.findall(r"def (test_\w+)\(", path.read_text(encoding="utf-8"))
    }


@pytest.mark.parametrize("rule", sorted(RULES))
def test_each_rule_is_held_by_tests_that_exist(rule: str) -> None:
    assert RULES[rule], f"nothing holds {rule}"
    assert set(RULES[rule]) <= _existing()


def test_rules_are_numbered_without_gaps() -> None:
    numbers: dict[str, list[int]] = {}
    for letter, number, _, _ in ROWS:
        numbers.setdefault(letter, []).append(int(number))
    assert sorted(numbers) == sorted("ABDSTFWKRX")
    assert all(found == list(range(1, len(found) + 1)) for found in numbers.values())


def test_the_code_names_no_rule_that_is_not_there() -> None:
    named = {
        rule
        for room in _ROOMS
        for path in (ROOT / room).rglob("*.py")
        for match in _NAMED.finditer(path.read_text(encoding="utf-8"))
        for rule in re.findall(r"[A-Z]\d", match[0])
    }
    assert {"S1", "W5", "K2"} <= named
    assert named <= RULES.keys()

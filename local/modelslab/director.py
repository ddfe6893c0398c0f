"""Which rule a call falls under: the script in force, its dice and its counts."""

import random
import re
from collections import Counter, OrderedDict
from dataclasses import dataclass, field

from local.modelslab.profiles import PROFILES
from local.modelslab.script import Action, CallKind, Rule, Script
from local.modelslab.settings import SimulatorSettings

PROMPTS_REMEMBERED = 20_000


@dataclass(slots=True)
class _Watched:
    """A rule, its expression compiled, and how often it was met and used."""

    rule: Rule
    pattern: re.Pattern[str] | None
    text: str | None
    used: int = 0
    seen: Counter[object] = field(default_factory=Counter)

    def fits(self, prompt: str, model: str) -> bool:
        if self.rule.model is not None and self.rule.model != model:
            return False
        if self.text is not None and self.text not in prompt.casefold():
            return False
        return self.pattern is None or self.pattern.search(prompt) is not None

    def due(self, prompt: str, job_id: int | None) -> bool:
        """Counts this call, from 1, among those the rule counts together; False when its turn is not this one."""
        rule = self.rule
        if rule.nth is None and rule.first is None:
            return True
        key: object = {"rule": None, "prompt": prompt, "job": job_id}[rule.per]
        self.seen[key] += 1
        number = self.seen[key]
        return (rule.nth is None or number in rule.nth) and (rule.first is None or number <= rule.first)


class Director:
    """Decides each call by the script in force. Not safe to share between threads; the loop alone uses it."""

    def __init__(self, settings: SimulatorSettings) -> None:
        self._settings = settings
        self.play(Script())

    def play(self, script: Script) -> None:
        """Put a script in force; counts and dice start anew."""
        profile = PROFILES[script.profile or self._settings.profile]
        self.script = script
        self.rng = random.Random(self._settings.seed if script.seed is None else script.seed)
        self._mercy = profile.mercy if script.mercy is None else script.mercy
        self._rules: dict[CallKind, list[_Watched]] = {"submit": [], "fetch": [], "picture": []}
        for rule in (*script.rules, *profile.rules):
            pattern = re.compile(rule.pattern) if rule.pattern is not None else None
            text = rule.text.casefold() if rule.text is not None else None
            self._rules[rule.call].append(_Watched(rule, pattern, text))
        self._bad_in_a_row: OrderedDict[str, int] = OrderedDict()

    @property
    def profile(self) -> str:
        return self.script.profile or self._settings.profile

    @property
    def slots(self) -> int:
        return self.script.slots or self._settings.slots

    @property
    def retry_after(self) -> float:
        return self._settings.retry_after if self.script.retry_after is None else self.script.retry_after

    @property
    def prerendered(self) -> bool:
        return (self.script.pictures or ("prerendered" if self._settings.prerender else "drawn")) == "prerendered"

    def choose(self, call: CallKind, prompt: str, model: str, job_id: int | None = None) -> tuple[Action, str]:
        """The action for this call and the name of its rule (empty where none fits: all goes well)."""
        taken: _Watched | None = None
        for watched in self._rules[call]:
            # every rule counts every call that fits it, whichever rule takes the call: `nth` means what it says
            if watched.fits(prompt, model) and watched.due(prompt, job_id) and taken is None and self._takes(watched):
                if call == "submit" and not self._bearable(prompt, watched.rule.action):
                    continue
                taken = watched
        if taken is not None:
            taken.used += 1
            return taken.rule.action, taken.rule.name
        return Action(), ""

    def _takes(self, watched: _Watched) -> bool:
        rule = watched.rule
        if rule.times is not None and watched.used >= rule.times:
            return False
        return rule.probability >= 1 or self.rng.random() < rule.probability

    def _bearable(self, prompt: str, action: Action) -> bool:
        """False when the prompt has met its share of bad fates in a row. Counts this one when it is taken."""
        if self._mercy is None:
            return True
        if not action.bad:
            self._bad_in_a_row.pop(prompt, None)
            return True
        met = self._bad_in_a_row.get(prompt, 0)
        if met >= self._mercy:
            return False
        self._bad_in_a_row[prompt] = met + 1
        if len(self._bad_in_a_row) > PROMPTS_REMEMBERED:
            self._bad_in_a_row.popitem(last=False)
        return True

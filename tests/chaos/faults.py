"""What goes wrong in the long run: picked at random, each put right again by itself, several at a time."""

import asyncio
import contextlib
import random
import time
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

from tests.chaos.moods import MOODS, ORDINARY
from tests.chaos.street import Street

_TRIES = 50
_MERCY = 2
"""Bad fates in a row that a scene may meet at the provider: an image generation has three retries."""
_OURS = ("producer", "relay", "consumer", "notifier")
Fault = Callable[[], Coroutine[Any, Any, None]]


class Faults:
    """Breaks things until it is told to stop. `longest`: seconds that an outage or a mood lasts at most."""

    def __init__(self, street: Street, chance: random.Random, *, longest: float) -> None:
        self._street = street
        self._chance = chance
        self._longest = longest
        self._touched: set[str] = set()
        self._running: dict[asyncio.Task[None], str] = {}
        self._rules: Sequence[dict[str, Any]] = ()
        self._provider_there = asyncio.Lock()
        self._began = time.monotonic()
        #: what was done and when, for the evidence
        self.log: list[str] = []

    @property
    def now(self) -> str:
        """What is broken at this moment."""
        return ", ".join(sorted(self._running.values())) or "nothing"

    async def run(self, stop: asyncio.Event) -> None:
        """Break and mend until `stop` is set; returns when all is mended."""
        while not stop.is_set():
            if (picked := self._pick()) is None:
                # all that there is, is broken already
                await _rest(stop, 1.0)
                continue
            what, fault = picked
            self.log.append(f"{time.monotonic() - self._began:8.1f}  {what}")
            task = asyncio.create_task(fault(), name=what)
            self._running[task] = what
            task.add_done_callback(lambda task: self._running.pop(task, None))
            await _rest(stop, self._chance.uniform(1, 12))
        while self._running:
            done, _ = await asyncio.wait(list(self._running))
            for task in done:
                task.result()

    def _pick(self) -> tuple[str, Fault] | None:
        kinds: Sequence[tuple[int, Callable[[], tuple[str, Fault] | None]]] = (
            (6, self._kill_one),
            (4, self._stop_one),
            (3, self._freeze_one),
            (1, self._kill_all_of_a_kind),
            (3, self._outage),
            (4, self._change_of_mood),
        )
        for pick in self._chance.choices([pick for _, pick in kinds], [weight for weight, _ in kinds], k=_TRIES):
            if (picked := pick()) is not None:
                return picked
        return None

    def _take(self, *names: str) -> bool:
        """Whether nothing else is done to these; then they are ours until `_give_back`."""
        if self._touched & set(names):
            return False
        self._touched |= set(names)
        return True

    def _one_of_ours(self) -> str:
        return self._chance.choice([name for name in self._street.servers if name.startswith(_OURS)])

    def _kill_one(self) -> tuple[str, Fault] | None:
        name = self._one_of_ours()
        return self._killing([name], self._chance.uniform(0.2, 8), f"{name} killed") if self._take(name) else None

    def _kill_all_of_a_kind(self) -> tuple[str, Fault] | None:
        kind = self._chance.choice(_OURS)
        names = [name for name in self._street.servers if name.startswith(kind)]
        taken = self._take(*names)
        return self._killing(names, self._chance.uniform(0.2, 8), f"every {kind} killed") if taken else None

    def _outage(self) -> tuple[str, Fault] | None:
        names, words = self._chance.choice(
            (
                (["kafka"], "kafka gone"),
                (["postgres"], "postgres gone"),
                (["kafka", "postgres"], "kafka and postgres gone"),
                (["simulator"], "provider refuses connections"),
                ([name for name in self._street.servers if name != "simulator"], "everything killed"),
            )
        )
        seconds = self._chance.uniform(1, self._longest)
        return self._killing(names, seconds, f"{words} for {seconds:.0f} s") if self._take(*names) else None

    def _killing(self, names: Sequence[str], seconds: float, words: str) -> tuple[str, Fault]:
        async def kill() -> None:
            async with self._provider_there if "simulator" in names else contextlib.nullcontext():
                await self._street.kill(*names)
                await asyncio.sleep(seconds)
                await self._street.start(*names)
                if "simulator" in names:
                    await self._script()
            self._touched -= set(names)

        return words, kill

    def _stop_one(self) -> tuple[str, Fault] | None:
        name = self._one_of_ours()
        if not self._take(name):
            return None

        async def stop() -> None:
            # an open submit may take its whole timeout
            await self._street.stop(name, within=200.0)
            await self._street.start(name)
            self._touched.discard(name)

        return f"{name} told to stop", stop

    def _freeze_one(self) -> tuple[str, Fault] | None:
        name = self._chance.choice([self._one_of_ours(), self._one_of_ours(), "kafka", "postgres"])
        if not self._take(name):
            return None
        seconds = self._chance.uniform(0.5, min(30.0, self._longest))

        async def freeze() -> None:
            await self._street.pause(name)
            await asyncio.sleep(seconds)
            await self._street.resume(name)
            self._touched.discard(name)

        return f"{name} frozen for {seconds:.0f} s", freeze

    def _change_of_mood(self) -> tuple[str, Fault] | None:
        if not self._take("mood"):
            return None
        mood = self._chance.choice(sorted(MOODS))
        seconds = self._chance.uniform(5, self._longest)

        async def change() -> None:
            await self._provider(MOODS[mood])
            await asyncio.sleep(seconds)
            await self._provider(())
            self._touched.discard("mood")

        return f"provider {mood}", change

    async def _provider(self, rules: Sequence[dict[str, Any]]) -> None:
        """Waits while the provider itself is away."""
        async with self._provider_there:
            self._rules = rules
            await self._script()

    async def _script(self) -> None:
        await self._street.script(*self._rules, *ORDINARY, mercy=_MERCY)


async def _rest(stop: asyncio.Event, seconds: float) -> None:
    try:
        async with asyncio.timeout(seconds):
            await stop.wait()
    except TimeoutError:
        return

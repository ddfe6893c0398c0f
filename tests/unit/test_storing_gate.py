"""Who may store beside whom (PIPELINE W5)."""

import asyncio

from consumer.storing import Gate


async def _inside(gate: Gate, *, alone: bool, inside: list[str], name: str, leave: asyncio.Event) -> None:
    async with gate.enter(alone=alone):
        inside.append(name)
        await leave.wait()
        inside.remove(name)


async def _settle() -> None:
    """Every task goes as far as it can."""
    for _ in range(10):
        await asyncio.sleep(0)


async def test_a_suspect_is_alone_and_newcomers_do_not_starve_it() -> None:
    gate, inside = Gate(), list[str]()
    events = {name: asyncio.Event() for name in ("one", "two", "suspect", "other suspect", "late")}
    async with asyncio.TaskGroup() as group:
        for name, leave in events.items():
            alone = "suspect" in name
            group.create_task(_inside(gate, alone=alone, inside=inside, name=name, leave=leave))
            await _settle()
        assert inside == ["one", "two"]
        events["one"].set()
        await _settle()
        assert inside == ["two"]
        events["two"].set()
        await _settle()
        assert inside == ["suspect"]
        events["suspect"].set()
        await _settle()
        assert inside == ["other suspect"]
        events["other suspect"].set()
        await _settle()
        assert inside == ["late"]
        events["late"].set()
    assert inside == []


async def test_one_that_gives_up_waiting_holds_up_nobody() -> None:
    gate, inside = Gate(), list[str]()
    leave = asyncio.Event()
    first = asyncio.create_task(_inside(gate, alone=False, inside=inside, name="first", leave=leave))
    await _settle()
    suspect = asyncio.create_task(_inside(gate, alone=True, inside=inside, name="suspect", leave=leave))
    await _settle()
    suspect.cancel()
    second = asyncio.create_task(_inside(gate, alone=False, inside=inside, name="second", leave=leave))
    await _settle()
    assert inside == ["first", "second"]
    leave.set()
    await asyncio.gather(first, second)

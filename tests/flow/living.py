"""How tests ask a process whether it is alive and ready, with short periods."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any

import httpx

from web.health import Health

STALL = 3.0
PERIODS: dict[str, Any] = {"health_look": 0.2, "health_patience": 1.0, "health_stall": STALL}
# ended by a reader that is made anew, unless a test keeps that from helping
READERS: dict[str, Any] = {"kafka_stall": 0.4, "kafka_watch": 0.2, "kafka_session": 6.0, "kafka_send_timeout": 4.0}
PATIENCE = 60.0


async def asked(health: Health, path: str) -> httpx.Response:
    transport = httpx.ASGITransport(health.application())
    async with httpx.AsyncClient(transport=transport, base_url="http://process.test") as client:
        return await client.get(path)


async def stalled(health: Health, loop: str) -> str:
    """Why, once /healthz names this loop."""
    async with asyncio.timeout(PATIENCE):
        while True:
            answer = await asked(health, "/healthz")
            told = answer.json()["loops"][loop]
            if told["status"] == "stalled":
                assert answer.status_code == 503
                return str(told.get("detail"))
            await asyncio.sleep(0.02)


async def alive_for(health: Health, seconds: float) -> None:
    """It stays alive, asked again and again."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        answer = await asked(health, "/healthz")
        assert answer.status_code == 200, answer.text
        await moment()


async def moment() -> None:
    """Between two looks. Where the machine stood still meanwhile, and every loop of this process with it, they get the
    time for a turn before they are judged."""
    before = time.monotonic()
    await asyncio.sleep(0.05)
    if time.monotonic() - before > STALL / 4:
        await asyncio.sleep(STALL / 4)


async def down(health: Health, dependency: str) -> dict[str, str]:
    """What /readyz says of a dependency once it is down."""
    async with asyncio.timeout(PATIENCE):
        while True:
            told: dict[str, str] = (await asked(health, "/readyz")).json()["dependencies"][dependency]
            if told["status"] == "down":
                return told
            await asyncio.sleep(0.02)


async def ready(health: Health) -> None:
    async def is_ready() -> bool:
        return (await asked(health, "/readyz")).status_code == 200

    await until(is_ready)


async def until(holds: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(PATIENCE):
        while True:
            if await holds():
                return
            await asyncio.sleep(0.02)


async def hangs(*_: object, **__: object) -> Any:
    """In place of anything that ought to come to an end."""
    await asyncio.Event().wait()

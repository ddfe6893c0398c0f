"""The simulator in process: a clock moved by hand, pictures that cost nothing, webhooks kept in a list."""

import asyncio
import json
from typing import Any

import httpx
from PIL import Image
from pydantic import SecretStr

from local.modelslab.app import build
from local.modelslab.clock import Clock
from local.modelslab.drawing import Sitting
from local.modelslab.gallery import Gallery
from local.modelslab.settings import SimulatorSettings

KEY = "account-key-0123456789"
SUBMIT = "/api/v7/images/text-to-image"


class HandClock(Clock):
    """Time that passes when the test says so; a sleep of the simulator passes at once unless `held`."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.held = False
        self.asleep = asyncio.Event()
        self.awake = asyncio.Event()

    def monotonic(self) -> float:
        return self.now

    async def sleep(self, seconds: float) -> None:
        if seconds <= 0:
            return
        if self.held:
            self.asleep.set()
            await self.awake.wait()
        else:
            self.now += seconds


class Simulator:
    """The simulator and a caller with a key."""

    def __init__(self, **settings: Any) -> None:
        self.clock = HandClock()
        self.received: list[dict[str, Any]] = []
        self.app = build(
            SimulatorSettings(**{"profile": "instant", "key": SecretStr(KEY), **settings}),
            clock=self.clock,
            gallery=Gallery(budget=10_000_000, painter=_dot),
            webhook_transport=httpx.MockTransport(self._receive),
        )
        self.http = httpx.AsyncClient(transport=httpx.ASGITransport(self.app), base_url="http://simulator")

    def _receive(self, request: httpx.Request) -> httpx.Response:
        self.received.append(json.loads(request.content))
        return httpx.Response(204)

    async def script(self, *rules: dict[str, Any], **more: Any) -> None:
        answer = await self.http.put("/simulator/script", json={"rules": list(rules), **more})
        assert answer.status_code == 200, answer.text

    async def submit(self, prompt: str = "a hare at tea", **fields: Any) -> httpx.Response:
        body = {"key": KEY, "model_id": "seedream-4", "prompt": prompt, "aspect_ratio": "16:9", **fields}
        return await self.http.post(SUBMIT, json={name: value for name, value in body.items() if value is not None})

    async def fetch(self, job_id: object, key: str = KEY) -> httpx.Response:
        return await self.http.post(f"/api/v7/images/fetch/{job_id}", json={"key": key})

    async def picture(self, address: str) -> httpx.Response:
        return await self.http.get(address)

    async def counters(self) -> dict[str, int]:
        counters: dict[str, int] = (await self.http.get("/simulator/counters")).json()
        return counters

    async def close(self) -> None:
        await self.http.aclose()
        await self.app.state.postman.close()


def _dot(sitting: Sitting) -> Image.Image:
    return Image.new("RGB", (sitting.width // 16, sitting.height // 16), (sitting.seed & 255, 80, 80))

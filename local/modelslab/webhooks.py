"""Webhooks as the provider sends them: best effort, once a job has ended; duplicates are expected behaviour."""

import asyncio
import logging

import httpx

from local.modelslab import answers
from local.modelslab.calls import CallLog
from local.modelslab.clock import Clock
from local.modelslab.director import Director
from local.modelslab.job import Job
from local.modelslab.periods import draw

ANSWER_WITHIN = 30.0  # documented: reply 2xx within 30 s

log = logging.getLogger("modelslab.webhooks")


class Postman:
    """Delivers the webhooks of jobs that asked for one. No signature is sent: none is documented."""

    def __init__(
        self, clock: Clock, director: Director, calls: CallLog, transport: httpx.AsyncBaseTransport | None = None
    ) -> None:
        self._clock = clock
        self._director = director
        self._calls = calls
        self._transport = transport
        self._client: httpx.AsyncClient | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    def take(self, job: Job, base: str) -> None:
        """Deliver when the job has ended, as its fate has it. The dice are cast now, so that order decides them."""
        if job.order.webhook is None or job.action.outcome == "never":
            return
        fate, rng = job.action.webhook, self._director.rng
        lost = fate.lost > 0 and rng.random() < fate.lost
        copies = 2 if fate.duplicated > 0 and rng.random() < fate.duplicated else 1
        task = asyncio.get_running_loop().create_task(
            self._deliver(job, base, 0 if lost else copies, draw(fate.delay, rng)), name=f"webhook of job {job.id}"
        )
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def delivered(self) -> None:
        """Returns when nothing is on its way."""
        while self._tasks:
            await asyncio.gather(*self._tasks, return_exceptions=True)

    async def close(self) -> None:
        for task in self._tasks:
            task.cancel()
        await self.delivered()
        if self._client is not None:
            await self._client.aclose()
            self._client = None

    async def _deliver(self, job: Job, base: str, copies: int, delay: float) -> None:
        if job.action.webhook.early and copies:
            await self._send(job, answers.webhook(job, base, early=True))
        await self._clock.sleep(job.ready_at - self._clock.monotonic() + delay)
        if not copies:
            self._calls.counters.webhooks_lost += 1
            job.webhooks.append({"lost": True})
        for _ in range(copies):
            await self._send(job, answers.webhook(job, base))

    async def _send(self, job: Job, payload: dict[str, object]) -> None:
        if self._client is None:
            self._client = httpx.AsyncClient(transport=self._transport, timeout=ANSWER_WITHIN)
        sent: dict[str, object] = {"status": payload["status"], "http_status": None}
        job.webhooks.append(sent)
        try:
            answer = await self._client.post(str(job.order.webhook), json=payload)
        except (httpx.HTTPError, httpx.InvalidURL) as failed:
            # the address holds its receiver's token: say only that it failed, not where
            self._calls.counters.webhooks_failed += 1
            log.info("webhook of job %d not delivered: %s", job.id, type(failed).__name__)
            return
        sent["http_status"] = answer.status_code
        self._calls.counters.webhooks_sent += 1

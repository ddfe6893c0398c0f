"""The jobs an account has at the provider, and how many of them are in flight."""

from collections import OrderedDict
from collections.abc import Iterator
from zlib import crc32

from local.modelslab.clock import Clock
from local.modelslab.job import Job
from local.modelslab.journal import Journal
from local.modelslab.orders import Order
from local.modelslab.script import Action

JOBS_KEPT = 100_000
_ERA = 1_735_689_600  # 2025-01-01; ids begin where the clock is, so that a restart does not use one twice


class JobBook:
    """All jobs, by id; the oldest are forgotten past 100,000. With a journal they outlive a restart."""

    def __init__(self, clock: Clock, journal: Journal | None = None) -> None:
        self._clock = clock
        self._jobs: OrderedDict[int, Job] = OrderedDict()
        self._flying: dict[str, dict[int, float]] = {}
        self._submits: dict[int, int] = {}
        self._last_id = int(clock.wall() - _ERA) * 10
        self._journal = journal
        for job in journal.read(clock) if journal is not None else ():
            self._keep(job)
            self._next_seed(job.order)  # counts it, so that a scene asked for again after a restart looks new
            if job.ready_at > clock.monotonic():
                self._flying.setdefault(job.owner, {})[job.id] = job.ready_at
            self._last_id = max(self._last_id, job.id)

    def __iter__(self) -> Iterator[Job]:
        return iter(self._jobs.values())

    def __len__(self) -> int:
        return len(self._jobs)

    def in_flight(self, owner: str) -> int:
        """How many of the account's jobs are not ready yet."""
        flying = self._flying.get(owner)
        if not flying:
            return 0
        now = self._clock.monotonic()
        for job_id in [job_id for job_id, ready_at in flying.items() if ready_at <= now]:
            del flying[job_id]
        return len(flying)

    def make(self, owner: str, order: Order, action: Action, duration: float, *, charged: bool) -> Job:
        """A new job, ready after `duration` seconds (never, if that is how its action ends)."""
        self._last_id += 1
        now = self._clock.monotonic()
        ready_at = float("inf") if action.outcome == "never" else now + duration
        seed = order.seed & 0xFFFFFFFF if order.seed is not None else self._next_seed(order)
        job = Job(self._last_id, owner, order, action, seed, self._clock.wall(), now, ready_at, charged)
        if ready_at > now:
            self._flying.setdefault(owner, {})[job.id] = ready_at
        self._keep(job)
        if self._journal is not None:
            self._journal.add(job)
        return job

    def ended(self, job: Job) -> None:
        """A synchronous answer went out: the job no longer holds a place."""
        self._flying.get(job.owner, {}).pop(job.id, None)

    def find(self, job_id: object) -> Job | None:
        """The job of an id given as a number or as text."""
        text = str(job_id)
        return self._jobs.get(int(text)) if text.isascii() and text.isdigit() and len(text) < 20 else None

    def of_picture(self, name: str) -> Job | None:
        """The job whose picture has this file name."""
        parts = name.split("-")
        job = self.find(parts[1]) if len(parts) == 3 else None
        return job if job is not None and name in job.names else None

    def forget(self) -> None:
        """Drop all jobs; ids go on rising."""
        self._jobs.clear()
        self._flying.clear()
        self._submits.clear()
        if self._journal is not None:
            self._journal.clear()

    def _keep(self, job: Job) -> None:
        self._jobs[job.id] = job
        if len(self._jobs) > JOBS_KEPT:
            self._jobs.popitem(last=False)

    def _next_seed(self, order: Order) -> int:
        """Where no seed is given: the same for the n-th submit of a prompt in every run, another for the next."""
        scene = crc32(f"{order.model}\n{order.prompt}".encode(errors="replace"))
        again = self._submits.get(scene, 0)
        if len(self._submits) > JOBS_KEPT:
            self._submits.clear()
        self._submits[scene] = again + 1
        return (scene + again * 0x9E3779B1) & 0xFFFFFFFF

"""The simulator's own side: its script, what it was asked, what it charged."""

import json
from dataclasses import asdict
from typing import Any

from pydantic import ValidationError
from starlette.requests import Request
from starlette.responses import Response

from local.modelslab.calls import CallLog
from local.modelslab.clock import Clock
from local.modelslab.director import Director
from local.modelslab.faults import FAULTS
from local.modelslab.gallery import Gallery
from local.modelslab.jobs import JobBook
from local.modelslab.profiles import PROFILES
from local.modelslab.provider import json_response
from local.modelslab.script import Script


class Control:
    """The handlers of `/simulator/...` and of the health paths. They need no key: the simulator is for one machine."""

    def __init__(self, *, clock: Clock, director: Director, jobs: JobBook, calls: CallLog, gallery: Gallery) -> None:
        self._clock = clock
        self._director = director
        self._jobs = jobs
        self._calls = calls
        self._gallery = gallery

    async def read_script(self, request: Request) -> Response:
        script = self._director.script.model_dump(mode="json", exclude_defaults=True)
        return json_response({"profile": self._director.profile, **script})

    async def write_script(self, request: Request) -> Response:
        """PUT: a whole script; it replaces the one in force. 422 names each field that does not pass."""
        try:
            script = Script.model_validate_json(await request.body() or b"{}")
        except ValidationError as wrong:
            errors = [
                {"field": ".".join(map(str, error["loc"])), "message": error["msg"]}
                for error in wrong.errors(include_url=False, include_input=False)
            ]
            return json_response({"detail": "The script was not taken; the one in force stays.", "errors": errors}, 422)
        self._director.play(script)
        if self._director.prerendered:
            await self._gallery.prerender(1)
        return await self.read_script(request)

    async def words(self, request: Request) -> Response:
        """What a script may say: profiles, faults with their grade of evidence, and the schema."""
        faults = {
            name: {"code": fault.code, "body": fault.body, "evidence": fault.grade} for name, fault in FAULTS.items()
        }
        return json_response({"profiles": list(PROFILES), "faults": faults, "schema": Script.model_json_schema()})

    async def calls(self, request: Request) -> Response:
        """GET: the calls, oldest first. Query: `kind`, `track_id`, `id`, `prompt` (a part), `after` (an n), `limit`."""
        asked = request.query_params
        after, limit = _whole(asked.get("after"), 0), _whole(asked.get("limit"), 0)
        shown = [
            call.shown()
            for call in self._calls.calls
            if call.number > after
            and asked.get("kind", call.kind) == call.kind
            and asked.get("track_id", call.track_id) == call.track_id
            and asked.get("id", str(call.id)) == str(call.id)
            and asked.get("prompt", "") in (call.prompt or "")
        ]
        return json_response({"counters": self._counters(), "calls": shown[-limit:]})

    async def counters(self, request: Request) -> Response:
        return json_response(self._counters())

    async def jobs(self, request: Request) -> Response:
        """GET: the jobs, oldest first. Query: `track_id`, `state`, `limit`."""
        asked = request.query_params
        now = self._clock.monotonic()
        shown = [
            {
                "id": job.id,
                "state": job.state(now),
                "model": job.order.model,
                "prompt": job.order.prompt,
                "track_id": job.order.track_id,
                "created": job.created,
                "seconds_left": round(max(0.0, job.ready_at - now), 3) if job.action.outcome != "never" else None,
                "charged": job.charged,
                "fetches": job.fetches,
                "picture_gets": job.gets,
                "pictures": [f"/generations/{name}" for name in job.names],
                "webhook": job.order.webhook is not None,
                "webhooks": job.webhooks,
            }
            for job in self._jobs
            if asked.get("track_id", job.order.track_id) == job.order.track_id
            and asked.get("state", job.state(now)) == job.state(now)
        ]
        return json_response({"jobs": shown[-_whole(asked.get("limit"), 0) :]})

    async def reset(self, request: Request) -> Response:
        """POST: forget calls, counters and jobs, and go back to the profile it was started with."""
        self._calls.clear()
        self._jobs.forget()
        self._director.play(Script())
        return json_response({"profile": self._director.profile})

    async def alive(self, request: Request) -> Response:
        return json_response({"status": "ok"})

    async def front(self, request: Request) -> Response:
        """GET /: what this is, for whoever opens its address."""
        paths = ["/simulator/script", "/simulator/words", "/simulator/calls", "/simulator/counters", "/simulator/jobs"]
        said = {"simulator": "ModelsLab", "profile": self._director.profile, "see": paths}
        return Response(json.dumps(said, indent=2) + "\n", media_type="application/json")

    def _counters(self) -> dict[str, Any]:
        now = self._clock.monotonic()
        flying = sum(1 for job in self._jobs if job.ready_at > now)
        return {**asdict(self._calls.counters), "in_flight": flying}


def _whole(text: str | None, otherwise: int) -> int:
    return int(text) if text is not None and text.isascii() and text.isdigit() else otherwise

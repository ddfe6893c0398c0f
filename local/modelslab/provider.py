"""The provider's side: submit, fetch and the pictures' addresses."""

import hashlib
import json
from typing import Any

import httpx
from starlette.requests import Request
from starlette.responses import Response

from local.modelslab import answers
from local.modelslab.calls import Call, CallLog
from local.modelslab.clock import Clock
from local.modelslab.director import Director
from local.modelslab.faults import FAULTS, Reply, refusal
from local.modelslab.gallery import Gallery, content_type
from local.modelslab.job import Job
from local.modelslab.jobs import JobBook
from local.modelslab.orders import Endpoint, Invalid, Order, UnknownModel, read
from local.modelslab.periods import draw
from local.modelslab.script import Action
from local.modelslab.settings import SimulatorSettings
from local.modelslab.webhooks import Postman

CUT = "simulator.cut"
HANG = 600.0


class ConnectionCut(httpx.ReadError):
    """The simulator cut the connection. Only callers within the same process see this; others see a reset."""


def json_response(body: dict[str, Any], code: int = 200) -> Response:
    return Response(json.dumps(body), code, media_type="application/json")


class Provider:
    """The handlers of ModelsLab's own paths."""

    def __init__(
        self,
        settings: SimulatorSettings,
        *,
        clock: Clock,
        director: Director,
        jobs: JobBook,
        calls: CallLog,
        gallery: Gallery,
        postman: Postman,
    ) -> None:
        self._key = settings.key.get_secret_value() if settings.key is not None else None
        self._public_url = settings.public_url.rstrip("/") if settings.public_url else None
        self._clock = clock
        self._director = director
        self._jobs = jobs
        self._calls = calls
        self._gallery = gallery
        self._postman = postman

    async def text_to_image(self, request: Request) -> Response:
        return await self._submit(request, "text-to-image")

    async def image_to_image(self, request: Request) -> Response:
        return await self._submit(request, "image-to-image")

    async def fetch(self, request: Request) -> Response:
        call = self._calls.fetch(self._clock.wall())
        body, owner, refused = await self._caller(request)
        if refused is not None:
            return self._refuse(call, refused)
        job = self._jobs.find(request.path_params.get("id", body.get("request_id", "")))
        if job is None or job.owner != owner:
            return self._refuse(call, FAULTS["not_found"].reply())
        job.fetches += 1
        call.id, call.model, call.prompt, call.track_id = job.id, job.order.model, job.order.prompt, job.order.track_id
        action, call.rule = self._director.choose("fetch", job.order.prompt, job.order.model, job.id)
        await self._wait(action)
        if action.answer == "reset":
            return self._cut(request)
        if action.answer == "error":
            return self._refuse(call, self._reply(action, job.order))
        return self._answer(call, self._told(job, self._base(request)))

    async def generation(self, request: Request) -> Response:
        """GET: the picture, once its job is ready and as its fate has it."""
        return await self._picture(request, proxy=False)

    async def proxied(self, request: Request) -> Response:
        """GET: the same picture at its second source."""
        return await self._picture(request, proxy=True)

    async def _picture(self, request: Request, *, proxy: bool) -> Response:
        self._calls.counters.pictures += 1
        name = request.path_params["name"]
        job = self._jobs.of_picture(name)
        now = self._clock.monotonic()
        if job is None or job.state(now) != "success" or job.action.output != "urls":
            return _nothing_here()
        job.gets += not proxy
        action, _ = self._director.choose("picture", job.order.prompt, job.order.model, job.id)
        await self._wait(action)
        if action.answer == "reset":
            return self._cut(request)
        if action.answer == "error":
            reply = self._reply(action, job.order)
            return Response(reply.encoded(), reply.code, media_type=reply.content_type)
        fate = job.action
        expired = fate.expires_after is not None and now > job.ready_at + fate.expires_after
        if expired or (not proxy and (fate.gone or job.gets <= fate.fresh_404)):
            return _nothing_here()
        sample = int(name.partition("-")[0])
        data = await self._gallery.picture(job, sample, prerendered=self._director.prerendered)
        return Response(data, media_type=content_type(fate.picture), headers={"cache-control": "public, max-age=14400"})

    async def _submit(self, request: Request, endpoint: Endpoint) -> Response:
        call = self._calls.submit(self._clock.wall())
        body, owner, refused = await self._caller(request)
        if refused is not None:
            return self._refuse(call, refused)
        try:
            order = read(self._without_key(body), endpoint)
        except UnknownModel as unknown:
            call.model = str(unknown)
            return self._refuse(call, FAULTS["model_not_found"].reply(model=str(unknown)))
        except Invalid as invalid:
            return self._refuse(call, self._invalid(invalid))
        call.model, call.prompt, call.track_id = order.model, order.prompt, order.track_id
        call.references = order.references
        flying = self._jobs.in_flight(owner)
        counters = self._calls.counters
        if flying >= self._director.slots:
            counters.rate_limited += 1
            call.rule = "slots"
            return self._refuse(call, self._fault("rate_limited", order))
        action, call.rule = self._director.choose("submit", order.prompt, order.model)
        latency = draw(action.latency, self._director.rng)
        if action.answer == "hang" and latency == 0:
            latency = HANG
        base = self._base(request)
        job = None
        if action.created or action.answer not in ("error", "reset"):
            counters.in_flight_max = max(counters.in_flight_max, flying + 1)
            job = self._made(call, owner, order, action, latency, base)
        await self._clock.sleep(latency)
        if action.answer == "reset":
            return self._cut(request)
        if action.answer == "error" or job is None:
            return self._refuse(call, self._reply(action, order))
        if action.answer == "success":
            # the sleep may end a hair before the clock says so; the answer is final all the same
            job.ready_at = min(job.ready_at, self._clock.monotonic())
            self._jobs.ended(job)
        return self._answer(call, self._told(job, base))

    def _made(self, call: Call, owner: str, order: Order, action: Action, latency: float, base: str) -> Job:
        duration = latency if action.answer == "success" else draw(action.duration, self._director.rng)
        charged = True if action.charged is None else action.charged
        job = self._jobs.make(owner, order, action, duration, charged=charged)
        call.id, call.charged = job.id, charged
        self._calls.counters.charged += charged
        if not self._director.prerendered and action.output == "urls" and action.outcome == "success":
            self._gallery.start(job)
        self._postman.take(job, base)
        return job

    def _told(self, job: Job, base: str) -> dict[str, Any]:
        now = self._clock.monotonic()
        match job.state(now):
            case "processing":
                return answers.processing(job, base, job.ready_at - now)
            case "success":
                return answers.success(job, base)
            case _:
                return answers.failure(job)

    async def _caller(self, request: Request) -> tuple[dict[str, Any], str, Reply | None]:
        """The body, the account (a digest of its key), and why it is refused if it is."""
        try:
            body = json.loads(await request.body())
        except ValueError:
            body = None
        if not isinstance(body, dict):
            return {}, "", FAULTS["invalid_request"].reply()
        key = body.get("key")
        if not isinstance(key, str) or not key:
            return body, "", FAULTS["key_missing"].reply()
        if self._key is not None and key != self._key:
            return body, "", FAULTS["invalid_key"].reply()
        return body, hashlib.blake2b(key.encode(errors="replace"), digest_size=8).hexdigest(), None

    def _without_key(self, body: dict[str, Any]) -> dict[str, Any]:
        """The body without the key, also where a caller put it into another field by mistake."""
        key = body.pop("key")
        if len(key) < 8:
            return body
        return {
            name: value.replace(key, "[key]") if isinstance(value, str) and key in value else value
            for name, value in body.items()
        }

    def _invalid(self, invalid: Invalid) -> Reply:
        if self._director.script.validation == "object":
            return refusal({invalid.field: [invalid.message]}, code=200)
        return refusal(invalid.message)

    def _reply(self, action: Action, order: Order) -> Reply:
        if action.body is not None:
            kind = "application/json" if isinstance(action.body, dict) else "text/html"
            return Reply(action.code or 400, action.body, kind)
        return self._fault(str(action.fault), order, action.code)

    def _fault(self, name: str, order: Order, code: int | None = None) -> Reply:
        director = self._director
        wait = director.retry_after
        # as the documentation and the samples have it: a whole number, in words too
        whole = int(wait) if wait == int(wait) else wait
        return FAULTS[name].reply(code=code, model=order.model, slots=director.slots, retry_after=whole)

    def _refuse(self, call: Call, reply: Reply) -> Response:
        code = reply.code
        if self._director.script.errors_in_200 and isinstance(reply.body, dict):
            code = 200
        call.http_status = code
        call.answer = str(reply.body.get("status")) if isinstance(reply.body, dict) else "not JSON"
        return Response(reply.encoded(), code, media_type=reply.content_type)

    def _answer(self, call: Call, body: dict[str, Any]) -> Response:
        call.http_status, call.answer = 200, body["status"]
        return json_response(body)

    async def _wait(self, action: Action) -> None:
        latency = draw(action.latency, self._director.rng)
        await self._clock.sleep(HANG if action.answer == "hang" and latency == 0 else latency)

    def _cut(self, request: Request) -> Response:
        hook = request.scope.get("extensions", {}).get(CUT)
        if hook is None:
            raise ConnectionCut("the simulator cut the connection, as its script says")
        hook["abort"]()
        return Response()

    def _base(self, request: Request) -> str:
        if self._public_url is not None:
            return self._public_url
        return f"{request.scope['scheme']}://{request.headers.get('host', 'localhost')}"


def _nothing_here() -> Response:
    return Response("Not Found", 404, media_type="text/plain")

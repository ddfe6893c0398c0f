"""The bodies of good answers, in the shape the script asks for.

Field names and texts are those of the documented schemas and of recorded samples (`README.md` says which); v7 itself
has no published schema, so the v6 one stands in.
"""

from typing import Any

from local.modelslab.faults import FAULTS
from local.modelslab.job import Job

_TIP = "Get 20x faster image generation using enterprise plan. Click here : https://modelslab.com/enterprise"
_WAIT_TIP = "Your image is processing in background, you can get this image using fetch API"
_FETCH_PATH = "/api/v7/images/fetch"


def success(job: Job, base: str) -> dict[str, Any]:
    """The finished job; `base` is the simulator's own address, without a trailing slash."""
    shape = job.action.shape
    body: dict[str, Any] = {"status": "success"}
    if shape.generation_time:
        body["generationTime"] = round(max(job.ready_at - job.made_at, 0), 2)
    body |= {
        "id": _id(job),
        "output": _output(job, base),
        "meta": _meta(job),
        "nsfw_content_detected": job.action.nsfw,
        "webhook_status": "",
    }
    _add_track_id(body, job)
    _add_proxies(body, job, base)
    _add_tip(body, job, _TIP)
    return body


def processing(job: Job, base: str, left: float) -> dict[str, Any]:
    """The job under way; `left` seconds remain."""
    shape = job.action.shape
    eta = job.action.eta if job.action.eta is not None else min(max(left, 0), 60) + 0.0379869184
    body: dict[str, Any] = {"status": "processing", "id": _id(job), "webhook_status": "", "meta": _meta(job)}
    _add_track_id(body, job)
    if shape.eta != "absent":
        body["eta"] = round(eta) if shape.eta == "int" else eta
    body[shape.message] = "Try to fetch request after seconds estimated"
    match shape.fetch_result:
        case "given":
            body["fetch_result"] = f"{base}{_FETCH_PATH}/{job.id}"
        case "foreign":
            body["fetch_result"] = f"https://fetch.example.net{_FETCH_PATH}/{job.id}"
        case "unreadable":
            body["fetch_result"] = ["not", "an", "address"]
        case "missing":
            pass
    if shape.pending_output != "absent":
        body["output"] = "" if shape.pending_output == "text" else []
    if shape.future_links:
        body["future_links"] = _links(job, base)
    _add_tip(body, job, _WAIT_TIP)
    return body


def failure(job: Job) -> dict[str, Any]:
    """How a job that fails says so when it is fetched: with its fault's words, its own id and status."""
    fault = FAULTS[job.action.fault or "try_again"]
    words = fault.reply(model=job.order.model, slots="", retry_after=30).body
    said = words if isinstance(words, dict) else {"message": "Failed, Try Again"}
    return {**said, "status": job.action.outcome, "id": _id(job), "output": ""}


def webhook(job: Job, base: str, *, early: bool = False) -> dict[str, Any]:
    """The payload a webhook receives."""
    if early:
        return {"status": "processing", "id": _id(job), "track_id": job.order.track_id, "eta": 1.5, "output": []}
    if job.action.outcome != "success":
        message = failure(job).get("message", "Failed, Try Again")
        return {"status": job.action.outcome, "id": _id(job), "message": message, "track_id": job.order.track_id}
    return {
        "status": "success",
        "id": _id(job),
        "output": _output(job, base),
        "generationTime": round(max(job.ready_at - job.made_at, 0), 2),
        "track_id": job.order.track_id,
        "meta": _meta(job),
    }


def _id(job: Job) -> int | str:
    return str(job.id) if job.action.shape.id == "text" else job.id


def _links(job: Job, base: str, folder: str = "generations") -> list[str]:
    return [f"{base}/{folder}/{name}" for name in job.names]


def _output(job: Job, base: str) -> list[str] | str:
    match job.action.output:
        case "empty":
            return []
        case "text":
            return ""
        case _:
            return _links(job, base)


def _add_proxies(body: dict[str, Any], job: Job, base: str) -> None:
    links = _links(job, base, "proxy") if job.action.output == "urls" else []
    if job.action.shape.proxy_links == "list":
        body["proxy_links"] = links
    elif job.action.shape.proxy_links == "object":
        body["proxy_links"] = {str(number): link for number, link in enumerate(links)}


def _add_track_id(body: dict[str, Any], job: Job) -> None:
    if job.order.track_id is not None:
        body["track_id"] = job.order.track_id


def _add_tip(body: dict[str, Any], job: Job, tip: str) -> None:
    if job.action.shape.tip != "absent":
        body[job.action.shape.tip] = tip


def _meta(job: Job) -> dict[str, Any]:
    order = job.order
    return {
        "model_id": order.model,
        "prompt": order.prompt,
        "negative_prompt": order.negative_prompt,
        "W": order.width,
        "H": order.height,
        "n_samples": order.samples,
        "seed": job.seed,
        "file_prefix": job.names[0].rpartition(".")[0],
    }

"""A client of the provider against scripted answers, for tests of what it makes of them."""

import json
import re
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from pydantic import SecretStr

from consumer.answers import Processing, ProviderFailure, Succeeded
from consumer.modelslab import ModelsLab

KEY = "sk-live-0123456789abcdef"
BASE = "https://modelslab.test"
PATH = "/api/v7/images/text-to-image"
PICTURE = "https://cdn.modelslab.test/generations/0.png"

Handler = Callable[[httpx.Request], httpx.Response]


def client(handler: Handler, base_url: str = BASE, submit_timeout: float = 30.0, key: str = KEY) -> ModelsLab:
    return ModelsLab(
        base_url=base_url,
        api_key=SecretStr(key),
        submit_timeout=submit_timeout,
        fetch_timeout=5.0,
        transport=httpx.MockTransport(handler),
    )


def says(body: Any, code: int = 200, headers: dict[str, str] | None = None) -> Handler:
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    return lambda _: httpx.Response(code, content=content, headers=headers)


async def submit(handler: Handler, base_url: str = BASE) -> Succeeded | Processing:
    provider = client(handler, base_url)
    return await provider.submit({"model_id": "m", "prompt": "a tea party"}, path=PATH, track_id="t-1")


async def refused(handler: Handler) -> ProviderFailure:
    with pytest.raises(ProviderFailure) as caught:
        await submit(handler)
    return caught.value


async def fetch_refused(handler: Handler) -> ProviderFailure:
    with pytest.raises(ProviderFailure) as caught:
        await client(handler).fetch("77", None)
    return caught.value


def error(message: Any, **more: Any) -> dict[str, Any]:
    return {"status": "error", "message": message, **more}


def raising(broken: Exception) -> Handler:
    def handler(_: httpx.Request) -> httpx.Response:
        raise broken

    return handler


def everything(failure: BaseException) -> str:
    """All that a logger could get hold of: texts, attributes, chained errors, and each frame's local variables, those
    of the test apart.
    """
    said = [repr(failure), str(failure), repr(vars(failure)), "".join(traceback.format_exception(failure))]
    at: BaseException | None = failure
    while at is not None:
        for frame, _ in traceback.walk_tb(at.__traceback__):
            if "tests" not in Path(frame.f_code.co_filename).parts:
                said.append(repr(frame.f_locals))
        at = at.__cause__ or at.__context__
    return "\n".join(said)


def shown_key(text: str, key: str = KEY) -> str | None:
    """The part of the text that shows a good part of the key, also where it is written as JSON escapes."""
    for form in (text, re.sub(r"\\+u([0-9a-fA-F]{4})", lambda found: chr(int(found[1], 16)), text)):
        at = form.find(key[:12])
        if at >= 0:
            return form[max(0, at - 40) : at + 60]
    return None

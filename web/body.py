"""Request bodies, with an end: in bytes and in time."""

import asyncio

from starlette.requests import Request

from web.problems import Refused

LIMIT = 64 * 1024
"""Bytes."""
_PATIENCE = 20.0
"""Seconds for the whole of a body that does not come at once."""
_DRAINED = 1024 * 1024


async def read(request: Request, *, limit: int = LIMIT, patience: float = _PATIENCE) -> bytes:
    """The body. Raises `Refused`: 413 as soon as it is known to be too large, 408 when it does not come, 400 when the
    client leaves."""
    declared = request.headers.get("content-length")
    if declared is not None and declared.isdecimal() and int(declared) > limit:
        raise too_large(limit, close=int(declared) > _DRAINED)
    message = await request.receive()
    if message["type"] == "http.request" and not message.get("more_body", False):
        whole: bytes = message.get("body", b"")
        if len(whole) > limit:
            raise too_large(limit)
        return whole
    parts: list[bytes] = []
    size = 0
    try:
        async with asyncio.timeout(patience):
            while True:
                if message["type"] == "http.disconnect":
                    raise Refused(400, "body_incomplete", "The connection closed before the whole body was sent.")
                part: bytes = message.get("body", b"")
                size += len(part)
                if size > limit:
                    raise too_large(limit)
                parts.append(part)
                if not message.get("more_body", False):
                    return b"".join(parts)
                message = await request.receive()
    except TimeoutError:
        raise Refused(
            408, "body_incomplete", "The body did not arrive in time.", headers={"Connection": "close"}
        ) from None


def too_large(limit: int, *, close: bool = False) -> Refused:
    """413. A little too much is read and dropped, so that the client sees the answer; far too much is cut off."""
    headers = {"Connection": "close"} if close else None
    return Refused(413, "body_too_large", f"The body may have {limit // 1024} KB at most.", headers=headers)

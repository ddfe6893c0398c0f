"""The stored pictures over HTTP: by their signed address, which a plain `<img>` can load, or by their owner."""

from collections.abc import Sequence

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response, StreamingResponse
from starlette.routing import Route

from media import keys, links
from media.store import Media, NotStored
from notifier.polls import Tags
from storage.reading import Reader
from web.auth import Verifier
from web.parameters import uuid_of
from web.problems import Refused

FILE = "/images/{record_id}/file/{name}"
OWN_FILE = "/images/{record_id}/file"

# the address names the content, so what was loaded once is right for ever
_FOR_EVER = "private, max-age=31536000, immutable"
_HARMLESS = {
    "X-Content-Type-Options": "nosniff",
    "Content-Security-Policy": "default-src 'none'; sandbox",
    "Cross-Origin-Resource-Policy": "cross-origin",
    # the address is a capability
    "Referrer-Policy": "no-referrer",
}


class Pictures:
    def __init__(
        self, *, reader: Reader, media: Media, verifier: Verifier, secrets: Sequence[str], push_url: str
    ) -> None:
        self._reader = reader
        self._media = media
        self._verifier = verifier
        self._secrets = secrets
        self._push_url = push_url

    def routes(self) -> list[Route]:
        return [Route(FILE, self.file, methods=["GET"]), Route(OWN_FILE, self.own, methods=["GET"])]

    async def file(self, request: Request) -> Response:
        """The bytes, for whoever has the address."""
        try:
            record_id = uuid_of(request.path_params, "record_id")
        except Refused:
            raise _unknown() from None
        signature, _, extension = str(request.path_params["name"]).rpartition(".")
        picture = await self._reader.picture(record_id)
        named = keys.parts(picture.image_key) if picture is not None and picture.image_key else None
        if picture is None or picture.image_key is None or named is None:
            raise _unknown()
        _, sha256, stored_extension = named
        if extension != stored_extension or not links.verify(
            record_id, sha256, stored_extension, signature, self._secrets
        ):
            raise _unknown()
        headers = {"Cache-Control": _FOR_EVER, "ETag": f'"{sha256}"', **_HARMLESS}
        if Tags(request).match(headers["ETag"]):
            return Response(status_code=304, headers=headers)
        try:
            stored = await self._media.open(picture.image_key)
        except NotStored:
            raise _unknown() from None
        headers["Content-Length"] = str(stored.size)
        return StreamingResponse(stored.chunks, media_type=keys.content_type(picture.image_key), headers=headers)

    async def own(self, request: Request) -> Response:
        """To the picture's address, for its owner."""
        caller = self._verifier.of_headers(request.headers.get("authorization"))
        record_id = uuid_of(request.path_params, "record_id")
        picture = await self._reader.picture(record_id)
        if picture is None or picture.user_id != caller.user_id:
            raise _unknown()
        named = keys.parts(picture.image_key) if picture.image_key else None
        if named is not None:
            address = self._push_url + links.sign(record_id, named[1], named[2], self._secrets)
        elif picture.image_url:
            # as the old system wrote it
            address = picture.image_url
        else:
            raise _unknown()
        return RedirectResponse(address, 307, {"Cache-Control": "private, no-store", "Vary": "Authorization"})


def _unknown() -> Refused:
    return Refused(404, "not_found", "There is no such picture.")

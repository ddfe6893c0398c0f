"""The stored pictures over HTTP, whole or small: by their signed address, which a plain `<img>` can load, or by their
owner."""

from collections.abc import Sequence
from dataclasses import dataclass
from uuid import UUID

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response, StreamingResponse
from starlette.routing import Route

from media import keys, links
from media.store import Media, NotStored, Stored
from notifier.polls import Tags
from notifier.thumbnails import CONTENT_TYPE, NoDecoder, NoThumbnail, Thumbnails
from storage.reading import Reader
from web.auth import Verifier
from web.parameters import uuid_of
from web.problems import Refused

FILE = "/images/{record_id}/file/{name}"
THUMBNAIL = "/images/{record_id}/thumb/{name}"
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


@dataclass(frozen=True, slots=True)
class _Named:
    """The picture that a signed address names."""

    record_id: UUID
    key: str
    sha256: str
    extension: str


class Pictures:
    def __init__(
        self,
        *,
        reader: Reader,
        media: Media,
        thumbnails: Thumbnails,
        verifier: Verifier,
        secrets: Sequence[str],
        push_url: str,
    ) -> None:
        self._reader = reader
        self._media = media
        self._thumbnails = thumbnails
        self._verifier = verifier
        self._secrets = secrets
        self._push_url = push_url

    def routes(self) -> list[Route]:
        return [
            Route(FILE, self.file, methods=["GET"]),
            Route(THUMBNAIL, self.thumbnail, methods=["GET"]),
            Route(OWN_FILE, self.own, methods=["GET"]),
        ]

    async def file(self, request: Request) -> Response:
        """The bytes, for whoever has the address."""
        named = await self._named(request)
        headers = {"Cache-Control": _FOR_EVER, "ETag": f'"{named.sha256}"', **_HARMLESS}
        if Tags(request).match(headers["ETag"]):
            return Response(status_code=304, headers=headers)
        try:
            stored = await self._media.open(named.key)
        except NotStored:
            raise _unknown() from None
        return _streamed(stored, keys.content_type(named.key), headers)

    async def thumbnail(self, request: Request) -> Response:
        """The same picture, 480 pixels wide; where this machine cannot open its kind, a redirect to the picture."""
        named = await self._named(request, served_as="webp")
        headers = {
            "Cache-Control": _FOR_EVER,
            "ETag": f'"{named.sha256}-{keys.THUMBNAIL_WIDTH}"',
            **_HARMLESS,
        }
        if Tags(request).match(headers["ETag"]):
            return Response(status_code=304, headers=headers)
        try:
            found = await self._thumbnails.open(named.record_id, named.sha256, named.key)
        except NotStored:
            raise _unknown() from None
        except NoDecoder:
            whole = links.sign(named.record_id, named.sha256, named.extension, self._secrets)
            return RedirectResponse(self._push_url + whole, 307, {"Cache-Control": "private, no-cache", **_HARMLESS})
        except NoThumbnail:
            raise Refused(404, "no_thumbnail", "Nothing smaller can be made of this picture: show it whole.") from None
        if isinstance(found, bytes):
            return Response(found, media_type=CONTENT_TYPE, headers=headers)
        return _streamed(found, CONTENT_TYPE, headers)

    async def _named(self, request: Request, *, served_as: str | None = None) -> _Named:
        """What the address names, if it is signed. `served_as`: its extension, where that is not the picture's."""
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
        if extension != (served_as or stored_extension) or not links.verify(
            record_id, sha256, stored_extension, signature, self._secrets
        ):
            raise _unknown()
        return _Named(record_id, picture.image_key, sha256, stored_extension)

    async def own(self, request: Request) -> Response:
        """To the picture's address, for its owner."""
        caller = await self._verifier.of_headers(request.headers.get("authorization"))
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


def _streamed(stored: Stored, content_type: str, headers: dict[str, str]) -> Response:
    return StreamingResponse(
        stored.chunks, media_type=content_type, headers={**headers, "Content-Length": str(stored.size)}
    )


def _unknown() -> Refused:
    return Refused(404, "not_found", "There is no such picture.")

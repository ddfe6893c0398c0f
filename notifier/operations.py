"""What `/openapi.json` says of this process."""

from notifier.history import ATTEMPTS, SCENE_PICTURES
from notifier.pictures import FILE, OWN_FILE, THUMBNAIL
from notifier.routes import CHAPTER_IMAGES, RECORD, SCENE_STATUS
from notifier.shares import SHARE
from notifier.streams import CHAPTER_EVENTS
from schemas.history import ImageAttempts, ScenePictures
from schemas.shares import Share
from schemas.statuses import ChapterImages, ImageStatus, SceneStatus
from web.openapi import CHAPTER_ID, RECORD_ID, SCENE_NUMBER, Answer, Operation, Parameter

_IF_NONE_MATCH = Parameter("If-None-Match", "header", "the ETag of the answer you have")
_PREFER = Parameter(
    "Prefer",
    "header",
    "`wait=N`: hold the answer for up to N seconds (60 at most) until there is news",
    {"type": "string", "examples": ["wait=25"]},
)
_HEADERS = {
    "ETag": "weak while the record waits or says how long it will take yet",
    "Preference-Applied": "`wait=N`, where the answer could be held",
}
_NOT_MODIFIED = Answer("nothing new", headers=_HEADERS)
_PICTURE_HEADERS = {"ETag": "the content's hash", "Cache-Control": "kept for ever: the address names the content"}

DESCRIPTION = (
    "Each person sees what they asked for. Changes are also pushed, over the WebSocket `/ws` with the subprotocol "
    "`scenewire.v1+json` or as server-sent events: the frames are described in `docs/asyncapi.yaml`. Pictures are "
    "requested from the producer."
)

OPERATIONS: tuple[Operation, ...] = (
    Operation(
        "get",
        SCENE_STATUS,
        "getSceneImageStatus",
        "The status of a scene's newest request, and the picture to show meanwhile",
        {200: Answer("the status", SceneStatus, headers=_HEADERS), 304: _NOT_MODIFIED},
        description=(
            "With `Prefer: wait=N` the answer is held until the ETag differs from If-None-Match or, without that "
            "header, until the newest request has ended."
        ),
        parameters=(CHAPTER_ID, SCENE_NUMBER, _IF_NONE_MATCH, _PREFER),
        problems=(401, 403, 404, 422, 503),
    ),
    Operation(
        "get",
        CHAPTER_IMAGES,
        "getChapterImages",
        "The newest and the shown image of each scene of a chapter",
        {200: Answer("the images", ChapterImages, headers=_HEADERS), 304: _NOT_MODIFIED},
        description=(
            "With a cursor only what changed since, where that is known (`resumed` is `memory` or `log`), else all. "
            "With `Prefer: wait=N` too the answer is held until there is something newer than the cursor."
        ),
        parameters=(
            CHAPTER_ID,
            Parameter("cursor", "query", "opaque; of an earlier answer or frame", {"type": "string"}),
            _IF_NONE_MATCH,
            _PREFER,
        ),
        problems=(401, 403, 422, 503),
    ),
    Operation(
        "get",
        CHAPTER_EVENTS,
        "streamChapterEvents",
        "What happens in a chapter, as server-sent events",
        {200: Answer("messages, until the token lapses or the notifier stops", media_type="text/event-stream")},
        description=(
            "Each message's `event` is a type of frame (`snapshot`, `status`, `end`, `cursor`, `bye`), its `data` that "
            "frame as a socket is sent it (`docs/asyncapi.yaml`), its `id` the cursor. A comment comes every 20 s. "
            "Read it with fetch: an EventSource cannot send the token."
        ),
        parameters=(CHAPTER_ID, Parameter("Last-Event-ID", "header", "opaque; the `id` or cursor to go on from")),
        problems=(401, 403, 422, 503),
    ),
    Operation(
        "get",
        RECORD,
        "getImage",
        "The status of one image generation",
        {200: Answer("the status", ImageStatus, headers=_HEADERS), 304: _NOT_MODIFIED},
        parameters=(RECORD_ID, _IF_NONE_MATCH, _PREFER),
        problems=(401, 404, 422, 503),
    ),
    Operation(
        "post",
        SHARE,
        "shareChapter",
        "A token with which others may watch one's chapter",
        {200: Answer("the token", Share, headers={"Cache-Control": "`no-store`"})},
        description=(
            "It shows this chapter as you see it, on the addresses above and on `/ws`, for 15 minutes "
            "(`SCENEWIRE_SHARE_LIFE`), and nothing else: not your other chapters, not `mine`. It changes nothing and "
            "cannot be shared on. For a page of another service: that asks with its own server for a new one in time."
        ),
        parameters=(CHAPTER_ID,),
        problems=(401, 403, 422, 503),
    ),
    Operation(
        "get",
        ATTEMPTS,
        "getImageAttempts",
        "The calls of the provider that one image generation took",
        {200: Answer("the calls", ImageAttempts)},
        description="Prompts and prices are their owner's: a share token does not show them.",
        parameters=(RECORD_ID,),
        problems=(401, 403, 404, 422, 503),
    ),
    Operation(
        "get",
        SCENE_PICTURES,
        "getScenePictures",
        "The pictures that a scene has had",
        {200: Answer("its completed images", ScenePictures)},
        parameters=(CHAPTER_ID, SCENE_NUMBER),
        problems=(401, 403, 422, 503),
    ),
    Operation(
        "get",
        FILE,
        "getPicture",
        "A stored picture, by its signed address",
        {
            200: Answer("the bytes as the provider gave them", media_type="image/*", headers=_PICTURE_HEADERS),
            304: Answer("as you have it", headers=_PICTURE_HEADERS),
        },
        description="`name` is a signature and the extension, as in `image_url`: who has the address may see it.",
        parameters=(
            RECORD_ID,
            Parameter("name", "path", "the last part of `image_url`", {"type": "string"}, required=True),
            _IF_NONE_MATCH,
        ),
        problems=(404, 503),
        bearer=False,
    ),
    Operation(
        "get",
        THUMBNAIL,
        "getThumbnail",
        "A stored picture, 480 pixels wide, by its signed address",
        {
            200: Answer("a WebP", media_type="image/webp", headers=_PICTURE_HEADERS),
            304: Answer("as you have it", headers=_PICTURE_HEADERS),
            307: Answer(
                "the picture itself, where its kind cannot be opened here", headers={"Location": "its address"}
            ),
        },
        description=(
            "Made when it is first asked for. `name` is as in `thumbnail_url`. Code `no_thumbnail`: nothing smaller "
            "can be made of this picture, show it whole."
        ),
        parameters=(
            RECORD_ID,
            Parameter("name", "path", "the last part of `thumbnail_url`", {"type": "string"}, required=True),
            _IF_NONE_MATCH,
        ),
        problems=(404, 503),
        bearer=False,
    ),
    Operation(
        "get",
        OWN_FILE,
        "getOwnPicture",
        "To the address of one's own picture",
        {307: Answer("the picture's address", headers={"Location": "the signed address"})},
        parameters=(RECORD_ID,),
        problems=(401, 403, 404, 422, 503),
    ),
)

"""Status events as the outbox writes them, for tests of what reads them."""

import json
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

START = datetime(2026, 1, 1, tzinfo=UTC)


def status(
    user: UUID, chapter: UUID | None, scene: int | None = 1, *, record: UUID | None = None, age: int = 0, **changes: Any
) -> dict[str, Any]:
    """An ImageStatus; `age` is how many seconds after the others it was requested."""
    record = record or uuid4()
    return {
        "record_id": str(record),
        "task_id": str(record),
        "user_id": str(user),
        "chapter_id": None if chapter is None else str(chapter),
        "script_id": None,
        "scene_number": scene,
        "image_type": "scene",
        "status": "in_progress",
        "stage": "generating",
        "progress": 40,
        "version": 1,
        "attempt": 1,
        "retry_count": 0,
        "retry_at": None,
        "queue_position": None,
        "eta_seconds": None,
        "image_url": None,
        "model_id": None,
        "error_class": None,
        "error_code": None,
        "error_message": None,
        "created_at": (START + timedelta(seconds=age)).isoformat(),
        "updated_at": START.isoformat(),
        "completed_at": None,
        **changes,
    }


def event(data: dict[str, Any]) -> bytes:
    """The CloudEvent around it."""
    envelope = {
        "specversion": "1.0",
        "id": str(uuid4()),
        "source": "/scenewire/test",
        "type": "scene-images.status.v1",
        "subject": data["record_id"],
        "time": START.isoformat(),
        "datacontenttype": "application/json",
        "sequence": str(data["version"]),
        "partitionkey": data["chapter_id"],
        "traceparent": None,
        "data": data,
    }
    return json.dumps(envelope).encode()

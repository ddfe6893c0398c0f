"""What both consumers do with a completed picture: keep a file per chapter that says which picture each scene has.

    <folder>/<chapter_id>.json    {"7": {"record_id": ..., "version": 5, "created_at": ..., "image_url": ...}, ...}

Kafka delivers at least once, so an event may come again, and late. Hence nothing is counted or appended: what an event
says takes its scene's place only if it is newer than what stands there. Any number of repetitions, in any order, leave
the same file. Among requests for one scene the newest wins, by (created_at, record_id); within one record the version.

A file suits one reader on one machine. In a database the same rule is one statement, which any number may run:

    INSERT INTO scene_pictures (chapter_id, scene_number, created_at, record_id, version, image_url)
    VALUES ($1, $2, $3, $4, $5, $6)
    ON CONFLICT (chapter_id, scene_number) DO UPDATE SET created_at = excluded.created_at,
        record_id = excluded.record_id, version = excluded.version, image_url = excluded.image_url
    WHERE (scene_pictures.created_at, scene_pictures.record_id, scene_pictures.version)
        < (excluded.created_at, excluded.record_id, excluded.version)
"""

import json
import logging
import os
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any
from uuid import UUID

log = logging.getLogger("examples")

COMPLETED = "scene-images.completed.v1"


@dataclass(frozen=True)
class Picture:
    """What is read of an event. Within a topic's version fields are only added: others are passed over."""

    chapter_id: UUID
    scene_number: int
    created_at: datetime
    record_id: UUID
    version: int
    image_url: str

    @property
    def age(self) -> tuple[datetime, str, int]:
        """What is greater is newer."""
        return self.created_at, str(self.record_id), self.version


def read(value: bytes) -> Picture | None:
    """The picture in a CloudEvent; None for one that is no scene's. Raises ValueError, KeyError or TypeError for what
    cannot be read."""
    event = json.loads(value)
    if event["specversion"] != "1.0" or event["type"] != COMPLETED:
        raise ValueError("it is no completed event of version 1")
    data = event["data"]
    if data["image_type"] != "scene" or data["chapter_id"] is None or data["scene_number"] is None:
        return None
    return Picture(
        # as a UUID it is also safe as the name of a file
        chapter_id=UUID(data["chapter_id"]),
        scene_number=int(data["scene_number"]),
        created_at=datetime.fromisoformat(data["created_at"]),
        record_id=UUID(data["record_id"]),
        version=int(data["version"]),
        image_url=str(data["image_url"]),
    )


class ChapterIndex:
    def __init__(self, folder: Path) -> None:
        self._folder = folder
        folder.mkdir(parents=True, exist_ok=True)

    def keep(self, values: Iterable[bytes]) -> int:
        """Take in a batch of events; on the disk when this returns. How many changed something.

        An event that cannot be read is logged and passed over: it would stop all that come after it, and be no better
        the next time. Raises OSError when the files cannot be written: then the batch is to be tried again.
        """
        changed = 0
        chapters: dict[UUID, list[Picture]] = {}
        for value in values:
            try:
                picture = read(value)
            except (ValueError, KeyError, TypeError, RecursionError) as error:
                log.warning("passed over an event that cannot be read: %s", type(error).__name__)
                continue
            if picture is not None:
                chapters.setdefault(picture.chapter_id, []).append(picture)
        for chapter_id, pictures in chapters.items():
            scenes = self.scenes(chapter_id)
            before = changed
            for picture in pictures:
                known = scenes.get(str(picture.scene_number))
                if known is None or _age(known) < picture.age:
                    scenes[str(picture.scene_number)] = _entry(picture)
                    changed += 1
            if changed > before:
                self._write(chapter_id, scenes)
        return changed

    def scenes(self, chapter_id: UUID) -> dict[str, Any]:
        """The chapter's file; empty where there is none."""
        try:
            scenes: dict[str, Any] = json.loads(self._path(chapter_id).read_bytes())
        except FileNotFoundError:
            return {}
        return scenes

    def _write(self, chapter_id: UUID, scenes: dict[str, Any]) -> None:
        path = self._path(chapter_id)
        unfinished = path.with_suffix(".new")
        with unfinished.open("w", encoding="utf-8") as file:
            json.dump(dict(sorted(scenes.items(), key=lambda scene: int(scene[0]))), file, indent=1)
            file.flush()
            # the offset is committed next: what it vouches for must not be lost with the machine
            os.fsync(file.fileno())
        # whole or not at all, whoever reads it meanwhile
        unfinished.replace(path)

    def _path(self, chapter_id: UUID) -> Path:
        return self._folder / f"{chapter_id}.json"


def _entry(picture: Picture) -> dict[str, Any]:
    return {
        "record_id": str(picture.record_id),
        "version": picture.version,
        "created_at": picture.created_at.isoformat(),
        "image_url": picture.image_url,
    }


def _age(entry: dict[str, Any]) -> tuple[datetime, str, int]:
    return datetime.fromisoformat(entry["created_at"]), entry["record_id"], entry["version"]

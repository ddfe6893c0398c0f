"""What docs/migrating.md tells people to run does what it says, on the whole line."""

import asyncio
import os
import re
import sys
from pathlib import Path
from typing import Any
from uuid import uuid4

import asyncpg
import httpx
import pytest

from local.postgres import program

pytestmark = pytest.mark.flow

_CHECKOUT = Path(__file__).resolve().parents[2]
_PAPER = (_CHECKOUT / "docs" / "migrating.md").read_text(encoding="utf-8")
_LOST = """
INSERT INTO image_generations (id, user_id, status, scene_description, chapter_id, scene_number, metadata)
VALUES ($1, $2, 'pending', 'a long table under a tree', NULL, NULL, $3),
    ($4, $2, 'in_progress', 'the Queen''s "croquet" ground', $5, 2, '{}')"""


def _block(kind: str, having: str) -> str:
    (found,) = [text for text in re.findall(rf"```{kind}\n(.*?)```", _PAPER, re.DOTALL) if having in text]
    return str(found)


async def test_what_celery_lost_is_asked_for_again_and_only_once(line: dict[str, Any]) -> None:
    old = await asyncpg.connect(line["database"])
    chapter, user, lost = str(uuid4()), line["user_id"], [uuid4(), uuid4()]
    try:
        metadata = f'{{"chapter_id": "{chapter}", "scene_number": 1}}'
        await old.execute(_LOST, lost[0], user, metadata, lost[1], chapter)
        # left behind long ago: nobody waits for it
        await old.execute(
            "INSERT INTO image_generations (id, user_id, status, chapter_id, scene_number, created_at) "
            "VALUES (gen_random_uuid(), $1, 'pending', $2, 3, now() - interval '30 days')",
            user,
            chapter,
        )
        tools = [str(Path(sys.executable).parent), str(program("psql").parent), os.environ["PATH"]]
        environment = {
            **os.environ,
            "PATH": os.pathsep.join(tools),
            "SCENEWIRE_DATABASE_URL": line["database"],
            "SCENEWIRE_KAFKA_SERVERS": line["kafka"],
        }
        said: list[list[str]] = []
        for _ in range(2):
            asking = await asyncio.create_subprocess_exec(
                *("bash", "-euo", "pipefail", "-c", _block("sh", "examples.request_scene")),
                cwd=_CHECKOUT,
                env=environment,
                stdout=asyncio.subprocess.PIPE,
            )
            output, _ = await asking.communicate()
            assert asking.returncode == 0
            said.append(sorted(output.decode().split()))
        assert said[0] == said[1]
        assert len(said[0]) == 2
        ended = await old.execute(_block("sql", "Lost by the old system"))
        assert ended == "UPDATE 3"

        async with httpx.AsyncClient(base_url=line["push"], timeout=70) as http:
            for scene in (1, 2):
                answer = await http.get(
                    f"/chapters/{chapter}/images/scenes/{scene}/status",
                    headers={"Authorization": f"Bearer {line['token']}", "Prefer": "wait=60"},
                )
                status = answer.json()
                assert (status["status"], status["attempt"], status["record_id"] in said[0]) == ("completed", 1, True)
        again = await old.fetch(
            "SELECT scene_description FROM image_generations WHERE chapter_id = $1 AND lane IS NOT NULL", chapter
        )
        assert sorted(row[0] for row in again) == ["a long table under a tree", 'the Queen\'s "croquet" ground']
        left = await old.fetchval(_block("sql", "SELECT count(*) FROM image_generations WHERE lane IS NOT NULL AND"))
        assert isinstance(left, int)
    finally:
        await old.close()

"""`make demo` on the whole line, as a person starts it."""

import asyncio
import json
import sys
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.flow

_DEADLINE = 120.0  # seconds


async def test_the_demo_brings_seven_pictures_and_a_poll_that_agrees(line: dict[str, Any], tmp_path: Path) -> None:
    ready_file = tmp_path / "ready.json"
    ready_file.write_text(json.dumps(line))
    demo = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "local.demo", "--ready-file", str(ready_file), "--timeout", "100"),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    async with asyncio.timeout(_DEADLINE):
        output, _ = await demo.communicate()
    said = output.decode()
    assert demo.returncode == 0, said
    for number in range(1, 8):
        assert f"scene {number}: {line['push']}/images/" in said
    assert "7 of 7 pictures" in said
    assert "the same answer as the push" in said

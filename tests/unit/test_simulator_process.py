"""The simulator as the process it is run as: one socket, real resets, a clean end."""

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

ROOT = Path(__file__).parents[2]
KEY = "process-key-0123456789"


def start(*options: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "local.modelslab", *options],
        cwd=ROOT,
        env={**os.environ, "SCENEWIRE_SIMULATOR_KEY": KEY},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


@pytest.fixture
def process() -> Iterator[subprocess.Popen[str]]:
    started = start("--port", "0", "--profile", "instant")
    yield started
    started.kill()
    started.communicate()


def test_the_process(process: subprocess.Popen[str]) -> None:
    assert process.stdout is not None
    said = process.stdout.readline()
    found = re.search(r"http://127\.0\.0\.1:(\d+)", said)
    assert found is not None, said
    with httpx.Client(base_url=found[0], timeout=30) as http:
        assert http.get("/readyz").status_code == 200
        body = {"key": KEY, "model_id": "flux", "prompt": "a hare"}
        done = http.post("/api/v7/images/text-to-image", json=body).json()
        assert done["output"][0].startswith(found[0])
        http.put("/simulator/script", json={"rules": [{"action": {"answer": "reset"}}]})
        with pytest.raises(httpx.ReadError):
            http.post("/api/v7/images/text-to-image", json=body)
        second = start("--port", found[1])
        assert "Cannot listen on" in second.communicate(timeout=30)[0]
        assert second.returncode == 1
    process.send_signal(signal.SIGTERM)
    rest = process.communicate(timeout=30)[0]
    assert process.returncode == 0
    assert KEY not in said + rest
    assert "Traceback" not in rest


def test_make_run_chooses_the_profile_and_an_unknown_one_is_one_clear_line(tmp_path: Path) -> None:
    recipe = subprocess.run(
        ["make", "-n", "run", "PROFILE=bad-day"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout
    assert "SCENEWIRE_SIMULATOR_PROFILE='bad-day' exec" in recipe
    refused = subprocess.run(
        [sys.executable, "-m", "local", "--state", str(tmp_path / "state")],
        cwd=ROOT,
        env={**os.environ, "SCENEWIRE_SIMULATOR_PROFILE": "sunny"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert refused.returncode == 2
    said = refused.stderr.splitlines()[-1]
    assert said.endswith("PROFILE=...) is 'sunny'; write one of calm, busy, bad-day, instant")
    assert not (tmp_path / "state").exists()

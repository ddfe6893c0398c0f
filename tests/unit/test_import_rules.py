"""Each import rule is broken once on purpose: a contract that never fails keeps nothing."""

import configparser
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
RULES = configparser.ConfigParser()
RULES.read(ROOT / ".importlinter")
ROOMS = RULES["importlinter"]["root_packages"].split()

# contract -> a module that may not import this
BROKEN = {
    "rooms": ("telemetry/logs.py", "import storage.tables"),
    "processes": ("producer/routes.py", "import consumer.prompts"),
    "outside-things": ("media/keys.py", "import messaging.names"),
    "schemas": ("schemas/words.py", "import httpx"),
    "sql": ("notifier/hub.py", "import asyncpg"),
    "kafka": ("producer/routes.py", "from aiokafka import AIOKafkaProducer"),
    "bytes": ("consumer/pictures.py", "import obstore"),
    "nobody": ("producer/routes.py", "import tests.conftest"),
    "examples": ("examples/chapter_index.py", "import schemas.topics"),
    "producer-floors": ("producer/settings.py", "import producer.routes"),
    "consumer-floors": ("consumer/verdicts.py", "import consumer.generation"),
    "notifier-floors": ("notifier/hub.py", "import notifier.sockets"),
}


def contracts() -> list[str]:
    return [section.rpartition(":")[2] for section in RULES.sections() if section.startswith("importlinter:contract:")]


def lint(folder: Path, contract: str) -> subprocess.CompletedProcess[str]:
    script = "import sys; sys.path.insert(0, '.'); from importlinter.cli import lint_imports_command as run; run()"
    options = ["--no-cache", "--config", str(ROOT / ".importlinter"), "--contract", contract]
    return subprocess.run(
        [sys.executable, "-c", script, *options], cwd=folder, capture_output=True, text=True, check=False
    )


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The rooms, in a folder where they may be spoiled."""
    folder = tmp_path_factory.mktemp("rooms")
    for room in ROOMS:
        shutil.copytree(ROOT / room, folder / room, ignore=lambda _, names: {n for n in names if n == "__pycache__"})
    return folder


def test_every_rule_is_broken_here() -> None:
    assert sorted(BROKEN) == sorted(contracts())


@pytest.mark.parametrize("contract", contracts())
def test_a_rule_catches_who_breaks_it(contract: str, checkout: Path) -> None:
    name, line = BROKEN[contract]
    module = checkout / name
    before = module.read_text()
    try:
        module.write_text(f"{before}\n{line}\n")
        done = lint(checkout, contract)
    finally:
        module.write_text(before)
    assert done.returncode == 1, done.stdout + done.stderr
    assert "BROKEN" in done.stdout


def test_a_file_without_a_floor_is_caught(checkout: Path) -> None:
    module = checkout / "producer" / "newcomer.py"
    module.touch()
    try:
        done = lint(checkout, "producer-floors")
    finally:
        module.unlink()
    assert done.returncode == 1
    assert "newcomer" in done.stdout

"""The statements and names of docs/migrating.md are today's."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from local.postgres import Postgres

_CHECKOUT = Path(__file__).resolve().parents[2]
_PAPER = (_CHECKOUT / "docs" / "migrating.md").read_text(encoding="utf-8")


@pytest.mark.connected
def test_every_statement_runs(postgres: Postgres, database_url: str) -> None:
    statements = re.findall(r"```sql\n(.*?)```", _PAPER, re.DOTALL)
    statements += re.findall(r"`(SELECT [^`]+)`", _PAPER)
    assert len(statements) >= 5
    database = database_url.split("/")[3].partition("?")[0]
    for statement in statements:
        postgres.sql(statement, database)


@pytest.mark.parametrize("module", sorted(set(re.findall(r"python -m ([\w.]+)", _PAPER))))
def test_every_command_is_there(module: str) -> None:
    asked = subprocess.run([sys.executable, "-m", module, "--help"], cwd=_CHECKOUT, capture_output=True, text=True)
    assert asked.returncode == 0, asked.stderr
    for line in _PAPER.replace("\\\n", " ").splitlines():
        if f"python -m {module} " in line:
            for option in re.findall(r" (--[a-z-]+)", line):
                assert option in asked.stdout, line


def test_the_module_for_old_pages_has_these_functions() -> None:
    source = (_CHECKOUT / "client" / "src" / "compat.ts").read_text(encoding="utf-8")
    for name in (
        "useSceneImages",
        "generateSceneImage",
        "getSceneImageStatus",
        "startPollingSceneImage",
        "onStatus",
        "reload",
    ):
        assert re.search(rf"\b{name}\b", source), name
        assert f"`{name}" in _PAPER or f"{name}(" in _PAPER or f"{name}," in _PAPER or f"{name}:" in _PAPER

"""The statements of docs/runbook.md run on today's tables."""

import re
from pathlib import Path
from uuid import uuid4

import pytest

from local.postgres import Postgres

pytestmark = pytest.mark.connected

_RUNBOOK = Path(__file__).resolve().parents[2] / "docs" / "runbook.md"


def test_every_statement_runs(postgres: Postgres, template_database: str, database_url: str) -> None:
    statements = re.findall(r"```sql\n(.*?)```", _RUNBOOK.read_text(encoding="utf-8"), re.DOTALL)
    assert len(statements) >= 3
    database = database_url.split("/")[3].partition("?")[0]
    assert database != template_database
    for statement in statements:
        postgres.sql(statement.replace("'...'", f"'{uuid4()}'"), database)

"""Bring the database to today's tables: `python -m storage.migrate`."""

import asyncio
from pathlib import Path

import asyncpg
from alembic import command
from alembic.config import Config
from sqlalchemy import Connection, NullPool
from sqlalchemy.ext.asyncio import create_async_engine

from storage.settings import DatabaseSettings
from storage.tables import metadata

METADATA = metadata
VERSION_TABLE = "scenewire_alembic_version"


async def migrate(database_url: str) -> None:
    """Run all migrations that are missing."""
    engine = create_async_engine(
        "postgresql+asyncpg://", async_creator=lambda: asyncpg.connect(database_url), poolclass=NullPool
    )
    async with engine.connect() as connection:
        await connection.run_sync(_upgrade)
    await engine.dispose()


def _upgrade(connection: Connection) -> None:
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
    config.attributes["connection"] = connection
    command.upgrade(config, "head")


if __name__ == "__main__":
    asyncio.run(migrate(DatabaseSettings().database_url))

"""Bringing a database up to the tables of this version.

Rule: one process at a time does it, the others wait for it; all of it or nothing. Alembic is imported only
where something is to be done.
"""

from __future__ import annotations

from pathlib import Path

from sqlalchemy import Connection, Engine, inspect, text

from gateway.settings import ConfigError
from gateway.store.engine import reading, writing
from gateway.store.tables import metadata

HEAD = "001"  # the newest migration; a test compares
LOCK = 0x6D676174  # of PostgreSQL's advisory locks
PATIENCE = 600.0  # seconds for all migrations


def prepare(engine: Engine) -> None:
    """Create or update the tables; returns at once where that was done.

    Raises ``ConfigError`` for a database of a newer version, and SQLAlchemy's errors if it cannot be reached.
    """
    with reading(engine) as connection:
        if revision(connection) == HEAD:
            return
    with writing(engine, PATIENCE) as connection:
        if connection.dialect.name == "postgresql":
            connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": LOCK})
        _upgrade(connection)


def make(engine: Engine) -> None:
    """The tables in a new database, as ``prepare`` leaves them, without the time that Alembic takes."""
    with writing(engine) as connection:
        metadata.create_all(connection)
        connection.execute(
            text("CREATE TABLE alembic_version (version_num VARCHAR(32) PRIMARY KEY NOT NULL)")
        )
        connection.execute(text("INSERT INTO alembic_version VALUES (:head)"), {"head": HEAD})


def revision(connection: Connection) -> str | None:
    """The newest migration that this database has seen; None for an empty one."""
    if not inspect(connection).has_table("alembic_version"):
        return None
    return connection.execute(text("SELECT version_num FROM alembic_version")).scalar()


def _upgrade(connection: Connection) -> None:
    from alembic import command
    from alembic.config import Config
    from alembic.util import CommandError

    config = Config()
    folder = str(Path(__file__).parent / "migrations")
    config.set_main_option("script_location", folder.replace("%", "%%"))
    config.set_main_option("path_separator", "newline")
    config.attributes["connection"] = connection
    try:
        command.upgrade(config, "head")
    except CommandError:
        raise ConfigError("store.url: the database was made by a newer version of modal-gateway") from None

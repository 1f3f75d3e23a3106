"""Rows into the database: once each, and their sums with them.

Rule: whatever happens, a row and what it adds to ``hours`` and ``days`` are in the database together or not
at all; a row whose id is there already adds nothing. Synchronous. Knows nothing about files.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

import orjson
from sqlalchemy import JSON, Connection, Engine, Table, TextClause, delete, func, select, text
from sqlalchemy.dialects import postgresql, sqlite

from gateway.ledger.rows import COLUMNS, CONTENT, DAY, HOUR, ID, Bucket, Row, sums, wider
from gateway.store.engine import writing
from gateway.store.tables import SUMS, days, hours, requests

SWEEP = 1000  # rows removed in one transaction


def book(engine: Engine, rows: Sequence[Row]) -> None:
    """Insert what is not there yet, in one transaction. Raises SQLAlchemy's errors."""
    with writing(engine) as connection:
        new = _inserted(connection, rows)
        fresh = {row[ID]: row for row in reversed(rows) if row[ID] in new}  # of the same id the first counts
        by_hour = sums(fresh.values(), HOUR)
        _add(connection, hours, by_hour)
        _add(connection, days, wider(by_hour, DAY))


def sweep(engine: Engine, before: int) -> bool:
    """Remove some rows and hours older than ``before``, in milliseconds; true if more are left.

    The sums of days stay.
    """
    with writing(engine) as connection:
        old = select(requests.c.id).where(requests.c.time < before).limit(SWEEP)
        gone = connection.execute(delete(requests).where(requests.c.id.in_(old))).rowcount
        if gone >= SWEEP:
            return True
        oldest = connection.execute(select(func.min(hours.c.bucket))).scalar()
        if oldest is None or oldest >= before:
            return False
        connection.execute(delete(hours).where(hours.c.bucket < min(before, oldest + DAY)))
        return True


def _inserted(connection: Connection, rows: Sequence[Row]) -> set[str]:
    """Ids of the rows that were not there."""
    if connection.dialect.name == "sqlite":
        return _into_sqlite(connection, rows)
    given = {"rows": orjson.dumps(rows).decode()}
    return {id for (id,) in connection.execute(_insert(), given).fetchall()}


def _into_sqlite(connection: Connection, rows: Sequence[Row]) -> set[str]:
    """Nobody else writes before this transaction ends, so what is not there now is new."""
    wanted = [row[ID] for row in rows]
    known = "SELECT id FROM requests WHERE id IN (SELECT value FROM json_each(?))"
    found = connection.exec_driver_sql(known, (orjson.dumps(wanted).decode(),)).fetchall()
    values = ", ".join("?" * len(COLUMNS))
    connection.exec_driver_sql(
        f"INSERT INTO requests ({', '.join(COLUMNS)}) VALUES ({values}) ON CONFLICT DO NOTHING",
        [tuple(row if row[CONTENT] is None else _with_text(row)) for row in rows],
    )
    return set(wanted) - {id for (id,) in found}


def _with_text(row: Row) -> list[Any]:
    return [*row[:CONTENT], orjson.dumps(row[CONTENT]).decode(), *row[CONTENT + 1 :]]


@cache
def _insert() -> TextClause:
    """For PostgreSQL: all rows are one parameter, which it takes apart itself."""
    values = ", ".join(_taken(at, name) for at, name in enumerate(COLUMNS))
    return text(
        f"INSERT INTO requests ({', '.join(COLUMNS)}) SELECT {values} "
        "FROM json_array_elements(CAST(:rows AS json)) AS given(value) ON CONFLICT DO NOTHING RETURNING id"
    )


def _taken(at: int, name: str) -> str:
    kind = requests.c[name].type
    if isinstance(kind, JSON):
        return f"CAST(NULLIF(CAST(value -> {at} AS text), 'null') AS json)"
    return f"CAST(value ->> {at} AS {kind})"


def _add(connection: Connection, table: Table, totals: Mapping[Bucket, Sequence[Any]]) -> None:
    """Add to these sums, in one order for all processes, so that two never wait for each other."""
    given = [
        dict(zip(("bucket", "key_id", "team", "model", "key_name", *SUMS), (*bucket, *total), strict=True))
        for bucket, total in sorted(totals.items())
    ]
    if not given:
        return
    dialect = sqlite if connection.dialect.name == "sqlite" else postgresql
    insert = dialect.insert(table)
    grown = {name: table.c[name] + insert.excluded[name] for name in SUMS}
    connection.execute(
        insert.on_conflict_do_update(
            index_elements=["bucket", "key_id", "team", "model"],
            set_={**grown, "key_name": insert.excluded.key_name},
        ),
        given,
    )

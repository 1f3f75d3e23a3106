"""Keys in the database.

Rule: every change takes the next revision, one after the other, so that who has seen revision n has seen all
before it. A key is never deleted: the ledger goes on naming it. Synchronous, for threads that are not the
event loop's; raises SQLAlchemy's errors where the database cannot be reached.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any

from sqlalchemy import JSON, Connection, Engine, Row, Text, cast, func, insert, or_, select, text, update

from gateway.keys.key import Grant, Key, KeyExists, NoSuchKey, SpoiltKey
from gateway.store.engine import reading, writing
from gateway.store.tables import keys

log = logging.getLogger("gateway")


def add(engine: Engine, key: Key) -> Key:
    """Raises ``KeyExists``."""
    with _changing(engine) as connection:
        _refuse_twin(connection, key)
        written = replace(key, revision=_next(connection))
        connection.execute(insert(keys).values(_columns(written)))
    return written


def change(engine: Engine, name: str, fields: Mapping[str, Any], now: int) -> Key:
    """Set these fields of a grant, of the key of this name or id; of its limits those that are given.

    Raises ``NoSuchKey``, ``SpoiltKey``, ``KeyExists``, or pydantic's ``ValidationError``.
    """
    with _changing(engine) as connection:
        key = _live(connection, name)
        known = key.grant.model_dump()
        if isinstance(limits := fields.get("limits"), Mapping):
            fields = {**fields, "limits": {**known["limits"], **limits}}
        grant = Grant.model_validate({**known, **fields})
        return _write(connection, replace(key, grant=grant, updated=now))


def revoke(engine: Engine, name: str, now: int) -> Key:
    """For good; its name is free again. A key that was revoked stays as it is. Raises ``NoSuchKey``."""
    with _changing(engine) as connection:
        key = _one(connection, name)
        return key if key.revoked else _write(connection, replace(key, revoked=now, updated=now))


def rotate(engine: Engine, name: str, digest: bytes, now: int) -> Key:
    """The same key with another secret; the old one ends at once. Raises ``NoSuchKey``, ``SpoiltKey``."""
    with _changing(engine) as connection:
        return _write(connection, replace(_live(connection, name), digest=digest, updated=now))


def find(engine: Engine, name: str) -> Key:
    """The key of this name or id; of a name, the one that is in use. Raises ``NoSuchKey``."""
    with reading(engine) as connection:
        return _one(connection, name)


def every(engine: Engine) -> list[Key]:
    """All keys, the oldest first."""
    with reading(engine) as connection:
        rows = connection.execute(select(*_COLUMNS).order_by(keys.c.created, keys.c.id))
        return [_key(row) for row in rows]


def since(engine: Engine, revision: int, most: int, bound: float | None = None) -> Sequence[Key]:
    """Keys that changed after this revision, in the order of their changes; the first ``most``.

    ``bound``: seconds that the database may take.
    """
    wanted = select(*_COLUMNS).where(keys.c.revision > revision).order_by(keys.c.revision).limit(most)
    with reading(engine, bound) as connection:
        return [_key(row) for row in connection.execute(wanted)]


def _one(connection: Connection, name: str) -> Key:
    wanted = select(*_COLUMNS).where(or_(keys.c.id == name, keys.c.name == name))
    found = [_key(row) for row in connection.execute(wanted)]
    meant = [key for key in found if key.id == name] or [key for key in found if key.revoked is None]
    if not meant:
        raise NoSuchKey(name)
    return meant[0]


def _live(connection: Connection, name: str) -> Key:
    key = _one(connection, name)
    if key.revoked is not None:
        raise NoSuchKey(name)
    if key.spoilt:
        raise SpoiltKey(name)
    return key


def _refuse_twin(connection: Connection, key: Key) -> None:
    named = select(keys.c.id).where(keys.c.name == key.grant.name, keys.c.id != key.id)
    same = named.where(keys.c.revoked.is_(None))
    if connection.execute(same).first() is not None:
        raise KeyExists(key.grant.name)


def _write(connection: Connection, key: Key) -> Key:
    if key.revoked is None:
        _refuse_twin(connection, key)
    written = replace(key, revision=_next(connection))
    connection.execute(update(keys).where(keys.c.id == key.id).values(_columns(written)))
    return written


@contextmanager
def _changing(engine: Engine) -> Iterator[Connection]:
    """Writers wait for each other, so that a later revision is never seen before an earlier one."""
    with writing(engine) as connection:
        if connection.dialect.name == "postgresql":
            connection.execute(text("LOCK TABLE keys IN EXCLUSIVE MODE"))
        yield connection


def _next(connection: Connection) -> int:
    return int(connection.execute(select(func.coalesce(func.max(keys.c.revision), 0))).scalar_one()) + 1


def _columns(key: Key) -> dict[str, Any]:
    fields = key.grant.model_dump(mode="json")
    expires = key.grant.expires
    return {
        **fields,
        "id": key.id,
        "digest": key.digest,
        "expires": round(expires.timestamp() * 1000) if expires else None,
        "created": key.created,
        "updated": key.updated,
        "revoked": key.revoked,
        "revision": key.revision,
    }


_JSON = frozenset(column.name for column in keys.c if isinstance(column.type, JSON))
_COLUMNS = [cast(each, Text).label(each.name) if each.name in _JSON else each for each in keys.c]
"""JSON is read here: the driver would give up the rows that follow one it cannot read."""


def _key(row: Row[Any]) -> Key:
    """One that cannot be read opens nothing, so that its neighbours do."""
    try:
        grant, spoilt = _grant(row), False
    except (ValueError, TypeError, OverflowError, OSError):  # what a date, JSON or a field can be wrong with
        _complain(row.id, row.revision)
        grant, spoilt = Grant.model_construct(name=row.name, disabled=True), True
    return Key(row.id, bytes(row.digest), grant, row.created, row.updated, row.revoked, row.revision, spoilt)


def _grant(row: Row[Any]) -> Grant:
    fields = {name: getattr(row, name) for name in Grant.model_fields}
    fields |= {name: json.loads(fields[name]) for name in _JSON}
    if row.expires is not None:
        fields["expires"] = datetime.fromtimestamp(row.expires / 1000, UTC)
    return Grant.model_validate(fields)


@lru_cache(1024)
def _complain(id: str, revision: int) -> None:
    """Once for each change of a key."""
    log.error("the key %s of the store cannot be read, so it opens nothing (change %d)", id, revision)

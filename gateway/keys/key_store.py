"""Where keys are made and changed: the store, for the command line and the admin API alike.

Rule: synchronous, for threads that are not the event loop's, of which several may call at once. Connects with
the first call, and imports SQLAlchemy with it. Whoever changes a key tells the other gateways, if there is a
way to.
"""

from __future__ import annotations

import sqlite3
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from pydantic import SecretStr

from gateway.keys.key import Grant, Key, digest_of

if TYPE_CHECKING:
    from sqlalchemy import Engine

T = TypeVar("T")


class StoreAway(Exception):
    """The database cannot be used just now; says of what kind the failure was, and nothing else.

    ``why`` is the same for people, after the database's name.
    """

    def __init__(self, kind: str, why: str | None = None) -> None:
        super().__init__(kind)
        self.why = why or f"cannot be used: {kind}"


class KeyStore:
    """Keys of the database behind ``url``; relative paths start at ``folder``. ``tell`` hears of changes.

    Every method raises ``StoreAway``, or ``ConfigError`` for a URL that is none; those that look for a key
    raise ``NoSuchKey``, those that change one ``SpoiltKey``, those that give a name ``KeyExists``.
    """

    def __init__(self, url: SecretStr | None, folder: Path, tell: Callable[[], None] | None = None) -> None:
        self._url = url
        self._folder = folder
        self._tell = tell
        self._opened: Engine | None = None
        self._opening = threading.Lock()

    def since(self, revision: int, most: int, bound: float | None = None) -> Sequence[Key]:
        """Keys that changed after this revision, in the order of their changes; the first ``most``.

        ``bound``: seconds that the database may take.
        """
        from gateway.keys import table

        return self._do(lambda engine: table.since(engine, revision, most, bound))

    def every(self) -> list[Key]:
        """All keys, the oldest first."""
        from gateway.keys import table

        return self._do(table.every)

    def find(self, name: str) -> Key:
        """The key of this name or id."""
        from gateway.keys import table

        return self._do(lambda engine: table.find(engine, name))

    def add(self, grant: Grant, secret: str) -> Key:
        """A new key."""
        from gateway.keys import table

        return self._changed(lambda engine: table.add(engine, Key.new(grant, secret, _now())))

    def change(self, name: str, fields: Mapping[str, Any]) -> Key:
        """Set these fields of its grant, of its limits those that are given.

        Raises pydantic's ``ValidationError``.
        """
        from gateway.keys import table

        return self._changed(lambda engine: table.change(engine, name, fields, _now()))

    def revoke(self, name: str) -> Key:
        """For good; its name is free again."""
        from gateway.keys import table

        return self._changed(lambda engine: table.revoke(engine, name, _now()))

    def rotate(self, name: str, secret: str) -> Key:
        """The same key with another secret; the old one ends at once."""
        from gateway.keys import table

        return self._changed(lambda engine: table.rotate(engine, name, digest_of(secret), _now()))

    def close(self) -> None:
        """Connections are given up; another call makes new ones."""
        if self._opened is not None:
            self._opened.dispose()

    def _changed(self, step: Callable[[Engine], Key]) -> Key:
        key = self._do(step)
        if self._tell is not None:
            self._tell()
        return key

    def _do(self, step: Callable[[Engine], T]) -> T:
        from sqlalchemy.exc import SQLAlchemyError

        from gateway.store.engine import Replaced

        engine: Engine | None = None
        try:
            engine = self._connected()
            return step(engine)
        except (SQLAlchemyError, OSError) as error:
            if isinstance(error, Replaced) and self._opened is engine:
                self._opened = None  # the next call opens what is there now
            raise StoreAway(type(error).__name__, trouble(error)) from None

    def _connected(self) -> Engine:
        from gateway.store.engine import open_engine
        from gateway.store.schema import prepare

        with self._opening:
            if self._opened is None:
                engine = open_engine(self._url, self._folder)
                try:
                    prepare(engine)
                except BaseException:
                    engine.dispose()
                    raise
                self._opened = engine
            return self._opened


def trouble(error: Exception) -> str | None:
    """Why a database failed, for people, where its driver says so; ``error`` is SQLAlchemy's."""
    from sqlalchemy.exc import OperationalError

    if not isinstance(error, OperationalError):
        return None
    driver = error.orig
    if isinstance(driver, sqlite3.Error):
        locked = driver.sqlite_errorcode & 0xFF in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)
        return "is locked by another process" if locked else None
    if getattr(driver, "sqlstate", None) is not None:
        return None
    return "refuses the connection" if "FATAL" in str(driver) else "does not answer"


def _now() -> int:
    """Milliseconds since 1970."""
    return round(time.time() * 1000)

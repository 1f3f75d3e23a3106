"""One database behind a URL: SQLite or PostgreSQL, as a SQLAlchemy engine.

Rule: synchronous, for threads that are not the event loop's. A wait for a lock, a connection, a server or an
answer has a bound, even if a server takes a connection and then says nothing; what SQLite writes takes the
time that it takes. Errors name no parameter and no password. Knows no table.
"""

from __future__ import annotations

import os
import socket
import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pydantic import SecretStr
from sqlalchemy import URL, Connection, Engine, create_engine, event, make_url
from sqlalchemy.exc import ArgumentError, SQLAlchemyError

from gateway.settings import ConfigError

BUSY = 5.0  # seconds for a lock, a connection, a place in the pool
AGAIN = 0.01  # seconds until a lock that SQLite does not wait for is asked for again
SILENCE = 30.0  # seconds for a transaction of a server elsewhere, or a question to SQLite
STOP = 0.1  # seconds until SQLite is stopped again, if it was between two statements
POOL = 4  # connections of one process
HIDDEN = ("password", "sslpassword")  # options that an engine would show


class NoDatabase(ConfigError):
    """The file is not there yet."""


class Replaced(SQLAlchemyError):
    """The path leads to another SQLite file than the engine was opened for, or to none: open it again."""


def open_engine(url: SecretStr | None, folder: Path, *, create: bool = True) -> Engine:
    """The engine for ``store.url``; a relative SQLite path starts at ``folder``. Connects to nothing yet.

    Raises ``ConfigError`` for a URL that is none of ours; without ``create``, ``NoDatabase`` for a file that
    is not there.
    """
    parsed = _parsed(url)
    if parsed.get_backend_name() == "sqlite":
        return _sqlite(parsed, folder, create=create)
    if parsed.drivername == "postgresql":
        parsed = parsed.set(drivername="postgresql+psycopg")
    secret = {name: parsed.query[name] for name in HIDDEN if name in parsed.query}
    parsed = parsed.difference_update_query(HIDDEN)
    try:
        return create_engine(
            parsed,
            hide_parameters=True,
            pool_size=POOL,
            max_overflow=0,
            pool_timeout=BUSY,
            connect_args={"connect_timeout": int(BUSY), "application_name": "modal-gateway", **secret},
        )
    except ModuleNotFoundError:
        message = "store.url: PostgreSQL needs its driver: pip install 'modal-gateway[postgres]'"
        raise ConfigError(message) from None


def shown(url: SecretStr | None) -> str:
    """The database for people: kind, host and name, without user, password and options."""
    parsed = _parsed(url)
    if parsed.get_backend_name() == "sqlite":
        return f"SQLite {parsed.database}"
    return f"PostgreSQL {parsed.host or 'here'}/{parsed.database or ''}"


@contextmanager
def writing(engine: Engine, bound: float | None = None) -> Iterator[Connection]:
    """A transaction that writes: committed at the end, rolled back when the block raises.

    SQLite takes its one lock at once: a transaction that first read could not get it any more after another
    one wrote. After ``bound`` seconds, or ``SILENCE``, the connection to a server is cut: the block raises.
    Raises ``Replaced``, also at the end: then nothing was written to the file that is there now.
    """
    with (
        _connected(engine).execution_options(writes=True) as connection,
        _bounded(connection, bound),
        connection.begin(),
    ):
        yield connection
    unmoved(engine)


@contextmanager
def reading(engine: Engine, bound: float | None = None) -> Iterator[Connection]:
    """A transaction that sees one state of the database; ``bound`` as with ``writing``, for SQLite too."""
    with _connected(engine) as connection, _bounded(connection, bound), _stopped(connection, bound):
        yield connection


def _parsed(url: SecretStr | None) -> URL:
    if url is None:
        raise ConfigError("store.url is null, so there are no keys and no ledger in a database")
    try:
        parsed = make_url(url.get_secret_value())
        name = parsed.get_backend_name()
    except (ArgumentError, ValueError):
        name = ""
    if name not in ("sqlite", "postgresql"):
        raise ConfigError("store.url: must begin with sqlite:/// or postgresql://")
    return parsed


def _sqlite(url: URL, folder: Path, *, create: bool) -> Engine:
    if not url.database or url.database == ":memory:" or url.database.startswith("file:"):
        raise ConfigError("store.url: SQLite needs the path of a file, as in sqlite:///gateway.db")
    path = folder / url.database
    if not path.exists() and not create:
        if not os.access(path.parent, os.W_OK | os.X_OK):
            raise ConfigError(f"store.url: {path} cannot be made: there is no such folder, or no permission")
        raise NoDatabase(f"there is no database {path} yet; the gateway makes it when it serves")
    if not path.exists():
        _make(path)
    if not os.access(path, os.R_OK | os.W_OK):
        raise ConfigError(f"store.url: {path} cannot be opened: permission denied")
    path = path.absolute()
    uri = {"uri": "true", "mode": "rw"}  # a file that is gone is not made here
    engine = create_engine(
        URL.create("sqlite", database=path.as_uri(), query=uri),
        hide_parameters=True,
        pool_size=POOL,
        max_overflow=0,
        pool_timeout=BUSY,
        connect_args={"timeout": BUSY},
    )
    engine.update_execution_options(file=(str(path), _identity(path)))
    event.listen(engine, "connect", _on_connect)
    event.listen(engine, "begin", _on_begin)
    return engine


def _make(path: Path) -> None:
    """An empty file that only its owner may read.

    A database that is there is never opened here: whoever closes it, drops the locks that SQLite holds on it
    in this process, and another process would take away its log under it.
    """
    try:
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600))
    except FileExistsError:
        return  # somebody else was faster
    except OSError as exc:
        raise ConfigError(f"store.url: {path} cannot be opened: {exc.strerror}") from None


def _identity(path: Path | str) -> tuple[int, int] | None:
    """Device and inode; None if there is no such file."""
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_dev, found.st_ino


def unmoved(engine: Engine) -> None:
    """Raise ``Replaced`` if the engine writes to a file that nobody else would find."""
    path, opened = engine.get_execution_options().get("file", ("", None))
    if path and _identity(path) != opened:
        engine.dispose()
        raise Replaced(f"{path} was removed or replaced")


def _on_connect(connection: Any, _: object) -> None:
    connection.isolation_level = None  # the driver would begin transactions of its own, and not before DDL
    _write_ahead(connection)
    connection.execute("PRAGMA synchronous=FULL")  # what is committed is taken out of the spool


def _write_ahead(connection: sqlite3.Connection) -> None:
    """SQLite does not wait for its lock here: of those that open a new file at once, it refuses some."""
    end = time.monotonic() + BUSY
    while True:
        try:
            connection.execute("PRAGMA journal_mode=WAL")
            return
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or time.monotonic() > end:
                raise
        time.sleep(AGAIN)


def _on_begin(connection: Connection) -> None:
    writes = connection.get_execution_options().get("writes")
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")


def _connected(engine: Engine) -> Connection:
    """A connection that works: one of the pool, if it answers within ``BUSY``, or a new one."""
    unmoved(engine)
    connection = engine.connect()
    if engine.dialect.name == "sqlite":
        return connection
    try:
        with _bounded(connection, BUSY):
            engine.dialect.do_ping(connection.connection)
        return connection
    except engine.dialect.loaded_dbapi.Error:
        connection.invalidate()
        connection.close()
        engine.dispose()  # the others are of the same age
        return engine.connect()


@contextmanager
def _bounded(connection: Connection, seconds: float | None) -> Iterator[None]:
    """The driver's own time limits end with the connection's start; a silent server would hold a thread."""
    if connection.dialect.name == "sqlite":
        yield
        return
    driver: Any = connection.connection.driver_connection
    with socket.socket(fileno=os.dup(driver.fileno())) as line:
        timer = threading.Timer(seconds or SILENCE, _cut, (line,))
        timer.daemon = True
        timer.start()
        try:
            yield
        finally:
            timer.cancel()


@contextmanager
def _stopped(connection: Connection, seconds: float | None) -> Iterator[None]:
    """What SQLite computes ends with an error after this time: it has no limit of its own."""
    if connection.dialect.name != "sqlite":
        yield
        return
    ended = threading.Event()
    driver: Any = connection.connection.driver_connection
    watch = threading.Thread(target=_stop, args=(driver, ended, seconds or SILENCE), daemon=True)
    watch.start()
    try:
        yield
    finally:
        ended.set()
        watch.join()  # else it could stop who has the connection next


def _stop(driver: sqlite3.Connection, ended: threading.Event, seconds: float) -> None:
    while not ended.wait(seconds):
        driver.interrupt()
        seconds = STOP


def _cut(line: socket.socket) -> None:
    try:
        line.shutdown(socket.SHUT_RDWR)
    except OSError:
        return  # it is closed already

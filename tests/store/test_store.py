"""A database is made once, by whoever comes first, and says nothing of its password."""

import logging
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from pydantic import SecretStr
from sqlalchemy import Engine, text
from sqlalchemy.exc import OperationalError

from gateway.settings import ConfigError
from gateway.store import engine as engines
from gateway.store import schema
from gateway.store.engine import Replaced, open_engine, reading, shown, writing
from gateway.store.schema import HEAD, make, prepare, revision
from gateway.store.tables import hours, metadata
from tests.services import Server, new_database

HERE = Path()


@contextmanager
def opened(url: str) -> Iterator[Engine]:
    engine = open_engine(SecretStr(url), HERE)
    try:
        yield engine
    finally:
        engine.dispose()


def test_the_migrations_make_the_tables(database_url: str) -> None:
    with opened(database_url) as engine:
        prepare(engine)
        with reading(engine) as connection:
            assert compare_metadata(MigrationContext.configure(connection), metadata) == []
            assert revision(connection) == HEAD


def test_a_new_database_is_made_as_the_migrations_make_it(database_url: str) -> None:
    with opened(database_url) as engine:
        make(engine)
        with reading(engine) as connection:
            assert revision(connection) == HEAD
            assert compare_metadata(MigrationContext.configure(connection), metadata) == []
        prepare(engine)


def test_the_newest_migration_is_the_one_that_a_store_wants() -> None:
    folder = Path(schema.__file__).parent / "migrations"
    assert ScriptDirectory(str(folder)).get_heads() == [HEAD]


def test_those_who_start_together_make_the_tables_once(database_url: str) -> None:
    def start(_: int) -> str | None:
        with opened(database_url) as engine:
            prepare(engine)
            with reading(engine) as connection:
                return revision(connection)

    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(start, range(8))) == [HEAD] * 8


def test_a_database_of_a_newer_version_is_left_alone(database_url: str) -> None:
    with opened(database_url) as engine:
        prepare(engine)
        with writing(engine) as connection:
            connection.execute(text("UPDATE alembic_version SET version_num = 'x99'"))
        with pytest.raises(ConfigError, match="newer version"):
            prepare(engine)


def test_what_a_raising_block_wrote_is_taken_back(database_url: str) -> None:
    row = {"bucket": 0, "key_id": "k", "team": "", "model": "m", "key_name": "k"}
    sums = dict.fromkeys(("requests", "errors", "prompt_tokens", "completion_tokens", "gpu_ns", "cost"), 1)
    with opened(database_url) as engine:
        prepare(engine)
        with pytest.raises(KeyError), writing(engine) as connection:
            connection.execute(hours.insert(), row | sums)
            raise KeyError
        with reading(engine) as connection:
            assert connection.execute(hours.select()).all() == []


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("", "must begin with"),
        ("gateway.db", "must begin with"),
        ("mysql://root:canary@localhost/x", "must begin with"),
        ("sqlite://", "needs the path"),
        ("sqlite:///:memory:", "needs the path"),
        ("sqlite:////proc/none/gateway.db", "cannot be opened"),
        ("postgresql://u:canary@host:port/x", "must begin with"),
    ],
)
def test_a_url_that_cannot_be_used_is_refused_without_being_shown(url: str, says: str) -> None:
    with pytest.raises(ConfigError, match=says) as refused:
        open_engine(SecretStr(url), HERE)
    assert "canary" not in str(refused.value)


def test_a_relative_path_starts_beside_the_configuration(tmp_path: Path) -> None:
    engine = open_engine(SecretStr("sqlite:///gateway.db"), tmp_path)
    prepare(engine)
    engine.dispose()
    with sqlite3.connect(tmp_path / "gateway.db") as file:
        assert file.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    assert (tmp_path / "gateway.db").stat().st_mode & 0o77 == 0


def test_who_only_looks_makes_no_file(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no database"):
        open_engine(SecretStr("sqlite:///gateway.db"), tmp_path, create=False)
    assert list(tmp_path.iterdir()) == []


def test_a_second_engine_leaves_the_locks_of_the_first(tmp_path: Path) -> None:
    """Without them another process that ends would take away the log that the first still reads."""
    url = f"sqlite:///{tmp_path / 'x.db'}"
    script = (
        "import sqlite3, sys; c = sqlite3.connect(sys.argv[1]); c.execute('UPDATE x SET n = n + 1');"
        "c.commit(); c.close()"
    )
    with opened(url) as first:
        with writing(first) as connection:
            connection.execute(text("CREATE TABLE x (n INTEGER)"))
            connection.execute(text("INSERT INTO x VALUES (1)"))
        with opened(url):
            for written in (2, 3):
                subprocess.run([sys.executable, "-c", script, str(tmp_path / "x.db")], check=True)
                with reading(first) as connection:
                    assert connection.execute(text("SELECT n FROM x")).scalar() == written


@pytest.mark.parametrize("when", ["before", "while it was written"])
def test_nothing_is_written_to_a_file_that_nobody_finds(tmp_path: Path, when: str) -> None:
    path = tmp_path / "gateway.db"
    with opened(f"sqlite:///{path}") as engine:
        prepare(engine)
        if when == "before":
            path.unlink()
        with pytest.raises(Replaced), writing(engine) as connection:
            connection.execute(text("CREATE TABLE x (n INTEGER)"))
            path.unlink()
        with pytest.raises(Replaced), reading(engine):
            pass
        assert not path.exists()


def test_a_path_may_hold_any_character(tmp_path: Path) -> None:
    folder = tmp_path / "a b?mode=memory#100%"
    folder.mkdir()
    engine = open_engine(SecretStr("sqlite:///gateway.db"), folder)
    prepare(engine)
    engine.dispose()
    assert (folder / "gateway.db").stat().st_size > 0


def test_no_password_is_shown(caplog: pytest.LogCaptureFixture) -> None:
    url = SecretStr("postgresql://someone:canary@127.0.0.1:1/ledger?password=canary2")
    assert shown(url) == "PostgreSQL 127.0.0.1/ledger"
    engine = open_engine(url, HERE)
    with caplog.at_level(logging.DEBUG), pytest.raises(OperationalError) as failed:
        prepare(engine)
    told = repr(engine) + str(failed.value) + repr(failed.value) + caplog.text
    assert "canary" not in told


@pytest.mark.database
def test_a_server_that_falls_silent_holds_nobody(postgres_server: Server) -> None:
    with opened(new_database(postgres_server)) as engine:
        began = time.monotonic()
        with pytest.raises(OperationalError), writing(engine, 0.2) as connection:
            connection.execute(text("SELECT pg_sleep(20)"))
        assert time.monotonic() - began < 10
        with writing(engine, 0.2) as connection:
            assert connection.execute(text("SELECT 1")).scalar() == 1


def test_a_foreign_lock_is_waited_for_only_so_long(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engines, "BUSY", 0.1)
    url = f"sqlite:///{tmp_path / 'gateway.db'}"
    with opened(url) as one, opened(url) as other, writing(one):
        with pytest.raises(OperationalError, match="locked"), writing(other):
            pass
        with reading(other) as connection:
            assert revision(connection) is None


def test_a_question_to_sqlite_ends_in_its_time(tmp_path: Path) -> None:
    counted = "SELECT 1 UNION ALL SELECT x + 1 FROM c WHERE x < :most"
    count = text(f"WITH RECURSIVE c(x) AS ({counted}) SELECT count(*) FROM c")
    with opened(f"sqlite:///{tmp_path / 'gateway.db'}") as engine:
        with pytest.raises(OperationalError, match="interrupted"), reading(engine, 0.01) as connection:
            time.sleep(0.05)  # its time ends between two statements
            connection.execute(count, {"most": 20_000_000})
        with reading(engine) as connection:
            assert connection.execute(count, {"most": 200_000}).scalar() == 200_000


def test_a_file_that_another_one_makes_is_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """SQLite itself refuses the change of its journal at once, however long it may wait."""
    path = tmp_path / "gateway.db"
    waits: list[float] = []

    def ended(seconds: float) -> None:
        waits.append(seconds)
        maker.commit()

    with closing(sqlite3.connect(path)) as maker, opened(f"sqlite:///{path}") as engine:
        maker.execute("BEGIN IMMEDIATE")
        monkeypatch.setattr(time, "sleep", ended)
        with reading(engine) as connection:
            assert connection.execute(text("PRAGMA journal_mode")).scalar() == "wal"
    assert len(waits) == 1

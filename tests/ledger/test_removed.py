"""Files that somebody removes while they are in use, and rows that another process left behind."""

import os
import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path

import pytest
from pydantic import SecretStr
from sqlalchemy.exc import SQLAlchemyError

from gateway.core.errors import LedgerUnavailable
from gateway.keys.key_store import KeyStore, StoreAway
from gateway.ledger import Ledger
from gateway.ledger import queries as asking
from gateway.ledger.owners import claim, owners, segment_of, taken_over
from gateway.ledger.queries import Asked
from gateway.ledger.rows import BEGIN, END, head, line, of_intent, of_record
from tests.ledger.books import books, ids, intent, look, record, served, totals, until


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path / 'gateway.db'}"


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody waits for a lock of the database."""
    monkeypatch.setattr("gateway.store.engine.BUSY", 0.05)


@contextmanager
def locked(tmp_path: Path) -> Iterator[None]:
    """Another process writes to the database and does not end."""
    with closing(sqlite3.connect(tmp_path / "gateway.db", isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        yield
        other.execute("ROLLBACK")


def removed(tmp_path: Path) -> None:
    for end in ("", "-wal", "-shm"):
        (tmp_path / f"gateway.db{end}").unlink(missing_ok=True)


def booked(tmp_path: Path) -> list[str]:
    """The rows that somebody else finds at this path."""
    if not (tmp_path / "gateway.db").exists():
        return []
    try:
        return ids(f"sqlite:///{tmp_path / 'gateway.db'}")
    except SQLAlchemyError:
        return []


def left_behind(tmp_path: Path) -> str:
    """A killed process: one request that ended, of 15 tokens, and one that did not."""
    folder = tmp_path / "spool"
    folder.mkdir(exist_ok=True)
    owner, lock = claim(folder)
    lines = [line(BEGIN, of_intent(intent(id))) for id in ("dead1", "dead2")]
    lines.append(line(END, of_record(record("dead1"), None)))
    segment_of(folder, owner, 1).write_bytes(b"".join([head(), *lines]))
    os.close(lock)
    return owner


# --- what others left ---


async def test_what_the_killed_have_spent_counts_from_the_first_question(
    database_url: str, tmp_path: Path
) -> None:
    left_behind(tmp_path)
    async with books(database_url, tmp_path) as ledger:
        assert await ledger.spent("key", "k1", 0) == (15, 1_000_000, 2_000_000_000)


@pytest.mark.usefixtures("impatient")
async def test_what_a_clean_end_could_not_book_counts_from_the_first_question(
    url: str, tmp_path: Path
) -> None:
    async with books(url, tmp_path) as ledger:
        await ledger.settle()
        with locked(tmp_path):
            await served(ledger, "r1")
            await ledger.aclose()
    assert ids(url) == []
    async with books(url, tmp_path) as ledger:
        assert (await ledger.spent("key", "k1", 0)).tokens == 15


async def test_a_question_waits_within_a_bound_for_what_another_process_takes_over(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway.ledger.writer.FIRST", 0.1)
    other = taken_over(tmp_path / "spool", left_behind(tmp_path))
    assert other is not None
    async with books(url, tmp_path) as ledger:
        with pytest.raises(LedgerUnavailable):  # so it is asked again, and nobody takes nothing for the sum
            await ledger.spent("key", "k1", 0)
        os.close(other)
        assert (await ledger.spent("key", "k1", 0)).tokens == 15


@pytest.mark.parametrize("end", [".lock", ".000001.spool"])
async def test_what_cannot_be_read_of_one_holds_up_nothing(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, end: str
) -> None:
    for name in ("LOOK", "BARRED"):
        monkeypatch.setattr(f"gateway.ledger.writer.{name}", 0)
    owner, other = left_behind(tmp_path), left_behind(tmp_path)
    path = tmp_path / "spool" / f"{owner}{end}"
    aside = path.rename(tmp_path / "aside")
    path.mkdir()  # which nobody opens as a file, not even root
    async with books(url, tmp_path) as ledger:
        assert (await ledger.spent("key", "k1", 0)).tokens == 15
        await ledger.settle()
        await ledger.settle()
        assert owner in owners(tmp_path / "spool") and other not in owners(tmp_path / "spool")
        path.rmdir()
        aside.rename(path)
        await until(lambda: owner not in owners(tmp_path / "spool"))
    assert caplog.text.count("cannot be read") == 1


# --- the spool is removed ---


@pytest.mark.usefixtures("impatient")
async def test_a_removed_spool_is_made_again_with_its_rows(
    url: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with books(url, tmp_path) as ledger:
        await served(ledger, "r0")
        await ledger.settle()
        await ledger.begin(intent("ran"))
        with locked(tmp_path):
            await served(ledger, "r1")
            shutil.rmtree(tmp_path / "spool")
            await served(ledger, "r2")
            ledger.observe(record("ran"))
        await until(lambda: booked(tmp_path) == ["r0", "r1", "r2", "ran"])
        await served(ledger, "r3")
        await ledger.settle()
    assert ids(url) == ["r0", "r1", "r2", "r3", "ran"]
    assert not any(row["lost"] for row in look(url))
    assert [sums[0] for sums in totals(url)] == [5, 5]
    assert f"files of the spool {tmp_path / 'spool'} were removed" in caplog.text
    assert list((tmp_path / "spool").iterdir()) == []


@pytest.mark.parametrize("what", ["*", "*.lock", "*.spool"])
async def test_a_removed_spool_is_noticed_while_all_rests(url: str, tmp_path: Path, what: str) -> None:
    folder = tmp_path / "spool"
    async with books(url, tmp_path) as ledger:
        await ledger.begin(intent("ran"))
        [owner] = owners(folder)
        for path in folder.glob(what):
            path.unlink()
        await until(lambda: owners(folder) == [owner] and len(list(folder.glob("*.spool"))) == 1)
        assert taken_over(folder, owner) is None
        ledger.observe(record("ran"))
    assert [row["lost"] for row in look(url)] == [False]
    assert list(folder.iterdir()) == []


async def test_a_spool_that_cannot_be_made_again_refuses_requests(
    url: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with books(url, tmp_path) as ledger:
        await ledger.begin(intent("ran"))
        shutil.rmtree(tmp_path / "spool")
        (tmp_path / "spool").write_text("a file")
        with pytest.raises(LedgerUnavailable):
            await ledger.begin(intent("came"))
        ledger.observe(record("ran"))
        ledger.observe(record("came", status=503))
        (tmp_path / "spool").unlink()
        await served(ledger, "after")
        await until(lambda: booked(tmp_path) == ["after", "came", "ran"])
    assert not any(row["lost"] for row in look(url))
    assert f"the spool {tmp_path / 'spool'} cannot be" in caplog.text
    assert "database cannot be used" not in caplog.text


# --- the database is removed ---


@pytest.mark.parametrize("then", ["nothing", "another"])
async def test_rows_go_into_the_database_that_is_there(url: str, tmp_path: Path, then: str) -> None:
    async with books(url, tmp_path) as ledger:
        await served(ledger, "r1")
        await ledger.settle()
        removed(tmp_path)
        if then == "another":
            with closing(sqlite3.connect(tmp_path / "gateway.db")) as other:
                other.execute("PRAGMA journal_mode=WAL")
        await served(ledger, "r2")
        await until(lambda: booked(tmp_path) == ["r2"])
        await until(lambda: (tmp_path / "gateway.db").stat().st_mode & 0o77 == 0 or then == "another")
        await asked_again(ledger)
    assert ids(url) == ["r2"]
    assert [sums[0] for sums in totals(url)] == [1, 1]


async def asked_again(ledger: Ledger) -> None:
    """One question fails at most, and the next is about the database that is there."""
    with suppress(LedgerUnavailable):
        await ledger.ask(lambda engine: asking.usage(engine, "day", Asked(0)))
    [line] = await ledger.ask(lambda engine: asking.usage(engine, "day", Asked(0)))
    assert line.requests == 1


async def test_a_removed_database_is_noticed_while_all_rests(url: str, tmp_path: Path) -> None:
    async with books(url, tmp_path) as ledger:
        await ledger.settle()
        removed(tmp_path)
        await until((tmp_path / "gateway.db").exists)


def test_keys_are_made_in_the_database_that_is_there(url: str, tmp_path: Path) -> None:
    key_store, other = KeyStore(SecretStr(url), tmp_path), KeyStore(SecretStr(url), tmp_path)
    assert key_store.every() == [] == other.every()
    removed(tmp_path)
    with pytest.raises(StoreAway):
        key_store.every()
    assert key_store.every() == [] and (tmp_path / "gateway.db").exists()
    with pytest.raises(StoreAway):
        other.every()
    for each in (key_store, other):
        assert each.every() == []
        each.close()

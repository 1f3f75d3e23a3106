"""Every request that began has one row and its sums, whatever happens to files, disk and database."""

import asyncio
import errno
import logging
import os
import resource
import signal
import sqlite3
import stat
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from gateway.core.errors import LedgerUnavailable
from gateway.ledger import Idle, Ledger
from gateway.ledger import spool as spools
from gateway.ledger.owners import claim, segment_of, taken_over
from gateway.ledger.rows import BEGIN, COLUMNS, DAY, END, HEAD, head, line, of_intent, of_record
from gateway.ledger.spool import Spool, Unforced
from gateway.settings import ConfigError
from gateway.store.tables import days, hours
from tests.cli.process import children
from tests.ledger.books import NOON, books, database, ids, intent, look, record, served, store, totals, until
from tests.services import Server, new_database, postgres


def left(tmp_path: Path) -> list[str]:
    """What lies in the spool."""
    return sorted(path.name for path in (tmp_path / "spool").iterdir())


@contextmanager
def full_disk(tmp_path: Path) -> Iterator[None]:
    """Files of this process grow no more than the spool's newest has."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    [newest] = [path.stat().st_size for path in (tmp_path / "spool").glob("*.spool")]
    resource.setrlimit(resource.RLIMIT_FSIZE, (newest + 10, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


# --- one row a request ---


async def test_a_request_is_one_row(database_url: str, tmp_path: Path) -> None:
    async with books(database_url, tmp_path) as ledger:
        await served(ledger, "r1", team="t", user="u1")
        await ledger.settle()
    [row] = look(database_url)
    assert (row["id"], row["kind"], row["time"], row["team"]) == ("r1", "request", int(NOON * 1000), "t")
    assert (row["status"], row["streamed"], row["lost"]) == (200, True, False)
    assert (row["prompt_tokens"], row["gpu_ns"], row["cost"]) == (10, 2_000_000_000, 1_000_000)
    assert row["content"] is None
    assert left(tmp_path) == []


async def test_a_request_that_was_refused_before_it_began_has_a_row_too(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'gateway.db'}"
    async with books(url, tmp_path) as ledger:
        ledger.observe(record("refused", status=429, code="rate_limit_exceeded"))
        await ledger.settle()
    [row] = look(url)
    assert (row["id"], row["status"], row["lost"]) == ("refused", 429, False)
    assert row["code"] == "rate_limit_exceeded"


async def test_rows_and_sums_agree(database_url: str, tmp_path: Path) -> None:
    async with books(database_url, tmp_path) as ledger:
        for number in range(40):
            await served(ledger, f"r{number}", NOON + number * 600, status=200 if number % 4 else 503)
        ledger.idle([Idle("i1", NOON, "k1", "anna", None, "m", "u", 5_000, "estimated", 7)])
        await ledger.settle()
        expected = (40, 10, 400, 200, 40 * 2_000_000_000 + 5_000, 40 * 1_000_000 + 7)
        assert totals(database_url) == [expected, expected]
        assert len(look(database_url, hours)) == 7 and len(look(database_url, days)) == 1


async def test_the_same_lines_again_change_nothing(database_url: str, tmp_path: Path) -> None:
    async with books(database_url, tmp_path) as ledger:
        await served(ledger, "r1")
        await ledger.settle()
        before = look(database_url), totals(database_url)
        gone(tmp_path, [line(END, of_record(record("r1", cost=77), None))] * 3)
        await ledger.settle()
        assert (look(database_url), totals(database_url)) == before


async def test_of_two_rows_with_one_id_the_first_counts(database_url: str, tmp_path: Path) -> None:
    gone(tmp_path, [line(END, of_record(record("r1", cost=cost), None)) for cost in (1, 2, 3)])
    async with books(database_url, tmp_path) as ledger:
        await ledger.settle()
    assert [row["cost"] for row in look(database_url)] == [1]
    assert [sums[-1] for sums in totals(database_url)] == [1, 1]


@pytest.mark.parametrize("keep", [True, False])
async def test_content_is_kept_only_where_it_is_wanted(database_url: str, tmp_path: Path, keep: bool) -> None:
    content = {"messages": [{"role": "user", "content": "canary \u2028 你好"}], "answer": "canary\0"}
    async with books(database_url, tmp_path, log_content=keep) as ledger:
        await ledger.begin(intent("r1"))
        ledger.observe(record("r1"), content)
        spool = b"".join(path.read_bytes() for path in (tmp_path / "spool").glob("*.spool"))
        assert b"canary" not in spool or keep
        await ledger.settle()
    [row] = look(database_url)
    assert row["content"] == ({**content, "answer": "canary\ufffd"} if keep else None)


async def test_what_was_spent_counts_what_is_not_booked_yet(database_url: str, tmp_path: Path) -> None:
    async with books(database_url, tmp_path) as ledger:
        await served(ledger, "r1", NOON - 90_000)
        await served(ledger, "r2", NOON, team="t")
        await served(ledger, "r3", NOON + 10, key_id="k2", team="t")
        assert await ledger.spent("key", "k1", NOON - DAY) == (30, 2_000_000, 4_000_000_000)
        assert await ledger.spent("key", "k1", NOON) == (15, 1_000_000, 2_000_000_000)
        assert await ledger.spent("team", "t", NOON + 5) == (15, 1_000_000, 2_000_000_000)
        assert await ledger.spent("model", "m", 0) == (45, 3_000_000, 6_000_000_000)
        assert await ledger.spent("model", "other", 0) == (0, 0, 0)


async def test_begins_of_one_turn_share_a_write(tmp_path: Path) -> None:
    async with books(f"sqlite:///{tmp_path / 'gateway.db'}", tmp_path) as ledger:
        sizes: set[int] = set()

        async def begin(number: int) -> None:
            await ledger.begin(intent(f"r{number}"))
            [path] = (tmp_path / "spool").glob("*.spool")
            sizes.add(path.stat().st_size)

        await asyncio.gather(*map(begin, range(50)))
        assert len(sizes) == 1
        for number in range(50):
            ledger.observe(record(f"r{number}"))


@pytest.mark.parametrize("fsync", ["never", "batch", "always"])
async def test_many_files_are_gone_once_they_are_booked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fsync: str
) -> None:
    monkeypatch.setattr(spools, "SEGMENT", 2000)
    url = f"sqlite:///{tmp_path / 'gateway.db'}"
    async with books(url, tmp_path, fsync=fsync) as ledger:
        await ledger.begin(intent("long"))
        for number in range(60):
            await served(ledger, f"r{number:02}")
        await ledger.settle()
        assert len(left(tmp_path)) == 3  # the lock, the newest, and where the long one began
        ledger.observe(record("long"))
    assert len(ids(url)) == 61
    assert left(tmp_path) == []


async def test_a_client_that_leaves_while_it_is_noted_leaves_a_row(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'gateway.db'}"
    async with books(url, tmp_path) as ledger:
        task = asyncio.get_running_loop().create_task(ledger.begin(intent("r1")))
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait({task})
        ledger.observe(record("r1", status=499))
    assert [(row["id"], row["status"]) for row in look(url)] == [("r1", 499)]


async def test_old_rows_go_and_the_sums_of_days_stay(database_url: str, tmp_path: Path) -> None:
    kept = store(database_url, tmp_path, retain_days=30)
    now = NOON + 86_400 / 4
    ledger = Ledger(kept, tmp_path, lambda: now)
    await ledger.start()
    for age in (0, 1, 30, 31, 400, 401):
        await served(ledger, f"{age} days", NOON - age * 86_400)
    await ledger.aclose()
    assert ids(database_url) == ["0 days", "1 days", "30 days"]
    assert len(look(database_url, hours)) == 3
    assert [row["requests"] for row in look(database_url, days)] == [1] * 6


# --- processes that are gone ---


def gone(tmp_path: Path, lines: list[bytes], torn: bytes = b"") -> Path:
    """What a killed process left: these lines, and half of one."""
    folder = tmp_path / "spool"
    owner, lock = claim(folder)
    path = segment_of(folder, owner, 1)
    path.write_bytes(b"".join(lines) + torn)
    os.close(lock)
    return path


async def test_what_a_killed_process_left_is_booked(database_url: str, tmp_path: Path) -> None:
    begun = [line(BEGIN, of_intent(intent(id))) for id in ("r1", "r2", "r3")]
    ended = [line(END, of_record(record("r2"), None))]
    gone(tmp_path, [head(), *begun, *ended], line(BEGIN, of_intent(intent("r4")))[:-20])
    async with books(database_url, tmp_path) as ledger:
        await ledger.settle()
        found = {row["id"]: (row["status"], row["lost"]) for row in look(database_url)}
        assert found == {"r1": (0, True), "r2": (200, False), "r3": (0, True)}
        assert totals(database_url)[0][:2] == (3, 2)
        assert len(left(tmp_path)) == 2  # our own


async def test_a_damaged_line_costs_that_line_alone(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    url = f"sqlite:///{tmp_path / 'gateway.db'}"
    lines = [line(END, of_record(record(f"r{number}"), None)) for number in range(3)]
    lines[1] = b"\xff" + lines[1][1:]
    path = gone(tmp_path, lines)
    async with books(url, tmp_path) as ledger:
        await ledger.settle()
        assert ids(url) == ["r0", "r2"]
    assert left(tmp_path) == [path.with_suffix(".damaged").name]
    assert "damaged" in caplog.text


async def test_what_another_version_left_is_read_by_its_names(database_url: str, tmp_path: Path) -> None:
    row = dict(zip(COLUMNS, of_record(record("r1"), None), strict=True))
    other = {"from_the_future": 7, **dict(reversed(row.items()))}
    del other["content"]
    gone(tmp_path, [line(HEAD, list(other)), line(END, list(other.values()))])
    async with books(database_url, tmp_path) as ledger:
        await ledger.settle()
    [found] = look(database_url)
    assert found == row


async def test_a_long_backlog_of_another_holds_up_no_question(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway.ledger.reading.BATCH", 2)
    monkeypatch.setattr("gateway.ledger.writer.SLICE", 3)
    url = f"sqlite:///{tmp_path / 'gateway.db'}"
    begun = [line(BEGIN, of_intent(intent(f"r{number:02}"))) for number in range(30)]
    ended = [line(END, of_record(record(f"r{number:02}"), None)) for number in range(25)]
    gone(tmp_path, [*begun, *ended])
    async with books(url, tmp_path) as ledger:
        await served(ledger, "ours")
        assert (await ledger.spent("key", "k1", 0)).tokens >= 15
        await ledger.settle()
        assert len(ids(url)) == 31 and sum(row["lost"] for row in look(url)) == 5


async def test_a_living_process_is_left_alone(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'gateway.db'}"
    async with books(url, tmp_path) as one, books(url, tmp_path) as other:
        await one.begin(intent("r1"))
        await other.settle()
        assert ids(url) == []
        one.observe(record("r1"))
        await one.settle()
        assert [row["lost"] for row in look(url)] == [False]


def test_a_lock_is_held_by_one(tmp_path: Path) -> None:
    owner, lock = claim(tmp_path)
    assert taken_over(tmp_path, owner) is None
    os.close(lock)
    taken = taken_over(tmp_path, owner)
    assert taken is not None and taken_over(tmp_path, owner) is None
    os.close(taken)


async def test_a_row_that_no_database_takes_holds_up_nothing(
    tmp_path: Path, database_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    row = list(of_record(record("bad"), None))
    row[0] = None
    path = gone(tmp_path, [line(END, of_record(record("r0"), None)), line(END, row)])
    async with books(database_url, tmp_path) as ledger:
        await ledger.settle()
        health = ledger.health()
        assert health is not None and (health.spoiled, health.reachable) == (1, True)
    assert ids(database_url) == ["r0"]
    assert left(tmp_path) == [path.with_suffix(".damaged").name]


# --- a disk that is full, a database that is not there ---


async def test_a_full_disk_refuses_requests_and_keeps_what_ran(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    url = f"sqlite:///{tmp_path / 'gateway.db'}"
    async with books(url, tmp_path) as ledger:
        await ledger.begin(intent("ran"))
        with full_disk(tmp_path):
            with pytest.raises(LedgerUnavailable) as refused:
                await ledger.begin(intent("came"))
            ledger.observe(record("ran"))
            ledger.observe(record("came", status=503))  # without a row: whoever is refused now could pile up
            with pytest.raises(LedgerUnavailable):
                await ledger.begin(intent("came too"))
        assert refused.value.status == 503 and refused.value.headers["retry-after"]
        assert ledger.refused() == 2
        await served(ledger, "after")
        await ledger.settle()
        assert ids(url) == ["after", "ran"]
    assert left(tmp_path) == []
    assert caplog.text.count("requests are refused") == 1


def fail_to_sync(monkeypatch: pytest.MonkeyPatch) -> None:
    """The disk takes bytes and keeps none."""

    def failed(_: int) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(os, "fsync", failed)


async def test_a_disk_that_keeps_nothing_refuses_requests_and_leaves_no_lost_rows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    url = f"sqlite:///{tmp_path / 'gateway.db'}"
    async with books(url, tmp_path, fsync="always") as ledger:
        await ledger.begin(intent("ran"))
        with monkeypatch.context() as patch:
            fail_to_sync(patch)
            with pytest.raises(LedgerUnavailable):
                await ledger.begin(intent("came"))
            with full_disk(tmp_path):  # so that ends have to wait
                ledger.observe(record("ran"))
                with pytest.raises(LedgerUnavailable):
                    await ledger.begin(intent("came too"))
                ledger.observe(record("came", status=503))
                ledger.observe(record("came too", status=503))
        await served(ledger, "after")
        assert ledger.refused() == 2
    assert {row["id"]: (row["status"], row["lost"]) for row in look(url)} == {
        "ran": (200, False),
        "came": (503, False),
        "after": (200, False),
    }
    assert "requests are refused: Input/output error" in caplog.text


async def test_with_batch_a_disk_that_keeps_nothing_is_said_and_refuses_nobody(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    url = f"sqlite:///{tmp_path / 'gateway.db'}"
    async with books(url, tmp_path, fsync="batch") as ledger:
        fail_to_sync(monkeypatch)
        await served(ledger, "r1")
        await until(lambda: "cannot be forced to disk" in caplog.text)
        await served(ledger, "r2")
        assert ledger.refused() == 0
    assert ids(url) == ["r1", "r2"]
    assert "refused" not in caplog.text


async def test_with_batch_what_comes_during_a_sync_waits_for_its_own_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else a busy gateway would sync without a break."""
    loop, syncing, go_on = asyncio.get_running_loop(), asyncio.Event(), threading.Event()
    syncs: list[int] = []

    def slow(file: int) -> None:
        if stat.S_ISDIR(os.fstat(file).st_mode):
            return
        syncs.append(file)
        loop.call_soon_threadsafe(syncing.set)
        go_on.wait(20)

    spool = Spool(tmp_path, "batch")
    try:
        monkeypatch.setattr(os, "fsync", slow)
        monkeypatch.setattr(spools, "BATCH", 0)
        await spool.begin(line(BEGIN, of_intent(intent("r1"))))
        await asyncio.wait_for(syncing.wait(), 20)
        monkeypatch.setattr(spools, "BATCH", 1000)
        await spool.begin(line(BEGIN, of_intent(intent("r2"))))
        go_on.set()
        await spool.aclose()
        await until(
            lambda: not any(thread.name.startswith("ledger-disk") for thread in threading.enumerate())
        )
        assert len(syncs) == 2  # the first, and that of the end
    finally:
        go_on.set()
        spool.release()


@pytest.mark.parametrize("hangs", [False, True], ids=["slow", "hanging"])
async def test_whoever_waits_for_the_disk_is_told_when_the_spool_closes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, hangs: bool
) -> None:
    monkeypatch.setattr(spools, "CLOSE", 0.2 if hangs else 20.0)
    loop, syncing, go_on = asyncio.get_running_loop(), asyncio.Event(), threading.Event()

    def slow(_: int) -> None:
        loop.call_soon_threadsafe(syncing.set)
        go_on.wait(20)

    spool = Spool(tmp_path, "always")
    try:
        with monkeypatch.context() as patch:
            patch.setattr(os, "fsync", slow)
            first = spool.begin(line(BEGIN, of_intent(intent("r1"))))
            await asyncio.wait_for(syncing.wait(), 20)
            second = spool.begin(line(BEGIN, of_intent(intent("r2"))))
            closing = loop.create_task(spool.aclose())
            await asyncio.sleep(0)
            late = spool.begin(line(BEGIN, of_intent(intent("r3"))))
            if not hangs:
                go_on.set()
            await asyncio.wait_for(closing, 20)
            outcomes = await asyncio.wait_for(asyncio.gather(first, second, late, return_exceptions=True), 5)
            written = Unforced if hangs else type(None)
            assert [type(outcome) for outcome in outcomes] == [written, written, OSError]
    finally:
        go_on.set()
        spool.release()


def segments(folder: Path) -> list[int]:
    """The inodes of a spool's files."""
    return [path.stat().st_ino for path in folder.glob("*.spool")]


async def test_whoever_waits_hears_of_a_file_that_ended_before_its_sync(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(spools, "SEGMENT", 1000)
    loop, syncing, go_on = asyncio.get_running_loop(), asyncio.Event(), threading.Event()
    spool = Spool(tmp_path, "always")
    [first] = segments(tmp_path)

    def once(file: int) -> None:
        if os.fstat(file).st_ino == first:
            if go_on.is_set():
                raise OSError(errno.EIO, os.strerror(errno.EIO))
            loop.call_soon_threadsafe(syncing.set)
            go_on.wait(20)

    try:
        monkeypatch.setattr(os, "fsync", once)
        waiting = [spool.begin(b"r1\n")]
        await asyncio.wait_for(syncing.wait(), 20)
        for text in (b"r2" * 500, b"r3"):
            waiting.append(spool.begin(text + b"\n"))
            spool.flush()
        assert len(segments(tmp_path)) == 2
        go_on.set()
        outcomes = await asyncio.wait_for(asyncio.gather(*waiting, return_exceptions=True), 20)
        assert [type(outcome) for outcome in outcomes] == [type(None), Unforced, Unforced]
    finally:
        go_on.set()
        await spool.aclose()
        spool.release()


async def test_a_spool_that_cannot_be_made_is_said_at_the_start(tmp_path: Path) -> None:
    (tmp_path / "spool").write_text("a file")
    with pytest.raises(ConfigError, match=r"store\.spool: .* cannot be written"):
        async with books(f"sqlite:///{tmp_path / 'gateway.db'}", tmp_path):
            pass


async def test_a_ledger_that_does_not_run_serves_nothing(tmp_path: Path) -> None:
    ledger = Ledger(store(f"sqlite:///{tmp_path / 'gateway.db'}", tmp_path), tmp_path)
    with pytest.raises(LedgerUnavailable):
        await ledger.begin(intent("r1"))
    with pytest.raises(LedgerUnavailable):
        await ledger.settle()
    ledger.observe(record("r1"))
    ledger.idle([])
    await ledger.aclose()


async def test_a_locked_database_delays_rows_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("gateway.store.engine.BUSY", 0.05)
    url = f"sqlite:///{tmp_path / 'gateway.db'}"
    async with books(url, tmp_path) as ledger:
        await ledger.settle()
        with sqlite3.connect(tmp_path / "gateway.db", isolation_level=None) as other:
            other.execute("BEGIN IMMEDIATE")
            await served(ledger, "r1")
            with pytest.raises(LedgerUnavailable):
                await ledger.settle()
            await served(ledger, "r2")
            health = ledger.health()
            assert health is not None and not health.reachable and health.waiting > 0
            other.execute("ROLLBACK")
        other.close()
        await until(lambda: ids(url) == ["r1", "r2"])
        assert totals(url)[0][0] == 2
    assert "rows wait in the spool" in caplog.text


@pytest.mark.database
async def test_requests_go_on_without_their_server(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with postgres() as server:
        url = new_database(server)
        server.stop()
        async with books(url, tmp_path) as ledger:  # it starts without, too
            await served(ledger, "r1")
            with pytest.raises(LedgerUnavailable):
                await ledger.spent("key", "k1", 0)
            server.start()
            await until(lambda: reachable(ledger))
            await served(ledger, "r2")
            await ledger.settle()
            server.stop()
            await served(ledger, "r3")
            with pytest.raises(LedgerUnavailable):
                await ledger.settle()
            server.start()
            await until(lambda: reachable(ledger))
            await ledger.settle()
            assert ids(url) == ["r1", "r2", "r3"]
        server.stop()
        async with books(url, tmp_path) as ledger:
            await served(ledger, "r4")
        assert left(tmp_path) != []
        server.start()
        async with books(url, tmp_path) as ledger:
            await ledger.settle()
        assert ids(url) == ["r1", "r2", "r3", "r4"]
    assert "canary" not in caplog.text


def reachable(ledger: Ledger) -> bool:
    health = ledger.health()
    return health is not None and health.reachable


@pytest.mark.parametrize("fails", ["store", "spool"])
async def test_its_messages_hold_no_secret(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, fails: str
) -> None:
    caplog.set_level(logging.DEBUG)
    url = "postgresql://someone:canary@127.0.0.1:1/ledger"
    told: list[Any] = []
    async with books(url, tmp_path) as ledger:
        await served(ledger, "r1")
        with pytest.raises(LedgerUnavailable) as refused:
            await ledger.ask(lambda engine: engine.connect()) if fails == "store" else await ledger.settle()
        told += [refused.value, ledger.health(), vars(ledger), database(url)]
    assert "canary" not in caplog.text + repr(told)


@pytest.mark.database
async def test_a_server_that_says_nothing_holds_up_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway.store.engine.SILENCE", 2)
    monkeypatch.setattr("gateway.store.engine.BUSY", 2)
    with postgres() as server:
        url = new_database(server)
        async with books(url, tmp_path) as ledger:
            await served(ledger, "r1")
            await ledger.settle()
            for pid in backends(server):
                os.kill(pid, signal.SIGSTOP)
            await served(ledger, "r2")
            await until(lambda: not reachable(ledger))
            for pid in backends(server):
                os.kill(pid, signal.SIGCONT)
            await until(lambda: reachable(ledger))
            await ledger.settle()
            assert ids(url) == ["r1", "r2"]


def backends(server: Server) -> list[int]:
    """The server and its processes."""
    assert server.process is not None
    return [server.process.pid, *children(server.process.pid)]

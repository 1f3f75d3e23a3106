"""What was used is told in tables, JSON and CSV, to those who may know it."""

import asyncio
import csv
import io
import json
import sqlite3
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import FastAPI, Request
from pydantic import SecretStr
from starlette.responses import Response

from gateway.cli import commands
from gateway.core.errors import Forbidden, GatewayError
from gateway.ledger import Idle, Ledger
from gateway.ledger import queries as asking
from gateway.ledger.pages import UsagePages
from gateway.ledger.queries import Asked, Line, usage
from gateway.ledger.ranges import iso, moment
from gateway.ledger.reports import as_csv, report
from gateway.ledger.rows import DAY, HOUR
from gateway.store.engine import open_engine
from gateway.store.schema import prepare
from gateway.store.tables import SUMS, requests
from tests.cli.process import run
from tests.ledger.books import NOON, books, database, look, served

DAY_OF = int(NOON * 1000) // DAY * DAY


async def month(ledger: Ledger) -> None:
    """Three days of two keys, two models and a team, 12 requests, 3 of them wrong, and an idle container."""
    for number in range(12):
        anna = number % 2 == 0
        await served(
            ledger,
            f"r{number:02}",
            NOON - number * 6 * 3600,
            key_id="k1" if anna else "k2",
            key="anna" if anna else "=ben",
            team=None if anna else "t",
            model="small" if number % 3 else "large",
            status=200 if number % 4 else 503,
        )
    ledger.idle([Idle("idle", NOON, "k1", "anna", None, "large", "u", 500_000_000, "estimated", 250_000)])
    await ledger.settle()


def answer(by: asking.By, url: str, **asked: Any) -> dict[str, Line]:
    engine = database(url)
    try:
        return {line.name: line for line in usage(engine, by, Asked(**{"since": 0, **asked}))}
    finally:
        engine.dispose()


async def test_sums_by_key_team_model_and_day(database_url: str, tmp_path: Path) -> None:
    async with books(database_url, tmp_path) as ledger:
        await month(ledger)
    keys = answer("key", database_url)
    assert list(keys) == ["anna", "=ben"]
    assert keys["anna"] == Line("k1", "anna", 6, 3, 60, 30, 12_500_000_000, 6_250_000)
    assert {name: line.requests for name, line in answer("team", database_url).items()} == {"": 6, "t": 6}
    assert {name: line.requests for name, line in answer("model", database_url).items()} == {
        "small": 8,
        "large": 4,
    }
    days = answer("day", database_url)
    assert [(name, line.requests) for name, line in days.items()] == [
        ("2026-10-29", 1),
        ("2026-10-30", 4),
        ("2026-10-31", 4),
        ("2026-11-01", 3),
    ]


@pytest.mark.parametrize("span", ["a day", "an hour", "a part of an hour", "nothing"])
async def test_every_way_to_add_up_a_span_gives_the_same(
    database_url: str, tmp_path: Path, span: str
) -> None:
    since, until = {
        "a day": (DAY_OF - DAY, DAY_OF),
        "an hour": (DAY_OF - DAY + 5 * 3_600_000, DAY_OF + 13 * 3_600_000),
        "a part of an hour": (DAY_OF - DAY + 21_600_001, int(NOON * 1000) + 1),
        "nothing": (DAY_OF, DAY_OF),
    }[span]
    async with books(database_url, tmp_path) as ledger:
        await month(ledger)
    for by in ("key", "team", "model", "day"):
        lines = answer(by, database_url, since=since, until=until).values()
        found = [sum(getattr(line, name) for line in lines) for name in SUMS]
        assert found == counted(database_url, since, until)


def counted(url: str, since: int, until: int) -> list[int]:
    """The same from the rows."""
    engine = database(url)
    try:
        rows = [row for page in asking.rows(engine, Asked(since, until)) for row in page]
    finally:
        engine.dispose()
    real = [row for row in rows if row["kind"] == "request"]
    wrong = sum(row["status"] >= 400 for row in real)
    return [len(real), wrong, *(sum(row[name] or 0 for row in rows) for name in SUMS[2:])]


async def test_it_can_be_narrowed_down(database_url: str, tmp_path: Path) -> None:
    async with books(database_url, tmp_path) as ledger:
        await month(ledger)
    total = {name: sum(line.requests for line in answer("day", database_url, **asked).values())
             for name, asked in {
                 "id": {"key": "k1"}, "name": {"key": "anna"}, "team": {"team": "t"}, "none": {"team": ""},
                 "model": {"model": "large"}, "both": {"model": "large", "key": "k2"}, "nobody": {"key": "x"},
             }.items()}  # fmt: skip
    assert total == {"id": 6, "name": 6, "team": 6, "none": 6, "model": 4, "both": 2, "nobody": 0}


async def test_a_client_that_left_is_told_and_is_no_error(database_url: str, tmp_path: Path) -> None:
    async with books(database_url, tmp_path) as ledger:
        await served(ledger, "left", client_left=True)
        await served(ledger, "before", client_left=True, status=499, usage=None)
        await served(ledger, "broke", client_left=True, code="upstream_timeout")
        await ledger.settle()
    at = int(NOON * 1000)
    for since, end in ((0, None), (at, at + 1)):  # from sums, and from rows
        [line] = answer("day", database_url, since=since, until=end).values()
        assert (line.requests, line.errors) == (3, 1)
    codes = {row["id"]: (row["status"], row["code"]) for row in look(database_url)}
    assert codes == {
        "left": (200, "client_left"),
        "before": (499, "client_left"),
        "broke": (200, "upstream_timeout"),
    }


async def test_rows_come_a_page_at_a_time_each_once(
    database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(asking, "PAGE", 5)
    async with books(database_url, tmp_path) as ledger:
        for number in range(12):
            await served(ledger, f"r{number:02}", NOON + number // 6)  # many at the same time
        await ledger.settle()
    engine = database(database_url)
    pages = list(asking.rows(engine, Asked(0)))
    engine.dispose()
    assert [len(page) for page in pages] == [5, 5, 2]
    assert [row["id"] for page in pages for row in page] == [f"r{number:02}" for number in range(12)]
    assert pages[0][0]["time"] == "2026-11-01T12:00:00.000Z" and "content" not in pages[0][0]


def test_no_cell_is_a_formula() -> None:
    cells = ["=1+1", "+1", "@x", "-2", "\ta", "-", "plain", None, 5, 'a "quote", a comma\nand a line']
    [row] = csv.reader(io.StringIO(as_csv([dict(enumerate(cells))]), newline=""))
    assert row[:7] == ["'=1+1", "'+1", "'@x", "'-2", "'\ta", "-", "plain"]
    assert row[7:] == ["", "5", 'a "quote", a comma\nand a line']


# --- the command ---


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Where a ledger has a month of requests."""

    async def write() -> None:
        async with books(f"sqlite:///{tmp_path / 'gateway.db'}", tmp_path) as ledger:
            await month(ledger)

    asyncio.run(write())
    return tmp_path


def configure(folder: Path) -> None:
    (folder / "gateway.yaml").write_text("models: {m: {upstream: {url: 'http://127.0.0.1:1'}}}\n")


@dataclass(frozen=True)
class Command:
    """`modal-gateway usage` in a folder."""

    folder: Path
    captured: pytest.CaptureFixture[str]

    def __call__(self, *options: str) -> tuple[int, str, str]:
        """The exit code, and what it printed."""
        code = commands.run(["usage", "--config", str(self.folder / "gateway.yaml"), *options])
        return code, *self.captured.readouterr()

    def shown(self, *options: str) -> str:
        code, out, err = self(*options)
        assert (code, err) == (0, "")
        return out


@pytest.fixture
def command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Command:
    configure(tmp_path)
    return Command(tmp_path, capsys)


@pytest.mark.usefixtures("folder")
def test_the_table_ends_in_a_total(command: Command) -> None:
    span = ("--since", "2026-10-01", "--until", "2026-12-01")
    shown = command.shown("--by", "key", *span).splitlines()
    assert [line.split() for line in shown] == [
        ["KEY", "REQUESTS", "ERRORS", "PROMPT", "TOKENS", "ANSWER", "TOKENS", "GPU", "SECONDS", "DOLLARS"],
        ["anna", "(k1)", "6", "3", "60", "30", "12.5", "0.0063"],
        ["=ben", "(k2)", "6", "0", "60", "30", "12.0", "0.0060"],
        ["total", "12", "3", "120", "60", "24.5", "0.0123"],
    ]
    assert len(set(map(len, shown))) == 1  # numbers stand right


@pytest.mark.usefixtures("folder")
def test_the_same_as_json_and_csv(command: Command) -> None:
    span = ("--since", "2026-10-01", "--by", "model")
    told = json.loads(command.shown(*span, "--format", "json"))
    assert told["total"] == {
        "requests": 12,
        "errors": 3,
        "prompt_tokens": 120,
        "completion_tokens": 60,
        "gpu_seconds": 24.5,
        "dollars": 0.01225,
    }
    rows = list(csv.DictReader(io.StringIO(command.shown(*span, "--format", "csv"))))
    assert [{name: str(value) for name, value in row.items()} for row in told["data"]] == rows


@pytest.mark.usefixtures("folder")
def test_rows_are_exported_as_csv_and_as_lines_of_json(command: Command) -> None:
    wanted = ("--rows", "--since", "2026-10-01", "--key", "anna")
    table = list(csv.DictReader(io.StringIO(command.shown(*wanted))))
    lines = [json.loads(line) for line in command.shown(*wanted, "--format", "json").splitlines()]
    assert len(table) == len(lines) == 7
    assert [row["id"] for row in table] == [row["id"] for row in lines]
    assert {row["key_name"] for row in lines} == {"anna"}


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--since", "yesterday"], "--since: must be like 30m"),
        (
            ["--since", "2026-11-02", "--until", "2026-11-01"],
            "--since: 2026-11-02 is after until, 2026-11-01",
        ),
        (["--rows", "--format", "table"], "--rows are printed as csv or json"),
        ([], "there is no database"),
    ],
)
def test_what_cannot_be_told_is_one_line(command: Command, options: list[str], says: str) -> None:
    code, out, err = command(*options)
    assert (code, out) == (2, "")
    assert err.startswith("error: ") and says in err
    assert not (command.folder / "gateway.db").exists()


def test_a_database_that_is_away_is_one_line_without_its_password(command: Command) -> None:
    url = "postgresql://me:canary-password@127.0.0.1:1/books"
    entry = {"store": {"url": url}, "models": {"m": {"upstream": {"kind": "demo"}}}}
    (command.folder / "gateway.yaml").write_text(json.dumps(entry))
    assert command() == (2, "", "error: PostgreSQL 127.0.0.1/books does not answer\n")


def test_a_database_without_a_ledger_is_left_as_it_is(command: Command) -> None:
    (command.folder / "gateway.db").touch()
    code, _, err = command()
    assert code == 2 and "has no ledger yet" in err


def test_what_has_no_price_has_no_dollars_where_none_were_spent() -> None:
    small, large = Line("small", "small", 3, 0, 1, 1, 5, 0), Line("large", "large", 3, 0, 1, 1, 5, 7)

    def dollars(by: asking.By, lines: list[Line], *priced: str, model: str | None = None) -> list[Any]:
        told = report(by, Asked(0, model=model), lines, priced)
        return [row["dollars"] for row in (*told["data"], told["total"])]

    assert dollars("model", [small, large], "small", "large") == [0, 7e-9, 7e-9]
    assert dollars("model", [small, large], "large") == [None, 7e-9, 7e-9]
    assert dollars("model", [small, large]) == [None, 7e-9, 7e-9]  # it had one then
    assert dollars("key", [small, small]) == dollars("day", [small, small]) == [None] * 3
    assert dollars("team", [small], "large") == [0, 0]  # it may be what the large one costs
    assert dollars("team", [small], "large", model="small") == [None, None]
    assert as_csv([{"dollars": None}]) == '""\r\n'


# --- over HTTP ---


@asynccontextmanager
async def pages(url: str, tmp_path: Path) -> AsyncIterator[tuple[Ledger, httpx.AsyncClient]]:
    async def admit(head: Mapping[bytes, bytes]) -> None:
        if head.get(b"x-api-key") != b"admin":
            raise Forbidden("no")

    def refuse(_: Request, error: Exception) -> Response:
        assert isinstance(error, GatewayError)
        return Response(error.json(), error.status, error.headers)

    async with books(url, tmp_path) as ledger:
        app = FastAPI()
        UsagePages(admit, ledger, lambda: NOON, lambda: {"m"}).add_to(app)
        app.add_exception_handler(GatewayError, refuse)
        transport = httpx.ASGITransport(app=app)
        headers = {"x-api-key": "admin"}
        async with httpx.AsyncClient(transport=transport, base_url="http://t", headers=headers) as client:
            yield ledger, client


async def test_sums_and_rows_over_http(database_url: str, tmp_path: Path) -> None:
    async with pages(database_url, tmp_path) as (ledger, client):
        await month(ledger)
        told = (await client.get("/admin/usage", params={"by": "key", "team": "t"})).json()
        assert [row["key"] for row in told["data"]] == ["=ben"] and told["total"]["requests"] == 6
        assert told["since"] == iso(moment("30d", NOON)) and told["until"] is None
        lines = await client.get("/admin/usage/rows", params={"key": "anna"})
        assert lines.headers["content-type"] == "application/x-ndjson"
        assert [json.loads(line)["key_id"] for line in lines.text.splitlines()] == ["k1"] * 7
        table = await client.get("/admin/usage/rows", params={"format": "csv", "since": "2026-11-01"})
        assert table.headers["content-type"] == "text/csv; charset=utf-8"
        assert len(list(csv.DictReader(io.StringIO(table.text)))) > 0


async def test_sums_over_http_are_csv_where_that_is_asked_for(database_url: str, tmp_path: Path) -> None:
    async with pages(database_url, tmp_path) as (ledger, client):
        await month(ledger)
        for wanted in ({"by": "key"}, {"by": "model", "per": "hour"}, {"since": "2026-01-01", "until": "1d"}):
            told = (await client.get("/admin/usage", params=wanted)).json()["data"]
            table = await client.get("/admin/usage", params={**wanted, "format": "csv"})
            assert table.headers["content-type"] == "text/csv; charset=utf-8"
            rows = csv.DictReader(io.StringIO(table.text))
            assert [row["requests"] for row in rows] == [str(row["requests"]) for row in told]
            assert not told or rows.fieldnames == list(told[0])
        other = await client.get("/admin/usage", params={"format": "xml"})
        assert (other.status_code, other.json()["error"]["param"]) == (400, "format")


async def test_a_span_that_has_only_an_end_begins_before_it(tmp_path: Path) -> None:
    async with pages(f"sqlite:///{tmp_path / 'gateway.db'}", tmp_path) as (_, client):
        told = (await client.get("/admin/usage", params={"until": "2026-01-01"})).json()
        assert told["since"] == "2025-12-02T00:00:00.000Z"


async def test_who_may_not_ask_is_told_nothing(tmp_path: Path) -> None:
    async with pages(f"sqlite:///{tmp_path / 'gateway.db'}", tmp_path) as (_, client):
        for path in ("/admin/usage", "/admin/usage/rows"):
            assert (await client.get(path, headers={"x-api-key": "client"})).status_code == 403


async def test_a_wrong_question_is_refused_and_a_missing_database_is_503(tmp_path: Path) -> None:
    async with pages(f"sqlite:///{tmp_path / 'gateway.db'}", tmp_path) as (ledger, client):
        wrong = await client.get("/admin/usage", params={"until": "soon"})
        assert (wrong.status_code, wrong.json()["error"]["param"]) == (400, "until")
        nobody = await client.get("/admin/usage", params={"key": "a\0b"})
        assert (nobody.status_code, nobody.json()["error"]["param"]) == (400, "key")
        backwards = await client.get("/admin/usage/rows", params={"since": "1d", "until": "2026-10-01"})
        assert (backwards.status_code, backwards.json()["error"]["param"]) == (400, "since")
        await ledger.settle()
        with sqlite3.connect(tmp_path / "gateway.db") as file:
            file.execute("DROP TABLE days")
        file.close()
        missing = await client.get("/admin/usage")
        assert (missing.status_code, missing.json()["error"]["code"]) == (503, "ledger_unavailable")


# --- ten million rows ---


@pytest.mark.soak
def test_a_month_of_ten_million_requests_is_told_in_two_seconds(tmp_path: Path) -> None:
    configure(tmp_path)
    engine = open_engine(SecretStr("sqlite:///gateway.db"), tmp_path)
    prepare(engine)
    engine.dispose()
    fill(tmp_path / "gateway.db", 10_000_000)
    began = time.perf_counter()
    done = run("usage", "--config", "gateway.yaml", "--since", "31d", "--format", "json", cwd=tmp_path)
    took = time.perf_counter() - began
    assert len(answer("key", f"sqlite:///{tmp_path / 'gateway.db'}")) == 20
    (tmp_path / "gateway.db").unlink()  # pytest would keep its gigabytes
    told = json.loads(done.stdout)
    assert took < 2
    assert 9_900_000 < told["total"]["requests"] <= 10_000_000
    assert len(told["data"]) == 31


def fill(file: Path, number: int) -> None:
    """Requests of the last 31 days, of 20 keys in 4 teams and of 5 models, and their sums."""
    now = int(time.time() * 1000)
    start = now // DAY * DAY - 30 * DAY
    row: dict[str, str] = dict.fromkeys((column.name for column in requests.columns), "NULL")
    row |= {"id": "printf('req_%024x', n)", "kind": "'request'", "asked": "'gpt-4'", "lost": "0"}
    row |= {"time": f"{start} + n * {now - start} / {number}", "key_id": "'k' || (n % 20)"}
    row |= {"key_name": "'key ' || (n % 20)", "team": "'team ' || (n % 4)", "model": "'model ' || (n % 5)"}
    row |= {"upstream": "'u'", "route": "'chat'", "status": "200", "finish": "'stop'", "streamed": "1"}
    row |= {"prompt_tokens": "100", "completion_tokens": "200", "tokens_source": "'upstream'"}
    row |= {"gpu_ns": "1500000000", "cost": "250000", "duration_ms": "1500"}
    series = f"WITH RECURSIVE s(n) AS (SELECT 0 UNION ALL SELECT n + 1 FROM s WHERE n < {number - 1})"
    sums = "sum(prompt_tokens), sum(completion_tokens), sum(gpu_ns), sum(cost)"
    with closing(sqlite3.connect(file, isolation_level=None)) as database:
        for line in (
            "PRAGMA journal_mode=OFF",  # it is made, or it is thrown away
            "PRAGMA synchronous=OFF",
            "DROP INDEX requests_time",
            f"INSERT INTO requests ({', '.join(row)}) {series} SELECT {', '.join(row.values())} FROM s",
            "CREATE INDEX requests_time ON requests (time)",
            f"INSERT INTO hours SELECT time / {HOUR} * {HOUR} AS b, key_id, team, model, max(key_name), "
            f"count(*), 0, {sums} FROM requests GROUP BY b, key_id, team, model",
            f"INSERT INTO days SELECT bucket / {DAY} * {DAY} AS b, key_id, team, model, max(key_name), "
            f"sum(requests), 0, {sums} FROM hours GROUP BY b, key_id, team, model",
            "PRAGMA journal_mode=WAL",
        ):
            database.execute(line)

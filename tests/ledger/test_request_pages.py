"""The ledger as a list: in order, page by page, narrowed down, and one request with all of it."""

from __future__ import annotations

import asyncio
import itertools
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import FastAPI

from gateway.ledger import Idle, Ledger
from gateway.ledger import queries as asking
from gateway.ledger.queries import Asked, newest
from gateway.ledger.request_pages import RequestPages
from gateway.pages.application import cold_routes
from tests.keys.gate import ADMIN, gate
from tests.ledger.books import NOON, books, database, served

ALL = Asked(0)
MOST = 100  # pages


@asynccontextmanager
async def pages(ledger: Ledger) -> AsyncIterator[httpx.AsyncClient]:
    """The routes alone, open to all."""

    @asynccontextmanager
    async def nothing(_: FastAPI) -> AsyncIterator[None]:
        yield

    async def admit(_: object) -> None:
        return

    app = cold_routes(nothing)
    RequestPages(admit, ledger, lambda: NOON + 3600).add_to(app)
    transport = httpx.ASGITransport(app=app)
    async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
        yield client


async def listed(client: httpx.AsyncClient, **query: Any) -> list[dict[str, Any]]:
    """Every page."""
    rows: list[dict[str, Any]] = []
    before: dict[str, str] = {}
    for _ in range(MOST):
        answer = await client.get("/admin/requests", params={"since": "2026-01-01", **query, **before})
        told = answer.json()
        assert answer.status_code == 200 and told["object"] == "list", told
        rows += told["data"]
        if told["next"] is None:
            return rows
        assert len(told["data"]) == query.get("limit", 50)
        before = {"before": told["next"]}
    raise AssertionError("the pages have no end")


@pytest.mark.parametrize("limit", [1, 7, 60, 200])
async def test_pages_hold_each_row_once_the_newest_first(
    database_url: str, tmp_path: Path, limit: int
) -> None:
    order = list(range(60))
    random.Random(5).shuffle(order)
    async with books(database_url, tmp_path) as ledger:
        for number in order:
            await served(ledger, f"r{number:02}", NOON + number // 4)  # four at a time come together
        ledger.idle([Idle("idle", NOON, "k1", "anna", None, "m", "u", 5, "estimated", 2)])
        await ledger.settle()
        async with pages(ledger) as client:
            rows = await listed(client, limit=limit)
    assert [row["id"] for row in rows] == [f"r{number:02}" for number in reversed(range(60))]


async def test_rows_that_come_meanwhile_are_shown_never_twice_and_hide_none(
    database_url: str, tmp_path: Path
) -> None:
    async with books(database_url, tmp_path) as ledger:
        for number in range(20):
            await served(ledger, f"old{number:02}", NOON + number)
        await ledger.settle()
        engine, seen, place = database(database_url), [], None
        try:
            for turn in range(MOST):
                page, place = await asyncio.to_thread(newest, engine, ALL, 3, place)
                seen += [row["id"] for row in page]
                if place is None:
                    break
                for at in (NOON + 100 + turn, NOON + 10.5, NOON - 100 - turn):  # the last one is still ahead
                    await served(ledger, f"new{turn:02}at{at}", at)
                await ledger.settle()
        finally:
            engine.dispose()
    assert len(seen) == len(set(seen))
    assert [id for id in seen if id.startswith("old")] == [f"old{n:02}" for n in reversed(range(20))]


async def test_they_are_narrowed_down(database_url: str, tmp_path: Path) -> None:
    async with books(database_url, tmp_path) as ledger:
        await served(ledger, "good", NOON, key_id="k1", key="anna")
        await served(ledger, "bad", NOON + 1, key_id="k2", key="ben", team="t", model="large", status=503)
        await served(ledger, "late", NOON + 2, key_id="k2", key="ben", code="upstream_error")
        await served(ledger, "left", NOON + 3, key_id="k2", key="ben", status=499, client_left=True)
        await ledger.settle()
        async with pages(ledger) as client:

            async def ids(**query: Any) -> list[str]:
                return [row["id"] for row in await listed(client, **query)]

            assert await ids() == ["left", "late", "bad", "good"]
            assert await ids(status="ok") == ["left", "good"]
            assert await ids(status="error") == ["late", "bad"]
            assert await ids(key="anna") == await ids(key="k1") == ["good"]
            assert await ids(key="ben", status="error", model="large") == ["bad"]
            assert await ids(team="t") == ["bad"]
            assert await ids(since="2026-11-01T12:00:02") == ["left", "late"]
            assert await ids(until="2026-11-01T12:00:01") == ["good"]


async def test_a_key_is_found_by_a_name_that_it_had_earlier_in_the_hour(
    database_url: str, tmp_path: Path
) -> None:
    async with books(database_url, tmp_path) as ledger:
        for number, name in enumerate(("old", "old", "new")):
            await served(ledger, f"r{number}", NOON + number, key_id="key_1", key=name)
        await ledger.settle()
        async with pages(ledger) as client:
            found = [[row["id"] for row in await listed(client, key=key)] for key in ("old", "new", "key_1")]
            good = await listed(client, key="old", status="ok")
    assert found == [["r1", "r0"], ["r2"], ["r2", "r1", "r0"]]
    assert [row["id"] for row in good] == found[0]


async def test_what_is_narrowed_down_comes_in_pages_over_many_hours(
    database_url: str, tmp_path: Path
) -> None:
    async with books(database_url, tmp_path) as ledger:
        for number in range(60):
            key, status = ("k1", 200) if number % 3 else ("key_2", 503 if number % 2 else 200)
            at = NOON + number * 1000  # some hours have none of a kind
            await served(ledger, f"r{number:02}", at, key_id=key, key=key, status=status)
        await ledger.settle()
        async with pages(ledger) as client:
            every = await listed(client, limit=200)
            for key, status in itertools.product((None, "k1", "key_2"), (None, "ok", "error")):
                query = {name: value for name, value in (("key", key), ("status", status)) if value}
                wanted = [
                    row["id"]
                    for row in every
                    if key in (None, row["key_id"])
                    and status in (None, "ok" if row["status"] == 200 else "error")
                ]
                for limit in (1, 5, 50):
                    assert [row["id"] for row in await listed(client, **query, limit=limit)] == wanted
            since, until = "2026-11-01T13:30", "2026-11-01T20:10"
            some = await listed(client, key="key_2", since=since, until=until, limit=3)
            inside = [row for row in every if since < row["time"] < until and row["key_id"] == "key_2"]
            assert some == inside != []


async def test_what_counts_as_an_error_here_counts_as_one_in_the_sums(
    database_url: str, tmp_path: Path
) -> None:
    async with books(database_url, tmp_path) as ledger:
        kinds: list[dict[str, Any]] = [
            {}, {"status": 499}, {"status": 404}, {"code": "x"}, {"client_left": True}, {"status": 0},
        ]  # fmt: skip
        for number, kind in enumerate(kinds):
            await served(ledger, f"r{number}", NOON, **kind)
        await ledger.begin(intent := _lost())
        await ledger.settle()
    assert intent.request_id == "lost"
    async with books(database_url, tmp_path) as ledger:  # takes over what the first one left
        await ledger.settle()
    engine = database(database_url)
    try:
        failed, _ = newest(engine, ALL, 99, failed=True)
        well, _ = newest(engine, ALL, 99, failed=False)
        [day] = asking.usage(engine, "day", ALL)
    finally:
        engine.dispose()
    assert (len(failed), len(failed) + len(well)) == (day.errors, day.requests)


def _lost() -> Any:
    from tests.ledger.books import intent

    return intent("lost")


async def test_one_request_comes_with_its_content_and_the_list_without(tmp_path: Path) -> None:
    async with gate(tmp_path, store={"log_content": True}) as here:
        key = {"x-api-key": ADMIN}
        asked = await here.ask("sk-of-the-configuration")
        id = asked.headers["x-request-id"]
        async with asyncio.timeout(20):
            while (one := await here.client.get(f"/admin/requests/{id}", headers=key)).status_code == 404:
                assert one.json()["error"]["code"] == "not_found"
        assert one.status_code == 200, one.text
        row = one.json()
        assert row["content"]["sent"] and row["content"]["answers"]
        [listed] = (await here.client.get("/admin/requests", headers=key)).json()["data"]
        assert {**listed, "content": row["content"]} == row
        exported = (await here.client.get("/admin/usage/rows", headers=key)).json()
        assert exported == listed


@pytest.mark.parametrize(
    ("query", "param"),
    [
        ("limit=0", "limit"),
        ("limit=201", "limit"),
        ("limit=x", "limit"),
        ("status=bad", "status"),
        ("before=x", "before"),
        ("before=1.a%00", "before"),
        ("before=" + "9" * 16 + ".a", "before"),
        ("since=soon", "since"),
        ("key=%00", "key"),
    ],
)
async def test_a_wrong_question_is_refused(tmp_path: Path, query: str, param: str) -> None:
    async with gate(tmp_path) as here:
        answer = await here.client.get(f"/admin/requests?{query}", headers={"x-api-key": ADMIN})
        assert (answer.status_code, answer.json()["error"]["param"]) == (400, param)


async def test_where_nothing_is_kept_it_says_so(tmp_path: Path) -> None:
    async with gate(tmp_path, keeps=False) as here:
        for path in ("requests", "requests/x", "usage", "usage/rows"):
            answer = await here.client.get(f"/admin/{path}", headers={"x-api-key": ADMIN})
            assert (answer.status_code, answer.json()["error"]["code"]) == (404, "no_ledger")
            assert (await here.client.get(f"/admin/{path}")).status_code == 401

"""What was used in each hour or day is what was used at all, cut where hours and days begin."""

import random
from collections import Counter
from pathlib import Path

import pytest

from gateway.ledger import Idle, Ledger
from gateway.ledger import queries as asking
from gateway.ledger.booking import sweep
from gateway.ledger.queries import Asked, Line, TooMany, usage
from gateway.ledger.ranges import iso
from gateway.ledger.rows import DAY, HOUR
from gateway.store.tables import SUMS
from tests.ledger.books import NOON, books, database, served
from tests.ledger.test_usage import month, pages

MIDDAY = int(NOON * 1000)


async def week(ledger: Ledger, chance: random.Random) -> None:
    """Many requests of some keys, teams and models in five days, and containers that waited."""
    for number in range(150):
        key = f"k{chance.randrange(5)}"
        await served(
            ledger,
            f"r{number}",
            NOON - chance.uniform(0, 5 * 86_400),
            key_id=key,
            key=f"name of {key}",
            team=chance.choice([None, "a", "b"]),
            model=chance.choice(["small", "large"]),
            status=chance.choice([200, 200, 499, 503]),
            gpu=chance.randrange(10**10),
            cost=chance.choice([None, chance.randrange(10**9)]),
        )
    for number in range(20):
        at = NOON - chance.uniform(0, 5 * 86_400)
        ledger.idle([Idle(f"i{number}", at, "k1", "name of k1", "a", "small", "u", number, "estimated", 7)])
    await ledger.settle()


def questions(chance: random.Random) -> list[Asked]:
    """All of it, whole days and hours, and what begins and ends anywhere; some narrowed down."""
    start = MIDDAY - 5 * DAY
    spans: list[tuple[int, int | None]] = [(0, None), (start // DAY * DAY, MIDDAY // DAY * DAY)]
    spans += [(start // HOUR * HOUR, MIDDAY // HOUR * HOUR), (MIDDAY - 1, MIDDAY)]
    for _ in range(6):
        since, until = sorted(chance.randrange(start, MIDDAY) for _ in range(2))
        spans += [(since, until), (since, None)]
    whose = ({}, {"key": "k1"}, {"team": ""}, {"model": "large"})
    return [Asked(*span, **chance.choice(whose)) for span in spans]


def sums(lines: list[Line]) -> dict[str, Counter[str]]:
    """Of each key, team, model or day, all its lines added up."""
    found: dict[str, Counter[str]] = {}
    for line in lines:
        found.setdefault(line.id, Counter()).update({name: getattr(line, name) for name in SUMS})
    return found


@pytest.mark.parametrize("seed", range(2))
async def test_all_hours_and_all_days_add_up_to_the_whole(
    database_url: str, tmp_path: Path, seed: int
) -> None:
    chance = random.Random(seed)
    async with books(database_url, tmp_path) as ledger:
        await week(ledger, chance)
    engine = database(database_url)
    for asked in questions(chance):
        for by in ("key", "team", "model", "day"):
            whole = sums(usage(engine, by, asked))
            for per in ("hour", "day"):
                assert sums(usage(engine, by, asked, per)) == whole, (by, per, asked)
    engine.dispose()


@pytest.mark.parametrize(("per", "width"), [("hour", HOUR), ("day", DAY)])
async def test_a_line_is_what_was_used_from_its_start_on(
    database_url: str, tmp_path: Path, per: asking.Per, width: int
) -> None:
    async with books(database_url, tmp_path) as ledger:
        await week(ledger, random.Random(7))
    engine = database(database_url)
    since, until = MIDDAY - 3 * DAY + 1234, MIDDAY - DAY - 4321
    lines = usage(engine, "key", Asked(since, until), per)
    places = [(line.start or 0, line.id) for line in lines]
    assert len(set(places)) == len(places) > 5
    assert [start for start, _ in places] == sorted(start for start, _ in places)
    for start in {start for start, _ in places}:
        assert start % width == 0 and since - width < start < until
        alone = usage(engine, "key", Asked(max(start, since), min(start + width, until)))
        assert [line._replace(start=None) for line in lines if line.start == start] == alone
    engine.dispose()


async def test_more_lines_than_an_answer_may_have_are_refused(
    database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with pages(database_url, tmp_path) as (ledger, client):
        await month(ledger)
        monkeypatch.setattr(asking, "LINES", 12)
        everything = {"by": "key", "per": "hour"}
        assert len((await client.get("/admin/usage", params=everything)).json()["data"]) == 12
        monkeypatch.setattr(asking, "LINES", 11)
        refused = await client.get("/admin/usage", params=everything)
        error = refused.json()["error"]
        assert (refused.status_code, error["param"], error["code"]) == (400, "per", "invalid_value")
        assert "more than 11 lines" in error["message"]
        monkeypatch.setattr(asking, "LINES", 1)
        refused = await client.get("/admin/usage", params={"by": "key"})
        error = refused.json()["error"]
        assert (refused.status_code, error["param"], error["code"]) == (400, "by", "invalid_value")
        monkeypatch.setattr(asking, "LINES", 11)
        for fits in ({"per": "day"}, {"per": "hour", "key": "anna"}, {}):
            assert (await client.get("/admin/usage", params={"by": "key", **fits})).status_code == 200
    engine = database(database_url)
    with pytest.raises(TooMany):
        usage(engine, "model", Asked(0), "hour", 11)
    engine.dispose()


async def test_hours_over_http_say_when_they_begin(database_url: str, tmp_path: Path) -> None:
    async with pages(database_url, tmp_path) as (ledger, client):
        await month(ledger)
        query = {"since": "2026-10-31T18:00", "until": "2026-11-01T12:00"}
        told = (await client.get("/admin/usage", params={**query, "by": "team", "per": "hour"})).json()
        whole = (await client.get("/admin/usage", params={**query, "by": "team"})).json()
    assert [(line["start"], line["team"], line["requests"]) for line in told["data"]] == [
        ("2026-10-31T18:00:00.000Z", "t", 1),
        ("2026-11-01T00:00:00.000Z", None, 1),
        ("2026-11-01T06:00:00.000Z", "t", 1),
    ]
    assert (told["per"], told["total"]) == ("hour", whole["total"])
    assert "per" not in whole and all("start" not in line for line in whole["data"])


async def test_hours_that_are_no_longer_kept_have_no_line(database_url: str, tmp_path: Path) -> None:
    async with books(database_url, tmp_path) as ledger:
        await month(ledger)
    engine = database(database_url)
    while sweep(engine, MIDDAY // DAY * DAY):
        pass
    hours = usage(engine, "key", Asked(0), "hour")
    assert [line.start for line in hours] == [MIDDAY - ago * HOUR for ago in (12, 6, 0)]
    days = usage(engine, "key", Asked(0), "day")
    engine.dispose()
    assert sum(line.requests for line in days) == 12
    assert iso(days[0].start or 0) == "2026-10-29T00:00:00.000Z"

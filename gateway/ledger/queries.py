"""What was used: sums by key, team, model or day, hour by hour if that is asked, and the rows themselves.

Rule: sums of whole hours and days come from the roll-ups: a month costs the same whatever was served in it.
Numbers are whole: tokens, nanoseconds of GPU, billionths of a dollar. Synchronous, for threads.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal, NamedTuple, TypeAlias

from sqlalchemy import (
    BigInteger,
    ColumnElement,
    Connection,
    Engine,
    Select,
    Table,
    and_,
    case,
    func,
    literal,
    literal_column,
    not_,
    null,
    or_,
    select,
    tuple_,
)

from gateway.keys.terms import reserved
from gateway.ledger.ranges import Part, iso, parts
from gateway.ledger.rows import CLIENT_LEFT, DAY, HOUR, LEFT
from gateway.store.engine import reading
from gateway.store.tables import SUMS, days, hours, requests

By: TypeAlias = Literal["key", "team", "model", "day"]
Per: TypeAlias = Literal["hour", "day"]
Scope: TypeAlias = Literal["key", "team", "model"]

PAGE = 1000  # rows read at once
LOOKS = 10  # hours in which the last answers of a model are looked for
LINES = 20_000  # of an answer over HTTP, 5 MB of JSON: 640 keys on each day of a month
WIDTHS: Mapping[Per, int] = {"hour": HOUR, "day": DAY}  # milliseconds
SHOWN = tuple(str(column.name) for column in requests.columns if column.name != "content")
"""Columns of exported rows."""
Cursor: TypeAlias = tuple[int, str]
"""Time and id of a row, which together are its place."""


class Asked(NamedTuple):
    """Which rows: milliseconds since 1970, the end not included; a key by its id or its name."""

    since: int
    until: int | None = None
    key: str | None = None
    team: str | None = None
    model: str | None = None

    @property
    def narrowed(self) -> bool:
        """Whether only those of a key, team or model are asked for."""
        return (self.key, self.team, self.model) != (None, None, None)


class TooMany(Exception):
    """An answer would have more lines than it may."""


class Line(NamedTuple):
    """The sums of one key, team, model or day, of all the time or of an hour or day of it."""

    id: str  # of the key; else the same as its name
    name: str
    requests: int
    errors: int
    prompt_tokens: int
    completion_tokens: int
    gpu_ns: int
    cost: int
    start: int | None = None  # of the hour or day, milliseconds since 1970


def usage(
    engine: Engine, by: By, asked: Asked, per: Per | None = None, most: int | None = None
) -> list[Line]:
    """One line for each that used anything, days in order, the rest by cost and tokens, the largest first.

    ``per`` hour or day in UTC: a line for each that used anything in it, in the order of time. Hours whose
    sums are no longer kept have none. Raises ``TooMany`` if there are more than ``most`` lines.
    """
    found: dict[tuple[int | None, str], list[Any]] = {}
    limit = None if most is None else most + 1
    with reading(engine) as connection:
        for part in parts(asked.since, asked.until):
            for id, name, *numbers, start in connection.execute(_grouped(part, by, asked, per).limit(limit)):
                place = start, str(id)
                known = found.setdefault(place, [name, *[0] * len(SUMS)])
                found[place] = [name, *(old + int(new) for old, new in zip(known[1:], numbers, strict=True))]
            if most is not None and len(found) > most:
                raise TooMany
    lines = [
        Line._make((_named(by, id), _named(by, str(name)), *numbers, start))
        for (start, id), (name, *numbers) in found.items()
    ]
    return sorted(lines, key=lambda line: (line.start or 0, *_rank(by, line)))


def _rank(by: By, line: Line) -> tuple[int | str, ...]:
    if by == "day":
        return (line.id,)
    return -line.cost, -line.prompt_tokens - line.completion_tokens, line.id


def spent(engine: Engine, scope: Scope, id: str, since: int) -> tuple[int, int, int]:
    """Tokens, billionths of a dollar and nanoseconds of GPU of one key (by id), team or model."""
    tokens = cost = gpu = 0
    with reading(engine) as connection:
        for part in parts(since, None):
            table, columns = _source(part)
            used = columns["prompt_tokens"] + columns["completion_tokens"], columns["cost"], columns["gpu_ns"]
            whose = table.c[{"key": "key_id", "team": "team", "model": "model"}[scope]] == id
            query = select(*map(_total, used)).where(whose, _within(table, part))
            more = connection.execute(query).one()
            tokens, cost, gpu = tokens + int(more[0]), cost + int(more[1]), gpu + int(more[2])
    return tokens, cost, gpu


def rows(engine: Engine, asked: Asked) -> Iterator[Sequence[dict[str, Any]]]:
    """Rows in the order of time, a page at a time, each in a transaction of its own."""
    after: tuple[int, str] | None = None
    while True:
        query = select(*(requests.c[name] for name in SHOWN)).where(_within(requests, _rows_of(asked)))
        query = query.where(*_whose(requests, asked)).order_by(requests.c.time, requests.c.id).limit(PAGE)
        if after is not None:
            query = query.where(tuple_(requests.c.time, requests.c.id) > tuple_(*map(literal, after)))
            query = query.where(requests.c.time >= after[0])  # which the index understands
        with reading(engine) as connection:
            page = [dict(zip(SHOWN, row, strict=True)) for row in connection.execute(query)]
        if page:
            after = (page[-1]["time"], page[-1]["id"])
            yield [{**row, "time": iso(row["time"])} for row in page]
        if len(page) < PAGE:
            return


def newest(
    engine: Engine, asked: Asked, most: int, before: Cursor | None = None, *, failed: bool | None = None
) -> tuple[list[dict[str, Any]], Cursor | None]:
    """Requests, the latest first, those ``before`` a place; and the place of the last if there are more.

    ``failed``: those that count as errors, or those that do not.
    """
    if before is not None:
        asked = asked._replace(until=_sooner(before[0] + 1, asked.until))
    found: list[Any] = []
    with reading(engine) as connection:
        for part in _searched(connection, asked, failed):
            query = _latest(part, asked, failed).limit(most + 1 - len(found))
            if before is not None:
                query = query.where(tuple_(requests.c.time, requests.c.id) < tuple_(*map(literal, before)))
            found += connection.execute(query)
            if len(found) > most:
                break
    page = [dict(zip(SHOWN, row, strict=True)) for row in found[:most]]
    last = (page[-1]["time"], page[-1]["id"]) if len(found) > most else None
    return [{**row, "time": iso(row["time"])} for row in page], last


def _searched(connection: Connection, asked: Asked, failed: bool | None) -> list[Part]:
    """Where to look, the latest first: of what is narrowed down, the hours that the sums say have any.

    A sum has the newest name of its key alone, so it says nothing of a name that a key had before.
    """
    whole = _rows_of(asked)
    if asked.key is not None and not reserved(asked.key):
        asked = asked._replace(key=None)
    if failed is None and not asked.narrowed:
        return [whole]
    least = hours.c.errors if failed is False else 0  # requests that are not meant
    some = hours.c.errors > 0 if failed else hours.c.requests > least
    begun = whole._replace(start=asked.since - HOUR + 1)
    query = select(hours.c.bucket).where(some, _within(hours, begun), *_whose(hours, asked))
    buckets = connection.execute(query.distinct().order_by(hours.c.bucket.desc())).scalars()
    return [Part("rows", max(at, asked.since), _sooner(at + HOUR, asked.until)) for at in buckets]


def _sooner(end: int, until: int | None) -> int:
    return end if until is None else min(end, until)


def _latest(part: Part, asked: Asked, failed: bool | None) -> Select[Any]:
    query = select(*(requests.c[name] for name in SHOWN)).where(
        requests.c.kind == "request", _within(requests, part), *_whose(requests, asked)
    )
    if failed is not None:
        query = query.where(_wrong() if failed else not_(_wrong()))
    return query.order_by(requests.c.time.desc(), requests.c.id.desc())


def one(engine: Engine, id: str) -> dict[str, Any] | None:
    """The row of this id, with what was kept of its content."""
    with reading(engine) as connection:
        row = connection.execute(select(requests).where(requests.c.id == id)).mappings().one_or_none()
    return None if row is None else {str(name): row[name] for name in row} | {"time": iso(row["time"])}


def lately(engine: Engine, model: str, most: int) -> list[tuple[int | None, int | None, int]]:
    """Cost, GPU time and tokens of the last answers of a model, the newest first.

    Of those that were whole, and of the last ``LOOKS`` hours that had any.
    """
    row, found = requests.c, list[tuple[int | None, int | None, int]]()
    some = select(hours.c.bucket).where(hours.c.model == model, hours.c.requests > hours.c.errors)
    some = some.distinct().order_by(hours.c.bucket.desc()).limit(LOOKS)
    well = row.kind == "request", row.model == model, row.status == 200, row.code.is_(None), ~row.lost
    query = select(row.cost, row.gpu_ns, row.completion_tokens).where(*well, row.tokens_source.is_not(None))
    query = query.order_by(row.time.desc(), row.id.desc())
    with reading(engine) as connection:
        for bucket in list(connection.execute(some).scalars()):
            within = _within(requests, Part("rows", bucket, bucket + HOUR))
            answers = connection.execute(query.where(within).limit(most - len(found)))
            found += [(cost, gpu, int(tokens)) for cost, gpu, tokens in answers]
            if len(found) >= most:
                break
    return found


def _rows_of(asked: Asked) -> Part:
    return Part("rows", asked.since, asked.until)


def _grouped(part: Part, by: By, asked: Asked, per: Per | None) -> Select[Any]:
    if per == "hour" and part.source == "days":
        part = part._replace(source="hours")
    table, columns = _source(part)
    time = table.c.time if part.source == "rows" else table.c.bucket
    team = func.coalesce(table.c.team, literal_column("''"))
    group: ColumnElement[Any] = {
        "key": table.c.key_id,
        "team": team,
        "model": table.c.model,
        "day": _floor(time, DAY),
    }[by]
    name = func.max(table.c.key_name) if by == "key" else group
    numbers = [_total(columns[column]) for column in SUMS]
    within = and_(_within(table, part), *_whose(table, asked))
    if per is None:
        return select(group, name, *numbers, null()).where(within).group_by(group)
    start = _floor(time, WIDTHS[per])
    return select(group, name, *numbers, start).where(within).group_by(group, start)


def _floor(time: ColumnElement[Any], width: int) -> ColumnElement[Any]:
    return time - time % literal_column(str(width), BigInteger)  # a parameter would be two


def _source(part: Part) -> tuple[Table, dict[str, ColumnElement[Any]]]:
    """The table of a part, and its numbers; rows of idle containers are no requests."""
    if part.source != "rows":
        table = hours if part.source == "hours" else days
        return table, {name: table.c[name] for name in SUMS}
    row = requests.c
    asked = row.kind == "request"
    columns: dict[str, ColumnElement[Any]] = {
        name: func.coalesce(row[name], 0) for name in SUMS if name in row
    }
    columns["requests"] = case((asked, 1), else_=0)
    columns["errors"] = case((and_(asked, _wrong()), 1), else_=0)
    return requests, columns


def _wrong() -> ColumnElement[bool]:
    """Whether a request counts as an error; as ``failed`` of its row."""
    row = requests.c
    code = func.coalesce(row.code, CLIENT_LEFT) != CLIENT_LEFT
    return or_(row.lost, code, and_(row.status >= 400, row.status != LEFT))


def _total(column: ColumnElement[Any]) -> ColumnElement[Any]:
    return func.coalesce(func.sum(column), 0)


def _within(table: Table, part: Part) -> ColumnElement[bool]:
    time = table.c.time if table is requests else table.c.bucket
    later = time >= part.start
    return later if part.end is None else and_(later, time < part.end)


def _whose(table: Table, asked: Asked) -> list[ColumnElement[bool]]:
    wanted = []
    if asked.key is not None:
        wanted.append(or_(table.c.key_id == asked.key, table.c.key_name == asked.key))
    if asked.team is not None:
        wanted.append(func.coalesce(table.c.team, "") == asked.team)
    if asked.model is not None:
        wanted.append(table.c.model == asked.model)
    return wanted


def _named(by: By, value: str) -> str:
    return iso(int(value))[:10] if by == "day" else value

"""What was used: sums by key, team, model or day, and the rows themselves.

Rule: sums of whole hours and days come from the roll-ups: a month costs the same whatever was served in it.
Numbers are whole: tokens, nanoseconds of GPU, billionths of a dollar. Synchronous, for threads.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Literal, NamedTuple, TypeAlias

from sqlalchemy import (
    BigInteger,
    ColumnElement,
    Engine,
    Select,
    Table,
    and_,
    case,
    func,
    literal,
    literal_column,
    or_,
    select,
    tuple_,
)

from gateway.ledger.ranges import Part, iso, parts
from gateway.ledger.rows import CLIENT_LEFT, DAY, LEFT
from gateway.store.engine import reading
from gateway.store.tables import SUMS, days, hours, requests

By: TypeAlias = Literal["key", "team", "model", "day"]
Scope: TypeAlias = Literal["key", "team", "model"]

PAGE = 1000  # rows read at once
SHOWN = tuple(str(column.name) for column in requests.columns if column.name != "content")
"""Columns of exported rows."""


class Asked(NamedTuple):
    """Which rows: milliseconds since 1970, the end not included; a key by its id or its name."""

    since: int
    until: int | None = None
    key: str | None = None
    team: str | None = None
    model: str | None = None


class Line(NamedTuple):
    """The sums of one key, team, model or day."""

    id: str  # of the key; else the same as its name
    name: str
    requests: int
    errors: int
    prompt_tokens: int
    completion_tokens: int
    gpu_ns: int
    cost: int


def usage(engine: Engine, by: By, asked: Asked) -> list[Line]:
    """One line for each that used anything, days in order, the rest by cost and tokens, the largest first."""
    found: dict[str, list[Any]] = {}
    with reading(engine) as connection:
        for part in parts(asked.since, asked.until):
            for id, name, *numbers in connection.execute(_grouped(part, by, asked)):
                key = str(id)
                known = found.setdefault(key, [name, *[0] * len(SUMS)])
                found[key] = [name, *(old + int(new) for old, new in zip(known[1:], numbers, strict=True))]
    lines = [Line(_named(by, id), _named(by, str(name)), *numbers) for id, (name, *numbers) in found.items()]
    if by == "day":
        return sorted(lines)
    return sorted(lines, key=lambda line: (-line.cost, -line.prompt_tokens - line.completion_tokens, line))


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


def _rows_of(asked: Asked) -> Part:
    return Part("rows", asked.since, asked.until)


def _grouped(part: Part, by: By, asked: Asked) -> Select[Any]:
    table, columns = _source(part)
    time = table.c.time if part.source == "rows" else table.c.bucket
    team = func.coalesce(table.c.team, literal_column("''"))
    group: ColumnElement[Any] = {
        "key": table.c.key_id,
        "team": team,
        "model": table.c.model,
        "day": time - time % literal_column(str(DAY), BigInteger),  # a parameter would be two
    }[by]
    name = func.max(table.c.key_name) if by == "key" else group
    query = select(group, name, *(_total(columns[column]) for column in SUMS))
    return query.where(_within(table, part), *_whose(table, asked)).group_by(group)


def _source(part: Part) -> tuple[Table, dict[str, ColumnElement[Any]]]:
    """The table of a part, and its numbers; rows of idle containers are no requests."""
    if part.source != "rows":
        table = hours if part.source == "hours" else days
        return table, {name: table.c[name] for name in SUMS}
    row = requests.c
    asked = row.kind == "request"
    wrong = or_(row.lost, row.code != CLIENT_LEFT, and_(row.status >= 400, row.status != LEFT))
    columns: dict[str, ColumnElement[Any]] = {
        name: func.coalesce(row[name], 0) for name in SUMS if name in row
    }
    columns["requests"] = case((asked, 1), else_=0)
    columns["errors"] = case((and_(asked, wrong), 1), else_=0)
    return requests, columns


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

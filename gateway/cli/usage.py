"""``usage``: what was used, from the database that the configuration names.

Rule: only looks; a ledger that is not there is not made. Needs no gateway that runs, and sees what one has
booked until now.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

from sqlalchemy import Engine
from sqlalchemy.exc import SQLAlchemyError

from gateway.cli import show
from gateway.cli.show import CommandError
from gateway.cli.sources import Source
from gateway.cli.tables import Look, table
from gateway.core.price import Price
from gateway.keys.key_store import trouble
from gateway.ledger.queries import SHOWN, By, Line, rows, usage
from gateway.ledger.reports import NUMBERS, as_csv, lines_of, question, report, sums_as_csv
from gateway.store.engine import open_engine, reading, shown
from gateway.store.schema import HEAD, revision

Format = Literal["table", "json", "csv"]
HEADS = ("REQUESTS", "ERRORS", "PROMPT TOKENS", "ANSWER TOKENS", "GPU SECONDS", "DOLLARS")


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which part of the ledger."""

    since: str | None = None
    until: str | None = None
    key: str | None = None
    team: str | None = None
    model: str | None = None

    def asked(self) -> Any:
        try:
            return question(self.since, self.until, time.time(), self.key, self.team, self.model)
        except ValueError as error:
            raise CommandError(f"--{error}") from None


def sums(source: Source, by: By, wanted: Wanted, format: Format) -> None:
    """Print one line for each key, team, model or day that used anything."""
    asked, models = wanted.asked(), source.settings().models
    with _ledger(source) as engine:
        lines = usage(engine, by, asked)
    priced = [name for name, model in models.items() if Price(**dict(model.price))]
    found = report(by, asked, lines, priced)
    if format == "json":
        show.as_json(found)
    elif format == "csv":
        sys.stdout.write(sums_as_csv(found))
    else:
        _table(by, lines, found)


def export(source: Source, wanted: Wanted, *, as_lines: bool) -> None:
    """Print every row, oldest first; as many are in memory as a page has."""
    asked = wanted.asked()
    with _ledger(source) as engine:
        if not as_lines:
            sys.stdout.write(as_csv((), head=SHOWN))
        for page in rows(engine, asked):
            sys.stdout.write(lines_of(page) if as_lines else as_csv(page))


@contextmanager
def _ledger(source: Source) -> Iterator[Engine]:
    """The database, if this version can read it. Raises ``CommandError``."""
    store = source.settings().store
    engine = open_engine(store.url, source.folder, create=False)
    try:
        with reading(engine) as connection:
            found = revision(connection)
        if found != HEAD:
            state = "has no ledger yet" if found is None else "is of another version"
            raise CommandError(f"{shown(store.url)} {state}; the gateway sees to that when it serves")
        yield engine
    except SQLAlchemyError as error:
        said = str(getattr(error, "orig", None) or error).strip()
        raise CommandError(f"{shown(store.url)} {trouble(error) or f'cannot be read: {said}'}") from None
    finally:
        engine.dispose()


def _table(by: By, lines: Sequence[Line], found: dict[str, Any]) -> None:
    cells = [(_name(by, line), *_cells(row)) for line, row in zip(lines, found["data"], strict=True)]
    total = ("total", *_cells(found["total"]))
    look = Look(right=HEADS, spare=("ERRORS", "PROMPT TOKENS"), total=True)
    table((by.upper(), *HEADS), [*cells, total], look)


def _name(by: By, line: Line) -> str:
    if by == "key" and line.name != line.id:
        plain = line.id in ("", "-") or line.id.startswith("config:")  # no other key is called so
        return line.name if plain else f"{line.name} ({line.id})"
    return line.name or "-"


def _cells(row: dict[str, Any]) -> list[str]:
    whole = [f"{row[name]:,}" for name in NUMBERS[:4]]
    dollars = row["dollars"]
    return [*whole, f"{row['gpu_seconds']:,.1f}", "-" if dollars is None else f"{dollars:,.4f}"]

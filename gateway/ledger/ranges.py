"""A span of time as whole days, whole hours, and what is left of single rows.

Rule: pure. The parts are disjoint, in order, and together the span. Knows no table.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import Literal, NamedTuple, TypeAlias

from gateway.ledger.rows import DAY, HOUR

Source: TypeAlias = Literal["rows", "hours", "days"]
LATEST = 253_370_764_800_000  # the first day of the year 9999, which every time zone can write
BACK = re.compile(r"([0-9]{1,5})([mhdw])")
MINUTE = 60_000  # milliseconds


class Part(NamedTuple):
    """Milliseconds since 1970, the end not included; no end: all that is later."""

    source: Source
    start: int
    end: int | None


def parts(since: int, until: int | None) -> list[Part]:
    """``since`` to ``until`` from the largest sums there are."""
    first_hour, first_day = -(-since // HOUR) * HOUR, -(-since // DAY) * DAY
    if until is None:
        found = [
            Part("rows", since, first_hour),
            Part("hours", first_hour, first_day),
            Part("days", first_day, None),
        ]
    elif first_hour > (last_hour := until // HOUR * HOUR):
        found = [Part("rows", since, until)]
    elif first_day > (last_day := until // DAY * DAY):
        found = [
            Part("rows", since, first_hour),
            Part("hours", first_hour, last_hour),
            Part("rows", last_hour, until),
        ]
    else:
        found = [
            Part("rows", since, first_hour),
            Part("hours", first_hour, first_day),
            Part("days", first_day, last_day),
            Part("hours", last_day, last_hour),
            Part("rows", last_hour, until),
        ]
    return [part for part in found if part.end is None or part.start < part.end]


def moment(text: str, now: float) -> int:
    """``30m`` or ``12h`` before ``now``; ``today``, ``7d`` or ``1w``: today in UTC, and the six days before.

    Or a date or time in ISO 8601, by default UTC. Milliseconds since 1970. Raises ``ValueError``.
    """
    said = "1d" if text.strip() == "today" else text.strip()
    if back := BACK.fullmatch(said):
        number, unit = int(back[1]), back[2]
        if unit in "mh":
            return max(int(now * 1000) - number * (HOUR if unit == "h" else MINUTE), 0)
        days = number * 7 if unit == "w" else number
        return max(int(now * 1000) // DAY - max(days - 1, 0), 0) * DAY
    try:
        at = datetime.fromisoformat(said)
    except ValueError:
        raise ValueError("must be like 30m, 12h, 7d, 2w, today, 2026-11-01 or 2026-11-01T10:00Z") from None
    at = at if at.tzinfo else at.replace(tzinfo=UTC)
    return min(max((at - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(milliseconds=1), 0), LATEST)


def usual(until: int | None, now: float) -> int:
    """Where a span begins if nothing is said of it: thirty days with the last one.

    That is the last day before ``until``, in milliseconds since 1970, or today where that is later.
    """
    return moment("30d", now if until is None else min(now, (until - 1) / 1000))


def iso(at: int) -> str:
    """``2026-11-01T10:00:00.000Z``."""
    return datetime.fromtimestamp(at / 1000, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")

"""A span is cut into days, hours and rows without a gap and without an overlap."""

from datetime import UTC, datetime
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.ledger.ranges import LATEST, iso, moment, parts, usual
from gateway.ledger.rows import DAY, HOUR

NOW = datetime(2026, 11, 15, 13, 30, tzinfo=UTC).timestamp()
MOMENTS = st.one_of(
    st.integers(0, 5 * DAY),
    st.integers(0, 5 * 24).map(lambda hours: hours * HOUR),
    st.integers(0, 5).map(lambda days: days * DAY),
)


@given(MOMENTS, st.one_of(st.none(), MOMENTS))
def test_the_parts_are_the_span(since: int, until: int | None) -> None:
    found = parts(since, until)
    if until is not None and until <= since:
        assert found == []
        return
    assert (found[0].start, found[-1].end) == (since, until)
    assert all(one.end == other.start for one, other in pairwise(found))
    for part in found:
        width = {"rows": 1, "hours": HOUR, "days": DAY}[part.source]
        assert part.start % width == 0 and (part.end is None or part.end % width == 0)


@given(MOMENTS, MOMENTS)
def test_single_rows_are_read_for_less_than_two_hours(since: int, until: int) -> None:
    read = [part for part in parts(since, until) if part.source == "rows" and part.end is not None]
    assert sum((part.end or 0) - part.start for part in read) < 2 * HOUR


@pytest.mark.parametrize(
    ("text", "at"),
    [
        ("1d", "2026-11-15T00:00:00.000Z"),
        ("7d", "2026-11-09T00:00:00.000Z"),
        ("12h", "2026-11-15T01:30:00.000Z"),
        ("30m", "2026-11-15T13:00:00.000Z"),
        ("1w", "2026-11-09T00:00:00.000Z"),
        ("2w", "2026-11-02T00:00:00.000Z"),
        (" today ", "2026-11-15T00:00:00.000Z"),
        ("2026-11-01", "2026-11-01T00:00:00.000Z"),
        ("2026-11-01T10:00", "2026-11-01T10:00:00.000Z"),
        ("2026-11-01T10:00+02:00", "2026-11-01T08:00:00.000Z"),
    ],
)
def test_a_moment_as_people_write_it(text: str, at: str) -> None:
    assert iso(moment(text, NOW)) == at


@pytest.mark.parametrize(
    "text", ["99999w", "99999d", "99999h", "99999m", "0001-01-01T00:00+14:00", "9999-12-31T23:59-14:00"]
)
def test_every_moment_can_be_written(text: str) -> None:
    assert moment(iso(moment(text, NOW)), NOW) == moment(text, NOW)


@pytest.mark.parametrize("text", ["", "yesterday", "7y", "-3d", "2026-13-01", "٣d"])
def test_what_is_no_moment_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="must be like 30m"):
        moment(text, NOW)


def at(text: str) -> int:
    return moment(text, NOW)


@pytest.mark.parametrize(
    ("until", "since"),
    [
        (None, "2026-10-17"),
        ("2026-11-15T09:00Z", "2026-10-17"),
        ("2026-01-01", "2025-12-02"),
        ("2099-01-01", "2026-10-17"),
    ],
)
def test_what_is_left_out_is_thirty_days_before_the_end(until: str | None, since: str) -> None:
    assert usual(None if until is None else at(until), NOW) == at(since)


@given(st.integers(0, LATEST))
def test_no_span_ends_before_it_begins(until: int) -> None:
    assert 0 <= usual(until, NOW) <= until

"""A span is cut into days, hours and rows without a gap and without an overlap."""

from datetime import UTC, datetime
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.ledger.ranges import iso, moment, parts
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
        ("2026-11-01", "2026-11-01T00:00:00.000Z"),
        ("2026-11-01T10:00", "2026-11-01T10:00:00.000Z"),
        ("2026-11-01T10:00+02:00", "2026-11-01T08:00:00.000Z"),
    ],
)
def test_a_moment_as_people_write_it(text: str, at: str) -> None:
    assert iso(moment(text, NOW)) == at


@pytest.mark.parametrize("text", ["99999d", "99999h", "0001-01-01T00:00+14:00", "9999-12-31T23:59-14:00"])
def test_every_moment_can_be_written(text: str) -> None:
    assert moment(iso(moment(text, NOW)), NOW) == moment(text, NOW)


@pytest.mark.parametrize("text", ["", "yesterday", "7w", "-3d", "2026-13-01", "٣d"])
def test_what_is_no_moment_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="must be like 7d"):
        moment(text, NOW)

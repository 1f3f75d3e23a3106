"""The hours of a schedule: when they begin and end, across midnight, daylight saving and restarts."""

from datetime import datetime
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.settings import ConfigError, settings_from
from gateway.warming.hours import Hours, Warm


def hours(cron: str, until: str, timezone: str = "UTC") -> Hours:
    return Warm(cron=cron, until=until, timezone=timezone).hours


def moment(text: str, timezone: str = "UTC") -> float:
    return datetime.fromisoformat(text).replace(tzinfo=ZoneInfo(timezone)).timestamp()


WEEKDAYS = hours("0 8 * * 1-5", "18:00")  # 2026-11-20 was a Friday


@pytest.mark.parametrize(
    ("now", "due", "changes"),
    [
        ("2026-11-20T07:59:59", False, "2026-11-20T08:00"),
        ("2026-11-20T08:00", True, "2026-11-20T18:00"),
        ("2026-11-20T17:59:59.5", True, "2026-11-20T18:00"),
        ("2026-11-20T18:00", False, "2026-11-23T08:00"),
        ("2026-11-21T12:00", False, "2026-11-23T08:00"),
    ],
)
def test_a_moment_alone_says_whether_it_is_time(now: str, due: bool, changes: str) -> None:
    found = WEEKDAYS.due(moment(now))
    assert (found.now, found.changes) == (due, moment(changes))


@pytest.mark.parametrize(
    ("cron", "until", "now", "due", "changes"),
    [
        ("0 22 * * *", "06:00", "2026-11-21T05:00", True, "2026-11-21T06:00"),  # over midnight
        ("0 22 * * *", "22:00", "2026-11-21T21:00", True, "2026-11-21T22:00"),  # all day, from day to day
        ("0 22 * * *", "22:00", "2026-11-21T22:00", True, "2026-11-22T22:00"),
        ("0 8 * * *", "24h", "2026-11-21T07:00", True, "2026-11-21T08:00"),
        ("0 8 * * *", "90m", "2026-11-21T09:29", True, "2026-11-21T09:30"),
        ("0 8,9 * * *", "90m", "2026-11-21T08:30", True, "2026-11-21T09:30"),  # overlapping: asked again then
        ("0 8,9 * * *", "90m", "2026-11-21T09:30", True, "2026-11-21T10:30"),
        ("0 8 1 1 *", "1h", "2026-11-21T00:00", False, "2027-01-01T08:00"),
        ("0 0 29 2 *", "1h", "2026-11-21T00:00", False, "2028-02-29T00:00"),
    ],
)
def test_hours_go_over_midnight_and_overlap(cron: str, until: str, now: str, due: bool, changes: str) -> None:
    found = hours(cron, until).due(moment(now))
    assert (found.now, found.changes) == (due, moment(changes))


@pytest.mark.parametrize(
    ("cron", "until", "begins", "ends"),
    [
        # Spring: 02:00 becomes 03:00 in Berlin on 2026-03-29.
        ("0 8 * * *", "18:00", "2026-03-29T06:00", "2026-03-29T16:00"),  # an hour earlier than the day before
        ("30 2 * * *", "2h", "2026-03-29T01:00", "2026-03-29T03:00"),  # the time that is skipped: right after
        ("0 22 * * *", "06:00", "2026-03-28T21:00", "2026-03-29T04:00"),  # a short night
        # Autumn: 03:00 becomes 02:00 on 2026-10-25.
        ("0 8 * * *", "18:00", "2026-10-25T07:00", "2026-10-25T17:00"),
        ("30 2 * * *", "2h", "2026-10-25T00:30", "2026-10-25T02:30"),  # the time that comes twice: once
        ("0 22 * * *", "06:00", "2026-10-24T20:00", "2026-10-25T05:00"),  # a long night
    ],
)
def test_times_are_those_of_a_clock_on_the_wall(cron: str, until: str, begins: str, ends: str) -> None:
    made = hours(cron, until, "Europe/Berlin")
    before = made.due(moment(begins) - 1)
    assert (before.now, before.changes) == (False, moment(begins))
    began = made.due(moment(begins))
    assert (began.now, began.changes) == (True, moment(ends))
    assert not made.due(moment(ends)).now


CRONS = st.sampled_from(
    ["0 8 * * 1-5", "*/7 * * * *", "30 2 * * *", "0 0 1 * *", "15 1,2,3 * * 0", "59 23 L * *", "0 */5 * * *"]
)
UNTIL = st.sampled_from(["18:00", "02:30", "00:00", "45s", "90m", "24h", "2:15"])
ZONES = st.sampled_from(["UTC", "Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "Asia/Kolkata"])


@given(CRONS, UNTIL, ZONES, st.floats(moment("2026-01-01"), moment("2027-12-31")), st.floats(0, 1))
def test_what_holds_stays_so_until_it_changes(
    cron: str, until: str, zone: str, now: float, part: float
) -> None:
    made = hours(cron, until, zone)
    found = made.due(now)
    assert found.changes > now
    between = now + part * (found.changes - now)
    if now <= between < found.changes:
        assert made.due(between).now == found.now
    if not found.now:
        assert made.due(found.changes).now
    else:
        assert found.changes - now <= 26 * 3600


def configured(**warm: Any) -> Any:
    upstream = {"kind": "prompt", "url": "http://host.example"}
    return settings_from({"models": {"m": {"upstream": upstream, "warm": warm}}}, {})


GOOD: dict[str, Any] = {"cron": "0 8 * * 1-5", "until": "18:00"}


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("cron", "0 8 * *", "five fields"),
        ("cron", "0 0 8 * * 1", "five fields"),
        ("cron", "61 8 * * *", "bad minute"),
        ("cron", "0 0 31 2 *", "bad day-of-month"),
        ("cron", "", "five fields"),
        ("timezone", "Mars/Olympus", "no time zone"),
        ("timezone", "Europe", "no time zone"),
        ("timezone", "../../etc/passwd", "no time zone"),
        ("until", 1080, "in quotes"),  # what YAML makes of 18:00
        ("until", "25:00", "a time of day"),
        ("until", "25h", "at most 24h"),
        ("until", "0s", "a duration"),
        ("min_containers", 2, "more than 1 needs kind: modal"),
        ("min_containers", 0, "greater than or equal to 1"),
        ("every", "1h", "unknown key"),
    ],
)
def test_what_cannot_be_kept_is_refused_by_its_key(key: str, value: Any, said: str) -> None:
    with pytest.raises(ConfigError, match=rf"^models\.m[:.].*{key}.*{said}"):
        configured(**{**GOOD, key: value})


def test_the_smallest_schedule_is_a_cron_and_an_end() -> None:
    warm = configured(**GOOD).models["m"].warm
    assert (warm.timezone, warm.min_containers) == ("UTC", 1)

"""The hours in which a model is kept warm: from each time of a cron expression until a time, or for a while.

Rule: pure; whether a moment lies within the hours follows from the moment alone, so a process that starts
late knows what to do. An hour that daylight saving skips or repeats counts once, as in Debian's cron. Knows
nothing about what keeping warm is.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime, time, timedelta
from math import inf
from typing import Any, TypeAlias
from zoneinfo import ZoneInfo

from cronsim import CronSim, CronSimError
from pydantic import BaseModel, ConfigDict, Field, PrivateAttr, ValidationInfo, field_validator

LONGEST = timedelta(hours=24)
LOOK_BACK = 26 * 3600.0  # seconds in which whatever is still open began; a day may have an hour more
UNITS = {"s": 1, "m": 60, "h": 3600}

Until: TypeAlias = time | timedelta
"""A time of day, or how long."""


@dataclass(slots=True, frozen=True)
class Due:
    """Whether it is time, and when to ask again (seconds since 1970, or never)."""

    now: bool
    changes: float


@dataclass(slots=True, frozen=True)
class Hours:
    """``cron`` says when they begin in ``zone``, ``until`` when they end; those that overlap are one."""

    cron: str
    zone: ZoneInfo
    until: Until

    def due(self, now: float) -> Due:
        """What holds at ``now``, in seconds since 1970."""
        began: datetime | None = None
        following = inf
        for start in CronSim(self.cron, datetime.fromtimestamp(now - LOOK_BACK, self.zone)):
            if start.timestamp() > now:
                following = start.timestamp()
                break
            began = start
        if began is not None and (end := self._end(began)) > now:
            return Due(True, end)
        return Due(False, following)

    def _end(self, start: datetime) -> float:
        if isinstance(self.until, timedelta):
            return start.timestamp() + self.until.total_seconds()
        day = start.date()
        while True:
            end = datetime.combine(day, self.until, self.zone).timestamp()
            if end > start.timestamp():
                return end
            day += timedelta(days=1)


class Warm(BaseModel):
    """The hours as keys of a model's configuration."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    cron: str = Field(description="when they begin: minute, hour, day of month, month, day of week")
    timezone: str = Field("UTC", description="time zone of both times, such as Europe/Berlin")
    min_containers: int = Field(1, ge=1, description="containers that run at least; above 1 for kind modal")
    until: str = Field(description='when they end: a time of day, "18:00", or after 2h, 90m or 45s')
    _elsewhere: bool = PrivateAttr(default=False)

    @field_validator("until", mode="before")
    @classmethod
    def _quoted(cls, value: Any) -> Any:
        if isinstance(value, int | float):  # YAML reads 18:00 as 1080
            raise ValueError('write a time of day in quotes, "18:00", and a duration as 2h, 90m or 45s')
        return value

    @field_validator("cron", "timezone", "until")
    @classmethod
    def _usable(cls, value: str, info: ValidationInfo) -> str:
        {"cron": _cron, "timezone": _zone, "until": _until}[str(info.field_name)](value)
        return value

    @property
    def hours(self) -> Hours:
        return Hours(self.cron, _zone(self.timezone), _until(self.until))

    @property
    def elsewhere(self) -> bool:
        """Whether another process keeps them."""
        return self._elsewhere

    def known(self) -> Warm:
        """The same hours for a process that knows of them and leaves keeping them to another."""
        copy = self.model_copy()
        copy._elsewhere = True
        return copy


def _cron(text: str) -> None:
    """Raises ``ValueError``."""
    if len(text.split()) != 5:
        raise ValueError('must have five fields, as in "0 8 * * 1-5"')
    try:
        next(CronSim(text, datetime(2000, 1, 1)))
    except CronSimError as exc:
        raise ValueError(f"is no cron expression: {str(exc)[:80].lower()}") from None
    except StopIteration:
        raise ValueError("names a day that no year has") from None


def _zone(name: str) -> ZoneInfo:
    """Raises ``ValueError``."""
    try:
        return ZoneInfo(name)
    except (KeyError, ValueError, OSError):  # a folder of the database is an OSError
        raise ValueError(f"no time zone {name[:40]!r} is known here; Europe/Berlin is one") from None


def _until(text: str) -> Until:
    """Raises ``ValueError``."""
    if clock := re.fullmatch(r"([01]?\d|2[0-3]):([0-5]\d)", text):
        return time(int(clock[1]), int(clock[2]))
    if length := re.fullmatch(r"(\d{1,6})([smh])", text):
        made = timedelta(seconds=int(length[1]) * UNITS[length[2]])
        if timedelta() < made <= LONGEST:
            return made
    raise ValueError('must be a time of day, "18:00", or a duration of at most 24h: 2h, 90m, 45s')

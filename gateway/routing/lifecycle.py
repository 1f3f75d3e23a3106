"""What state the containers behind an upstream are in, as far as the calls to it tell.

Rule: learned from traffic alone; nothing is asked, so nothing is woken. "Cold" is a guess from idleness,
made only where containers are known to be stopped when idle. A pure function of what happened and when:
every method is given the time, in seconds of one monotonic clock.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from math import ceil
from typing import Literal, TypeAlias

State: TypeAlias = Literal["cold", "booting", "warm", "saturated", "stopped", "unknown"]

REMEMBERED = 50  # boots
SHORTEST_BOOT = 1.0  # seconds; a first answer sooner than this came from a container that was there


@dataclass(slots=True, frozen=True)
class Boots:
    """How long containers took to answer after the call that started them. Seconds."""

    count: int = 0
    total: float = 0.0
    p50: float | None = None
    p90: float | None = None


class Lifecycle:
    """``window``: seconds an idle container stays; ``sleeps``: whether idle ones are stopped at all."""

    def __init__(self, window: float, *, sleeps: bool, shortest_boot: float = SHORTEST_BOOT) -> None:
        self._window = window
        self._sleeps = sleeps
        self._shortest = shortest_boot
        self._phase: Literal["unknown", "booting", "warm", "stopped"] = "unknown"
        self._calls = 0  # sent and not ended
        self._asked: float | None = None  # when the call was sent that nothing has answered yet
        self._last = 0.0  # when the last call ended
        self._recent: deque[float] = deque(maxlen=REMEMBERED)
        self._count, self._total = 0, 0.0

    def state(self, now: float) -> State:
        idle = self._sleeps and not self._calls and now - self._last > self._window
        if idle and self._phase in ("warm", "booting"):
            return "cold"
        late = self._asked is not None and now - self._asked > self._shortest
        if self._phase == "unknown" and self._sleeps and late:
            return "booting"
        return self._phase

    def sent(self, now: float) -> None:
        """A call goes to the upstream."""
        if self._phase == "warm" and self._calls:
            pass  # the common case
        elif self.state(now) == "cold":
            self._phase, self._asked = "booting", now
        elif self._asked is None and self._phase != "warm":
            self._asked = now
        self._calls += 1

    def answered(self, now: float) -> None:
        """A container answered a call, with whatever."""
        if self._phase == "warm":
            return
        if self._asked is not None and now - self._asked >= self._shortest and self.state(now) == "booting":
            boot = now - self._asked
            self._recent.append(boot)
            self._count += 1
            self._total += boot
        self._phase, self._asked = "warm", None

    def refused(self, now: float) -> None:
        """The edge said that no container is ready; it starts one then."""
        self._sleeps = True
        if self._phase != "booting":
            self._asked = now if self._asked is None else self._asked
            self._phase = "booting"

    def stopped(self) -> None:
        """The edge said that the app is stopped."""
        self._phase, self._asked = "stopped", None

    def ended(self, now: float) -> None:
        """A call that was sent is over, however."""
        self._calls -= 1
        self._last = now
        if not self._calls and self._phase == "unknown":
            self._asked = None

    @property
    def boots(self) -> Boots:
        ranked = sorted(self._recent)
        if not ranked:
            return Boots()
        p50, p90 = (ranked[ceil(share * len(ranked)) - 1] for share in (0.5, 0.9))
        return Boots(self._count, self._total, p50, p90)

    def until_warm(self, now: float) -> float | None:
        """Seconds until a container will probably answer; None if no boot was seen yet."""
        usual = self.boots.p50
        if usual is None:
            return None
        return max(usual - (now - self._asked if self._asked is not None else 0.0), 0.0)

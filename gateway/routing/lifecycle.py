"""What state the containers behind an upstream are in, as far as the calls to it tell.

Rule: learned from traffic, and from what a platform counts where one does; nothing is woken to learn it.
"Cold" is a guess from idleness, made only where containers are known to be stopped when idle and none is
known to be kept. Only an answer makes "warm": a container that is counted may still load its model. A pure
function of what happened and when: every method is given the time, in seconds of one monotonic clock.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from math import ceil, inf
from typing import Literal, TypeAlias

State: TypeAlias = Literal["cold", "booting", "warm", "saturated", "stopped", "unknown"]

REMEMBERED = 50  # boots
SHORTEST_BOOT = 1.0  # seconds; a first answer sooner than this came from a container that was there
COUNTED = 75.0  # seconds that a count of containers holds
LOADING = 60.0  # seconds that one which was started is taken for loading, while no boot was seen


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
        self._begun = inf  # when the calls began of which one still runs
        self.refusal = -inf  # when the edge last said that no container is ready,
        self.ready = -inf  # and when a container was, last, whose boot was seen
        self._started: float | None = None  # when a container was started that has not answered yet
        self._counted = -inf  # when the platform last counted a container
        self._kept = False  # whether containers are kept however idle
        self._recent: deque[float] = deque(maxlen=REMEMBERED)
        self._count, self._total = 0, 0.0

    @property
    def idle(self) -> bool:
        """Whether only time, or a count of its containers, will tell its state."""
        return not self._calls and self._phase in ("warm", "booting")

    def state(self, now: float) -> State:
        if self.idle and self._asleep(now):
            return "cold"
        if self._overdue(now):
            return "unknown"
        late = self._asked is not None and now - self._asked > self._shortest
        if self._phase == "unknown" and self._sleeps and late:
            return "booting"
        return self._phase

    def _asleep(self, now: float) -> bool:
        held = self._kept or now - self._counted <= COUNTED
        return self._sleeps and not held and now - self._last > self._window

    def _overdue(self, now: float) -> bool:
        """Whether a container that was started should be there by now, and nobody has asked it."""
        return (
            self._started is not None
            and not self._calls
            and now - self._started > (self.boots.p90 or LOADING)
        )

    def sent(self, now: float) -> None:
        """A call goes to the upstream."""
        if not self._calls:
            self._begun = now
        if self._phase == "warm" and self._calls:
            pass  # the common case
        elif self.state(now) == "cold":
            self._phase, self._asked, self._started = "booting", now, None
        elif self._overdue(now):
            self._phase, self._asked, self._started = "unknown", now, None
        elif self._asked is None and self._phase != "warm":
            self._asked = now
        self._calls += 1

    def answered(self, now: float) -> None:
        """A container answered a call, with whatever."""
        if self._phase == "warm":
            return
        if self._asked is not None and self._booted(now, self._asked):
            boot = now - self._asked
            self.ready = now
            self._recent.append(boot)
            self._count += 1
            self._total += boot
        self._phase, self._asked, self._started = "warm", None, None

    def _booted(self, now: float, asked: float) -> bool:
        """Whether the first answer, which comes now, tells how long its container took."""
        begun = asked if self._started is None else max(asked, self._begun)  # else it may have waited for us
        return now - begun >= self._shortest and self.state(now) == "booting"

    def started(self, now: float) -> None:
        """A container was started, or found: it may still load its model."""
        self._counted = now
        there = self._asked is not None and now - self._asked < self._shortest
        if self._phase == "warm" or (self._phase == "unknown" and there):
            return
        self._asked = now if self._asked is None else self._asked
        self._started = now if self._started is None else self._started
        self._phase = "booting"

    def counted(self, containers: int, now: float) -> None:
        """The platform says how many containers run."""
        if not containers:
            self._counted = -inf
            return
        self._begin_if_cold(now)
        self._counted = now

    def kept(self, kept: bool, now: float) -> None:
        """From now on containers are kept, however idle, or no longer."""
        if kept:
            self._begin_if_cold(now)
        elif self._kept:
            self._last = now  # from here on they are idle
        self._kept = kept

    def _begin_if_cold(self, now: float) -> None:
        """Somebody else has started a container, nobody knows just when."""
        if self.state(now) == "cold":
            self._phase, self._asked, self._started = "booting", None, now

    def refused(self, now: float) -> None:
        """The edge said that no container is ready; it starts one then."""
        self._sleeps = True
        self.refusal = now
        if self._phase != "booting":
            self._asked = now if self._asked is None else self._asked
            self._phase = "booting"
        self._started = None

    def stopped(self) -> None:
        """The edge said that the app is stopped."""
        self._phase, self._asked, self._started = "stopped", None, None

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

    def booting_for(self, now: float) -> float | None:
        """Seconds since a container was asked for that has not answered; None while none boots."""
        since = self._started if self._asked is None else self._asked
        return None if since is None or self.state(now) != "booting" else now - since

    def until_warm(self, now: float) -> float | None:
        """Seconds until a container will probably answer; None if no boot was seen yet."""
        usual = self.boots.p50
        if usual is None:
            return None
        return max(usual - (now - self._asked if self._asked is not None else 0.0), 0.0)

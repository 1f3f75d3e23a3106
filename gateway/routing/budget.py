"""How many extra calls a model may cost, so that a failing backend is not buried under retries.

Rule: a share of the ordinary calls, with a floor. Pure: every method is given the time, in monotonic seconds.
"""

from __future__ import annotations


class RetryBudget:
    """Extra calls of one model: one for ten ordinary ones in any ten seconds, and at least three."""

    SHARE, FLOOR, WINDOW = 0.1, 3, 10.0  # of calls, calls, seconds

    def __init__(self) -> None:
        self._window = 0
        self._calls = self._extra = 0  # in this window
        self._calls_before = self._extra_before = 0  # in the one before it

    def earn(self, now: float) -> None:
        """Count an ordinary call at ``now`` (monotonic seconds)."""
        self._roll(now)
        self._calls += 1

    def spend(self, now: float) -> bool:
        """Take one extra call, if there is one."""
        affords = self.affords(now)
        self._extra += affords
        return affords

    def affords(self, now: float) -> bool:
        """Whether there is an extra call to take."""
        self._roll(now)
        before = 1 - now % self.WINDOW / self.WINDOW  # the share of the last ten seconds in the window before
        calls = self._calls + before * self._calls_before
        return self._extra + before * self._extra_before + 1 <= max(self.FLOOR, self.SHARE * calls)

    def _roll(self, now: float) -> None:
        window = int(now // self.WINDOW)
        if window != self._window:
            next_one = window == self._window + 1
            self._calls_before = self._calls if next_one else 0
            self._extra_before = self._extra if next_one else 0
            self._window, self._calls, self._extra = window, 0, 0

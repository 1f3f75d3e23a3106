"""Whether an upstream that keeps failing is passed over for a while.

Rule: opens after failures in a row, for longer each time; then one call tries it, and its success closes the
circuit. An answer that broke off is a failure, and one that refuses the request none. An open circuit only
puts an upstream last: where there is no other, it is still called, because its own failure tells the client
more than ours would. Pure: every method is given the time.
"""

from __future__ import annotations

from gateway.core.errors import GatewayError, NoContainer, UpstreamBusy, UpstreamError

FAILURES = 5  # in a row
SHORTEST, LONGEST = 5.0, 60.0  # seconds open, doubled each time
HOPELESS = frozenset({"upstream_stopped", "upstream_auth", "upstream_tls", "upstream_not_found"})
"""Codes of failures that the next call will meet too: one is enough."""


class Circuit:
    """``failed`` and ``succeeded`` tell it of calls, ``closed`` is asked before one."""

    def __init__(self) -> None:
        self._failures = 0  # in a row
        self._until = 0.0  # when the next trial is due
        self._open_for = 0.0  # seconds; 0: closed
        self._trying = False
        self._busy_until = 0.0  # it said that it takes no calls before then

    def closed(self, now: float) -> bool:
        """False while others should be called instead; true for one trial once the time has passed."""
        if now < self._busy_until:
            return False
        return not self._open_for or (now >= self._until and not self._trying)

    def called(self, now: float) -> bool:
        """A call is sent; whether it is the trial, which says so if it ends without telling anything."""
        if not self._open_for or self._trying or now < self._until:
            return False
        self._trying = True
        return True

    def succeeded(self) -> None:
        if self._failures or self._open_for:
            self._failures, self._open_for, self._trying = 0, 0.0, False

    def failed(self, error: GatewayError, now: float) -> None:
        """Count ``error`` if it says something about the upstream rather than about the request."""
        self._trying = False
        if not isinstance(error, UpstreamError):  # it judged the request, so it works
            self.succeeded()
            return
        if isinstance(error, UpstreamBusy):
            self._busy_until = now + float(error.headers.get("retry-after", SHORTEST))
        if error.status < 500 or error.retry == "never" or isinstance(error, NoContainer):
            return
        self._failures = FAILURES if error.code in HOPELESS else self._failures + 1
        if self._failures >= FAILURES and now >= self._until:
            self._open_for = min(max(2 * self._open_for, SHORTEST), LONGEST)
            self._until = now + self._open_for

    def left(self) -> None:
        """The trial ended without telling anything: its client left."""
        self._trying = False

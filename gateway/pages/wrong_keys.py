"""Wrong keys of the admin API: after ten within a minute the next are told to wait, and the log says so.

Rule: the right key is never held up, so nobody locks the operator out. Hence this is no wall against
guessing: a long key is. Addresses count for nothing, since behind a proxy all have one. Knows no key.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable

from gateway.core.errors import RateLimited

MANY = 10  # wrong keys in ``WITHIN``
WITHIN = 60.0  # seconds

log = logging.getLogger("gateway")


class WrongKeys:
    """``clock`` gives monotonic seconds."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._times: deque[float] = deque(maxlen=MANY)  # of those that were told that they are wrong
        self._said = -WITHIN  # when the log last spoke of it

    def count(self) -> None:
        """There was another one. Raises ``RateLimited`` after too many."""
        now = self._clock()
        wait = self._times[0] + WITHIN - now if len(self._times) == MANY else 0.0
        if wait > 0:
            if now - self._said >= WITHIN:
                self._said = now
                log.warning("more than %d wrong keys of the admin API within a minute", MANY)
            seconds = int(wait) + 1
            raise RateLimited(
                f"Wrong key of the admin API, as were {MANY} before it. Try again in {seconds} s.",
                headers={"retry-after": str(seconds)},
            )
        self._times.append(now)

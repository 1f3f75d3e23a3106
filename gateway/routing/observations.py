"""What platforms say of their containers, asked beside the requests.

Rule: who wants to know gets what is remembered and never waits; asking wakes nothing. Whatever is learned is
told to the upstream's own state, which is else a guess from idleness. Knows nothing about how it is shown.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from math import inf
from typing import TypeAlias

from gateway.core.errors import GatewayError
from gateway.routing.target import Target
from gateway.upstreams import Observed

REMEMBERED = 10.0  # seconds that an answer of a platform's counts
ASKED = 10.0  # seconds it may take
LOOK = 20.0  # seconds between two looks at one whose containers may run
ASLEEP = 300.0  # the same at one that had none

Sleep: TypeAlias = Callable[[float], Awaitable[None]]

log = logging.getLogger("gateway")


@dataclass(slots=True, frozen=True)
class Sighting:
    """``at`` is by the clock of who looked; ``seen`` is None where nothing could be known."""

    at: float = -inf
    seen: Observed | None = None
    silent: bool = False  # its platform cannot be asked at all


class Sightings:
    """``clock`` gives monotonic seconds."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._known: dict[Target, Sighting] = {}
        self._asking: dict[Target, asyncio.Task[None]] = {}

    def of(self, target: Target) -> Observed | None:
        """What is known by now; never waits. None: nothing yet, or its platform cannot be asked."""
        self._look(target, REMEMBERED)
        return self._known.get(target, Sighting()).seen

    async def watch(self, targets: Callable[[], Sequence[Target]], sleep: Sleep = asyncio.sleep) -> None:
        """Looks at those whose containers matter just now, and forgets who is gone; until cancelled."""
        while True:
            await sleep(LOOK)
            watched = targets()
            self._known = {each: self._known[each] for each in watched if each in self._known}
            for target in watched:
                if _matters(target) and not self._known.get(target, Sighting()).silent:
                    self._look(target, self._pause(target))

    async def aclose(self) -> None:
        asking = list(self._asking.values())
        for task in asking:
            task.cancel()
        if asking:
            await asyncio.wait(asking)

    def _pause(self, target: Target) -> float:
        """Seconds from the last look to the next."""
        seen = self._known.get(target, Sighting()).seen
        asleep = target.state() == "cold" and seen is not None and not seen.runners
        return ASLEEP if asleep else LOOK / 2

    def _look(self, target: Target, pause: float) -> None:
        if self._clock() - self._known.get(target, Sighting()).at >= pause and target not in self._asking:
            self._asking[target] = asyncio.get_running_loop().create_task(self._ask(target))

    async def _ask(self, target: Target) -> None:
        seen, silent = None, False
        try:
            async with asyncio.timeout(ASKED):
                seen = await target.inner.observed()
            silent = seen is None
        except (GatewayError, TimeoutError):
            pass  # then nothing is known, which is what the answer will say
        except Exception:
            log.exception("what the platform of %s counts could not be read", target.name)
        finally:
            self._known[target] = Sighting(self._clock(), seen, silent)
            del self._asking[target]
        if seen is not None:
            target.counted(seen.runners)


def _matters(target: Target) -> bool:
    """Whether time alone would tell its state, or the time of its containers is being shared out."""
    return target.life.idle or (target.metered and target.pending > 0)

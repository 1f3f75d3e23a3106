"""What happened, as lines and as numbers.

Rule: every input is counted once when it comes and once when it ends. Lines go to whoever was handed in; they
hold ids and numbers, never what a request or an answer says.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from gateway.simulate.pool import REFUSALS, Event, What


@dataclass(slots=True, frozen=True)
class Line:
    """One thing that happened, ``at`` seconds after the start."""

    at: float
    event: str
    facts: Mapping[str, int | float | str]

    def __str__(self) -> str:
        said = "  ".join(_fact(name, value) for name, value in self.facts.items())
        return f"{self.at:9.3f}  {self.event:<25} {said}".rstrip()

    def as_json(self) -> dict[str, Any]:
        return {"at": round(self.at, 6), "event": self.event, **self.facts}


def _fact(name: str, value: int | float | str) -> str:
    return {"container": f"container {value}", "seconds": f"{value} s", "input": f"{value}"}.get(
        name, f"{name} {value}"
    )


@dataclass(slots=True)
class Counts:
    """Since the start. An input is ``answered``, ``cut``, ``cancelled`` or ``dropped``, or still open."""

    requests: int = 0  # inputs that were taken
    polls: int = 0  # requests for a result
    redirects: int = 0
    refused: Counter[str] = field(default_factory=Counter)  # by the status that the edge gave, or "reset"
    generations: int = 0  # requests that the app got
    answered: int = 0
    cut: int = 0
    cancelled: int = 0  # the client left
    dropped: int = 0  # nobody fetched the result in time
    boots: int = 0
    boot_failures: int = 0
    crashes: int = 0


class Journal:
    """``write`` gets every line; ``clock`` gives seconds."""

    def __init__(self, write: Callable[[Line], None], clock: Callable[[], float]) -> None:
        self.counts = Counts()
        self._write = write
        self._clock = clock
        self._began = clock()

    def note(self, event: str, **facts: int | float | str) -> None:
        self._write(Line(self._clock() - self._began, event, facts))

    def happened(self, event: Event) -> None:
        """Something in the pool."""
        counts = self.counts
        counts.boots += event.what is What.booting
        counts.boot_failures += event.what is What.boot_failed
        counts.crashes += event.what is What.crashed
        if event.what in REFUSALS:
            return  # the edge says with which status
        facts: dict[str, int | float | str] = {"input": event.input, "container": event.container}
        facts["seconds"] = round(event.seconds, 3)
        self.note(event.what.value, **{name: value for name, value in facts.items() if value})

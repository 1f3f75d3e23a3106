"""What is simulated: the mode, times and sizes.

Rule: every time is in seconds and may be a fraction, so that a test can run hours of Modal in a moment.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from gateway.core import modal


class Mode(StrEnum):
    """What answers: a Web Function, whose requests wait for a container, or a Server, whose do not."""

    web_function = "web-function"
    server = "server"


@dataclass(slots=True, frozen=True)
class Boot:
    """Seconds that a boot takes: drawn from this range, exact where both ends are equal."""

    shortest: float
    longest: float

    def __str__(self) -> str:
        return f"{self.shortest:g}" + (f"-{self.longest:g}" if self.longest > self.shortest else "")


@dataclass(slots=True, frozen=True)
class Options:
    """What the edge does, for as long as it runs."""

    mode: Mode = Mode.web_function
    boot: Boot = Boot(5.0, 5.0)
    idle: float = modal.SCALEDOWN_WINDOW
    max_inputs: int = 32  # at once in one container
    max_containers: int = 1
    edge_timeout: float = modal.EDGE_TIMEOUT
    function_timeout: float = modal.FUNCTION_TIMEOUT
    credentials: tuple[str, str] | None = None  # key and secret of a proxy token; None asks for none
    seed: int = 0

    @property
    def queues(self) -> bool:
        return self.mode is Mode.web_function


def boot(text: str) -> Boot:
    """``20`` or ``15-30``. Raises ``ValueError``."""
    shortest, dash, longest = text.partition("-")
    found = Boot(seconds(shortest), seconds(longest if dash else shortest))
    if found.longest < found.shortest:
        raise ValueError(text)
    return found


def seconds(text: str) -> float:
    """From 0 to a day. Raises ``ValueError``."""
    value = float(text)
    if not 0 <= value <= 86400:
        raise ValueError(text)
    return value

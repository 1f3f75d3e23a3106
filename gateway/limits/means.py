"""What a request to a model usually takes: the mean of the last ones, reserved for the next.

Rule: whole numbers, rounded up, sums kept as they go. What nobody has seen yet is reserved as nothing, an
answer as ``FIRST`` tokens. Knows nothing of prices.
"""

from __future__ import annotations

from collections import deque
from typing import NamedTuple

from gateway.limits.rules import Amount

LAST = 100  # requests of a model that the mean is taken over
FIRST = 256  # tokens, of an answer whose like nobody has seen


class Took(NamedTuple):
    """What a request took; None where nothing was counted. ``answer``: tokens."""

    cost: int | None
    gpu: int | None
    answer: int


class Mean:
    """Of one model: cost, GPU time and tokens of one answer."""

    __slots__ = ("_last", "_sums")

    def __init__(self) -> None:
        self._last: deque[tuple[int, int, int]] = deque()
        self._sums = [0, 0, 0]

    def note(self, cost: int, gpu: int, answer: int) -> None:
        """What a finished request took; ``answer``: tokens of each of its choices."""
        old = self._last.popleft() if len(self._last) >= LAST else (0, 0, 0)
        self._last.append((cost, gpu, answer))
        sums = self._sums
        sums[0] += cost - old[0]
        sums[1] += gpu - old[1]
        sums[2] += answer - old[2]

    @property
    def known(self) -> bool:
        """Whether any request to it has ended well."""
        return bool(self._last)

    def wanted(self, prompt: int, most: int | None, choices: int) -> Amount:
        """To reserve: ``most`` tokens for each answer, or what one usually has."""
        count = len(self._last)
        if not count:
            return Amount(prompt + choices * (FIRST if most is None else most))
        cost, gpu, answer = (-(-sum_ // count) for sum_ in self._sums)
        return Amount(prompt + choices * (answer if most is None else most), cost, gpu)


class Means:
    """By model; there are as many as the configuration has."""

    def __init__(self) -> None:
        self._models: dict[str, Mean] = {}

    def of(self, model: str) -> Mean:
        mean = self._models.get(model)
        if mean is None:
            mean = self._models[model] = Mean()
        return mean

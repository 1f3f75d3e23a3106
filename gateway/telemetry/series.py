"""What every request is counted in: counters and histograms, kept here and told at each scrape.

Rule: the same series as prometheus' own, which take a lock for each number and so cost a request five times
as much. Only the event loop counts and tells. Labels come from the config.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence
from itertools import accumulate
from math import inf

from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.utils import floatToGoString

from gateway.telemetry.families import Family


class _Sum:
    """A counter of these labels."""

    __slots__ = ("value",)

    def __init__(self) -> None:
        self.value = 0.0

    def add(self, amount: float = 1.0) -> None:
        self.value += amount


class Counts:
    """One counter, a collector."""

    def __init__(self, name: str, about: str, labels: Sequence[str]) -> None:
        self._name = name
        self._about = about
        self._labels = labels
        self._sums: dict[tuple[str, ...], _Sum] = {}

    def of(self, *values: str) -> Callable[..., None]:
        """What counts one, or the amount it is given, for these values of the labels."""
        return self._sums.setdefault(values, _Sum()).add

    def collect(self) -> Iterator[Metric]:
        family = CounterMetricFamily(self._name, self._about, labels=self._labels)
        for values, counted in self._sums.items():
            family.add_metric(values, counted.value)
        return iter((family,))

    def sum(self, by: str | None = None) -> Family:
        """All its series as one, or as one for each value of the label ``by``."""
        found: dict[tuple[str, ...], float] = {}
        for values, counted in self._sums.items():
            kept = () if by is None else (values[self._labels.index(by)],)
            found[kept] = found.get(kept, 0.0) + counted.value
        labels = () if by is None else (by,)
        samples = [
            (f"{self._name}_total", dict(zip(labels, kept, strict=True)), total)
            for kept, total in found.items()
        ]
        return (self._name, "counter", self._about, samples)


class _Spread:
    """A histogram of one model."""

    __slots__ = ("_bounds", "counts", "sum")

    def __init__(self, bounds: Sequence[float]) -> None:
        self._bounds = bounds
        self.counts = [0] * (len(bounds) + 1)  # by bucket, the last for what is above all bounds
        self.sum = 0.0

    def observe(self, amount: float) -> None:
        self.counts[bisect_left(self._bounds, amount)] += 1
        self.sum += amount


class Timings:
    """One histogram, a collector; ``bounds`` are the upper ones of its buckets, inclusive, in seconds."""

    def __init__(self, name: str, about: str, bounds: Sequence[float]) -> None:
        self._name = name
        self._about = about
        self._bounds = bounds
        self._labels = [floatToGoString(bound) for bound in (*bounds, inf)]  # type: ignore[no-untyped-call]
        self._spreads: dict[str, _Spread] = {}

    def of(self, model: str) -> Callable[[float], None]:
        """What takes an observation of this model."""
        return self._spreads.setdefault(model, _Spread(self._bounds)).observe

    def collect(self) -> Iterator[Metric]:
        family = HistogramMetricFamily(self._name, self._about, labels=("model",))
        for model, spread in self._spreads.items():
            buckets = list(zip(self._labels, map(float, accumulate(spread.counts)), strict=True))
            family.add_metric([model], buckets, spread.sum)
        return iter((family,))

    def sum(self) -> Family:
        """All models as one, the buckets alone."""
        spreads = self._spreads.values()
        counts = accumulate(sum(column) for column in zip(*(each.counts for each in spreads), strict=True))
        samples = [
            (f"{self._name}_bucket", {"le": end}, float(count))
            for end, count in zip(self._labels, counts, strict=False)
        ]
        return (self._name, "histogram", self._about, samples)

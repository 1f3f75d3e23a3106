"""The last minutes of the gateway as points: what was counted in each step, and percentiles of it.

Rule: pure. Points are differences of totals, which are sums of what is scraped: nothing is counted for the
console alone. A point is made once, when its sample comes. A total that went down counts as nothing. A
percentile lies on a line within its bucket, as Prometheus draws it. Knows no clock and no process.
"""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple, TypeAlias

from gateway.telemetry.families import Family

STEP = 5  # seconds
KEPT = 180  # points: 15 minutes
LATE = 2.5  # steps; a longer gap between two samples is no step

Buckets: TypeAlias = tuple[tuple[float, float], ...]
"""Upper ends, ascending and infinite at last, and how many were at most that; all since the start."""


Point: TypeAlias = dict[str, Any]
"""Fit for JSON."""


class Totals(NamedTuple):
    """Since the start, of all models and processes; but ``in_flight`` and what follows it are of now."""

    requests: float = 0
    errors: float = 0
    tokens_in: float = 0
    tokens_out: float = 0
    cold_starts: float = 0
    gpu_seconds: float = 0
    cost: float = 0  # dollars
    in_flight: float = 0
    streams: float = 0
    containers: float = 0
    ttft: Buckets = ()  # seconds to the first event
    gap: Buckets = ()  # seconds for each further token


COUNTED = ("requests", "errors", "tokens_in", "tokens_out", "cold_starts", "gpu_seconds", "cost")
_WHOLE = frozenset(COUNTED) - {"gpu_seconds", "cost"}
_SUMS: Mapping[str, str] = {
    "modal_gateway_requests_total": "requests",
    "modal_gateway_errors_total": "errors",
    "modal_gateway_upstream_boot_seconds_count": "cold_starts",
    "modal_gateway_gpu_seconds_total": "gpu_seconds",
    "modal_gateway_cost_dollars_total": "cost",
    "modal_gateway_requests_in_flight": "in_flight",
    "modal_gateway_open_streams": "streams",
    "modal_gateway_upstream_containers": "containers",
}
_TOKENS = "modal_gateway_tokens_total"
_TIMES: Mapping[str, str] = {
    "modal_gateway_time_to_first_event_seconds_bucket": "ttft",
    "modal_gateway_time_per_output_token_seconds_bucket": "gap",
}


def totals(families: Iterable[Family]) -> Totals:
    """What these families have come to."""
    sums: defaultdict[str, Any] = defaultdict(float)
    buckets: dict[str, dict[float, float]] = {name: {} for name in _TIMES.values()}
    for _, _, _, samples in families:
        for name, labels, value in samples:
            if (field := _SUMS.get(name)) is not None:
                sums[field] += value
            elif name == _TOKENS:
                sums[f"tokens_{labels['direction']}"] += value
            elif (field := _TIMES.get(name)) is not None:
                end = float(labels["le"])
                buckets[field][end] = buckets[field].get(end, 0) + value
    times: dict[str, Any] = {name: tuple(sorted(found.items())) for name, found in buckets.items()}
    return Totals(**sums, **times)


class Sample(NamedTuple):
    """``time``: seconds since 1970."""

    time: float
    totals: Totals


class History:
    """The newest points, ``KEPT`` at most, and the sample after which the next one begins."""

    def __init__(self, last: Sample | None = None, points: Iterable[Point] = ()) -> None:
        self._last = last
        self._points = deque(points, maxlen=KEPT)

    @property
    def last(self) -> Sample | None:
        return self._last

    @property
    def points(self) -> list[Point]:
        """What was counted between each two samples, the oldest first."""
        return list(self._points)

    def add(self, sample: Sample) -> None:
        """Samples come in the order of time; one that does not begins anew."""
        last, self._last = self._last, sample
        if last is None or sample.time - last.time > LATE * STEP:
            return
        if sample.time <= last.time:
            self._points.clear()
        else:
            self._points.append(_point(last, sample))


def _point(before: Sample, after: Sample) -> Point:
    old, new = before.totals, after.totals
    return {
        "time": round(after.time, 3),
        "seconds": round(after.time - before.time, 3),
        **{name: _number(name, max(getattr(new, name) - getattr(old, name), 0)) for name in COUNTED},
        "in_flight": int(new.in_flight),
        "streams": int(new.streams),
        "containers": round(new.containers, 3),
        **_percentiles("ttft", _since(old.ttft, new.ttft)),
        **_percentiles("gap", _since(old.gap, new.gap)),
    }


def _number(name: str, value: float) -> int | float:
    return round(value) if name in _WHOLE else round(value, 9)


def summed(found: Totals) -> dict[str, int | float]:
    """The totals under the names that the ledger's sums have."""
    return {
        "requests": round(found.requests),
        "errors": round(found.errors),
        "prompt_tokens": round(found.tokens_in),
        "completion_tokens": round(found.tokens_out),
        "gpu_seconds": round(found.gpu_seconds, 9),
        "cost": round(found.cost, 9),
    }


def _since(old: Buckets, new: Buckets) -> Buckets:
    known = dict(old)
    return tuple((end, max(count - known.get(end, 0), 0)) for end, count in new)


def _percentiles(name: str, buckets: Buckets) -> dict[str, float | None]:
    found = {f"{name}_p{share}": percentile(buckets, share / 100) for share in (50, 95)}
    return {key: None if seconds is None else round(seconds, 6) for key, seconds in found.items()}


def percentile(buckets: Buckets, share: float) -> float | None:
    """So much of what was counted is at most this; None if nothing was, or there is no end to it.

    Beyond the last finite bucket it is the end of that one.
    """
    total = buckets[-1][1] if buckets else 0
    if not total:
        return None
    rank, start, below = share * total, 0.0, 0.0
    for end, count in buckets:
        if count >= rank and count > below:
            return start if end == float("inf") else start + (end - start) * (rank - below) / (count - below)
        if end != float("inf"):
            start, below = end, count
    return start

"""Metrics as plain data, and what several processes have come to together.

Rule: what counts upwards is added up. Of gauges those are that count something; of the others the largest
holds, and of the states of an upstream the one that somebody knows most of. Knows nothing about how processes
reach each other.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TypeAlias

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import Metric

Family: TypeAlias = tuple[str, str, str, list[tuple[str, dict[str, str], float]]]
"""Name, type, help; and samples: name, labels, value. JSON carries it, tuples as lists."""
_Sums: TypeAlias = Mapping[tuple[str, tuple[tuple[str, str], ...]], float]

ADDED = frozenset(
    f"modal_gateway_{name}"
    for name in (
        "requests_in_flight", "open_streams",
        "upstream_calls", "upstream_calls_waiting", "upstream_connections", "upstream_containers",
        "ledger_waiting_bytes",
    )
)  # fmt: skip
"""Gauges that count something."""
STATE = "modal_gateway_upstream_state"
TELLING = ("saturated", "warm", "booting", "stopped", "cold", "unknown")
"""States, the one first that holds where processes know different ones."""


def taken(registry: CollectorRegistry) -> list[Family]:
    """Every family of this registry, as it is now."""
    return [
        (each.name, each.type, each.documentation, [(s.name, dict(s.labels), s.value) for s in each.samples])
        for each in registry.collect()
    ]


def lasting(families: Iterable[Family]) -> list[Family]:
    """What remains true of a process that has ended: what it counted."""
    kept = []
    for name, kind, about, samples in families:
        if kind != "gauge":
            kept.append((name, kind, about, [each for each in samples if "quantile" not in each[1]]))
    return kept


def total(processes: Iterable[Sequence[Family]]) -> list[Family]:
    """All processes as one; the order is that of the first that knows a family."""
    found: dict[str, tuple[str, str, dict[tuple[str, tuple[tuple[str, str], ...]], float]]] = {}
    for families in processes:
        for name, kind, about, samples in families:
            _, _, sums = found.setdefault(name, (kind, about, {}))
            for sample, labels, value in samples:
                at = sample, tuple(sorted(labels.items()))
                added = name in ADDED or (kind != "gauge" and "quantile" not in labels)
                before = sums.get(at)
                sums[at] = value if before is None else before + value if added else max(before, value)
    return [
        (name, kind, about, [(sample, dict(labels), value) for (sample, labels), value in settled.items()])
        for name, (kind, about, sums) in found.items()
        for settled in (_settled(name, sums),)
    ]


def _settled(name: str, sums: _Sums) -> _Sums:
    """Of an upstream's states only one is left."""
    if name != STATE:
        return sums
    known: dict[str, list[str]] = {}
    for (_, labels), value in sums.items():
        if value:
            known.setdefault(dict(labels)["upstream"], []).append(dict(labels)["state"])
    best = {upstream: min(states, key=TELLING.index) for upstream, states in known.items()}
    return {at: float(dict(at[1])["state"] == best.get(dict(at[1])["upstream"])) for at in sums}


class _Collected:
    """Families in the form that prometheus writes."""

    def __init__(self, families: Sequence[Family]) -> None:
        self._families = families

    def collect(self) -> Iterable[Metric]:
        for name, kind, about, samples in self._families:
            metric = Metric(name, about, kind)
            for sample, labels, value in samples:
                metric.add_sample(sample, labels, value)
            yield metric


def exposition(families: Sequence[Family]) -> bytes:
    """The text that Prometheus scrapes."""
    return generate_latest(_Collected(families))

"""What is looked at when metrics are scraped, so that requests pay nothing for it.

Rule: labels come from the config alone: keys of the store and people have none. Nothing is changed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING, get_args

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric, SummaryMetricFamily

from gateway.limits.leases import ALERT
from gateway.limits.limiter import Row
from gateway.limits.rules import Scope
from gateway.routing.lifecycle import State
from gateway.routing.target import Target
from gateway.serve.books import Books
from gateway.telemetry.families import Family

if TYPE_CHECKING:
    from gateway.ledger.writer import Health  # which brings SQLAlchemy along

BUDGETS = 20  # that are told of, of however many keys
CONFIG = "config:"  # how ids of the configuration's keys begin
BOOTS, CONTAINERS = "modal_gateway_upstream_boot_seconds", "modal_gateway_upstream_containers"
GPU, COST = "modal_gateway_gpu_seconds", "modal_gateway_cost_dollars"
STATES: tuple[State, ...] = get_args(State)


class OfUpstreams:
    """A collector of what upstreams are doing."""

    def __init__(self, targets: Callable[[], Sequence[Target]]) -> None:
        self._targets = targets

    def collect(self) -> Iterator[Metric]:
        gauge = partial(GaugeMetricFamily, labels=("upstream",))
        states = GaugeMetricFamily(
            "modal_gateway_upstream_state", "1 for the state it is in.", labels=("upstream", "state")
        )
        calls = gauge("modal_gateway_upstream_calls", "Calls running.")
        waiting = gauge("modal_gateway_upstream_calls_waiting", "Calls waiting for a slot.")
        circuits = gauge("modal_gateway_upstream_circuit_open", "1 while it is passed over.")
        containers = gauge(
            CONTAINERS, "Containers that run: as the platform says, else as many as its calls need."
        )
        connections = gauge("modal_gateway_upstream_connections", "Connections to it, idle ones included.")
        hops = CounterMetricFamily(
            "modal_gateway_upstream_result_redirects",
            "Addresses of results (303) that were followed.",
            labels=("upstream",),
        )
        boots = SummaryMetricFamily(BOOTS, "How long containers took to boot.", labels=("upstream",))
        for target in self._targets():
            now, name = target.state(), [target.name]
            for state in STATES:
                states.add_metric([*name, state], float(state == now))
            calls.add_metric(name, target.slots.taken)
            waiting.add_metric(name, target.slots.waiting)
            circuits.add_metric(name, float(not target.closed()))
            containers.add_metric(name, target.containers())
            traffic = target.inner.traffic()
            connections.add_metric(name, traffic.connections)
            hops.add_metric(name, traffic.hops)
            _add_boots(boots, target)
        return iter((states, calls, waiting, circuits, containers, boots, connections, hops))

    def sums(self) -> list[Family]:
        """Boots and containers of all upstreams together."""
        targets = self._targets()
        boots = sum(target.life.boots.count for target in targets)
        containers = sum(target.containers() for target in targets)
        return [
            (BOOTS, "summary", "", [(f"{BOOTS}_count", {}, boots)]),
            (CONTAINERS, "gauge", "", [(CONTAINERS, {}, containers)]),
        ]


class OfBooks:
    """A collector of what limits, budgets and GPU time have come to; sums that are kept anyway."""

    def __init__(self, books: Books) -> None:
        self._books = books

    def collect(self) -> Iterator[Metric]:
        gpu = CounterMetricFamily(
            GPU,
            "Time of containers, while they answered or booted for requests and idle afterwards.",
            labels=("model", "while"),
        )
        cost = CounterMetricFamily(COST, "What requests and idle containers cost.", labels=("model",))
        for model, taken in self._books.taken.items():
            gpu.add_metric([model, "busy"], taken.busy / 1e9)
            gpu.add_metric([model, "idle"], taken.idle / 1e9)
            cost.add_metric([model], taken.cost / 1e9)
        refused = CounterMetricFamily(
            "modal_gateway_limit_refusals",
            "Requests that a limit or a budget refused, by whose it was.",
            labels=("scope", "limit"),
        )
        for (kind, rule), count in self._books.leases.refused.items():
            refused.add_metric([kind, rule], count)
        spent = GaugeMetricFamily(
            "modal_gateway_budget_spent_ratio",
            f"Spent and reserved of a budget in the configuration, of the {BUDGETS} that are spent most.",
            labels=("scope", "id", "budget"),
        )
        nearly, named = self._books.leases.alerts(_named)
        for row in sorted(named, key=_share, reverse=True)[:BUDGETS]:
            spent.add_metric([row.kind, row.id, f"{row.measure}/{row.period}"], _share(row))
        alert = GaugeMetricFamily(
            "modal_gateway_budgets_nearly_spent",
            f"Budgets of which {ALERT}% are spent or reserved, whoever has them.",
        )
        alert.add_metric([], nearly)
        lost = CounterMetricFamily(
            "modal_gateway_limit_calls_lost",
            "What limits should have told Redis and never will, because it was away for too long.",
            value=self._books.leases.lost,
        )
        return iter((gpu, cost, refused, spent, alert, lost))

    def sums(self) -> list[Family]:
        """GPU time and cost of all models together."""
        taken = self._books.taken.values()
        gpu, cost = sum(each.busy + each.idle for each in taken), sum(each.cost for each in taken)
        return [
            (name, "counter", "", [(f"{name}_total", {}, n / 1e9)]) for name, n in ((GPU, gpu), (COST, cost))
        ]


class OfLedger:
    """A collector of how the ledger is; ``health`` is None while it does not run.

    ``refused``: requests that it refused.
    """

    def __init__(self, health: Callable[[], Health | None], refused: Callable[[], int]) -> None:
        self._health = health
        self._refused = refused

    def collect(self) -> Iterator[Metric]:
        health = self._health()
        reachable = GaugeMetricFamily(
            "modal_gateway_ledger_reachable",
            "1 if the ledger's database answers.",
            value=float(health is not None and health.reachable),
        )
        waiting = GaugeMetricFamily(
            "modal_gateway_ledger_waiting_bytes",
            "Of the spool, what is not in the ledger's database yet.",
            value=health.waiting if health is not None else 0,
        )
        refused = CounterMetricFamily(
            "modal_gateway_ledger_refusals",
            "Requests that were refused because they could not be noted.",
            value=self._refused(),
        )
        spoiled = CounterMetricFamily(
            "modal_gateway_ledger_spoiled_rows",
            "Rows that the ledger's database would not take.",
            value=health.spoiled if health is not None else 0,
        )
        return iter((reachable, waiting, refused, spoiled))


def _named(scope: Scope) -> bool:
    """Whether the configuration names it."""
    return scope.kind != "key" or scope.id.startswith(CONFIG)


def _share(row: Row) -> float:
    return (row.used + row.reserved) / row.limit


def _add_boots(family: Metric, target: Target) -> None:
    boots, labels = target.life.boots, {"upstream": target.name}
    for quantile, seconds in (("0.5", boots.p50), ("0.9", boots.p90)):
        if seconds is not None:
            family.add_sample(family.name, {**labels, "quantile": quantile}, seconds)
    family.add_sample(f"{family.name}_count", labels, boots.count)
    family.add_sample(f"{family.name}_sum", labels, boots.total)

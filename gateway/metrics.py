"""Prometheus metrics, derived from records and the upstreams' state; the only module that knows prometheus.

Rule: labels come from the config, never from the client (an unknown model is ``other``), and are bound
once, because looking a label up costs as much as the observation. Names follow Prometheus' conventions.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache, partial
from typing import get_args

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric, SummaryMetricFamily
from prometheus_client.exposition import CONTENT_TYPE_LATEST

from gateway import __version__
from gateway.record import Record
from gateway.routing.lifecycle import State
from gateway.routing.target import Target

CONTENT_TYPE = CONTENT_TYPE_LATEST
STATES: tuple[State, ...] = get_args(State)
# Seconds. A warm model answers in tenths, a cold one in minutes.
FIRST_EVENT_BUCKETS = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 150, 300, 600)
DURATION_BUCKETS = (0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 150, 300, 600, 1800)


class Metrics:
    """One registry; ``observe`` takes the record of each finished request."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry(auto_describe=True)
        counter = partial(Counter, registry=self._registry, namespace="modal_gateway")
        gauge = partial(Gauge, registry=self._registry, namespace="modal_gateway")
        histogram = partial(
            Histogram, registry=self._registry, namespace="modal_gateway", labelnames=("model",)
        )
        duration = partial(histogram, buckets=DURATION_BUCKETS)
        self._requests = counter("requests", "Finished requests.", ("route", "model", "status"))
        self._errors = counter("errors", "Requests that ended in an error.", ("model", "code"))
        self._tokens = counter(
            "tokens", "Tokens, by direction and by who counted them.", ("model", "direction", "source")
        )
        self._first_event = histogram(
            "time_to_first_event_seconds",
            "From the request to the first visible event of its answer.",
            buckets=FIRST_EVENT_BUCKETS,
        )
        self._duration = duration("request_duration_seconds", "From the request to the end of its answer.")
        self._stops = counter("stop_matches", "Answers that a stop string ended in the gateway.", ("model",))
        self._left = counter("client_disconnects", "Requests whose client left early.", ("model",))
        self._ignored = counter(
            "ignored_parameters", "Requests with parameters that had no effect.", ("model",)
        )
        self._extra = counter(
            "extra_calls", "Calls to upstreams beyond a request's first: what was tried again.", ("model",)
        )
        self._queue = duration("queue_seconds", "Waiting for a slot, of the requests that had to.")
        self._boot_wait = duration(
            "boot_wait_seconds", "Waiting for a container, of the requests that had to."
        )
        self._in_flight = 0  # read when it is scraped: two of prometheus' own steps a request cost more
        gauge("requests_in_flight", "Requests being answered.").set_function(lambda: self._in_flight)
        gauge("build_info", "1, labelled with the version.", ("version",)).labels(__version__).set(1)
        self._bound = lru_cache(maxsize=4096)(self._bind)
        self._bound_tokens = lru_cache(maxsize=4096)(self._bind_tokens)

    def began(self) -> None:
        """Count a request that is to be observed."""
        self._in_flight += 1

    def observe(self, record: Record) -> None:
        """Count one finished request."""
        self._in_flight -= 1
        count, first_event, duration = self._bound(record.route, record.model, record.status)
        count()
        duration(record.finished - record.started)
        if record.first_event is not None:
            first_event(record.first_event - record.started)
        if record.usage is not None:
            prompt, answer = self._bound_tokens(record.model, record.usage.source)
            prompt(record.usage.prompt_tokens)
            answer(record.usage.completion_tokens)
        if record.code or record.stop_matches or record.client_left or record.ignored:
            self._observe_rare(record)
        if record.queued or record.booted or record.calls > 1:
            self._observe_waits(record)

    def _observe_rare(self, record: Record) -> None:
        if record.code:
            self._errors.labels(record.model, record.code).inc()
        if record.stop_matches:
            self._stops.labels(record.model).inc(record.stop_matches)
        if record.client_left:
            self._left.labels(record.model).inc()
        if record.ignored:
            self._ignored.labels(record.model).inc()

    def _observe_waits(self, record: Record) -> None:
        if record.queued > 0:
            self._queue.labels(record.model).observe(record.queued)
        if record.booted > 0:
            self._boot_wait.labels(record.model).observe(record.booted)
        if record.calls > 1:
            self._extra.labels(record.model).inc(record.calls - 1)

    def _bind(
        self, route: str, model: str, status: int
    ) -> tuple[Callable[[], None], Callable[[float], None], Callable[[float], None]]:
        return (
            self._requests.labels(route, model, str(status)).inc,
            self._first_event.labels(model).observe,
            self._duration.labels(model).observe,
        )

    def _bind_tokens(
        self, model: str, source: str
    ) -> tuple[Callable[[float], None], Callable[[float], None]]:
        return self._tokens.labels(model, "in", source).inc, self._tokens.labels(model, "out", source).inc

    def watch(self, targets: Sequence[Target]) -> None:
        """Tell of these upstreams at each scrape; to be called once."""
        self._registry.register(_Upstreams(targets))

    def exposition(self) -> bytes:
        """The text that Prometheus scrapes."""
        return generate_latest(self._registry)


class _Upstreams:
    """A collector: looks at the upstreams when it is asked, so that requests pay nothing for it."""

    def __init__(self, targets: Sequence[Target]) -> None:
        self._targets = targets

    def collect(self) -> Iterator[Metric]:
        gauge = partial(GaugeMetricFamily, labels=("upstream",))
        states = GaugeMetricFamily(
            "modal_gateway_upstream_state", "1 for the state it is in.", labels=("upstream", "state")
        )
        calls = gauge("modal_gateway_upstream_calls", "Calls running.")
        waiting = gauge("modal_gateway_upstream_calls_waiting", "Calls waiting for a slot.")
        circuits = gauge("modal_gateway_upstream_circuit_open", "1 while it is passed over.")
        boots = SummaryMetricFamily(
            "modal_gateway_upstream_boot_seconds", "How long containers took to boot.", labels=("upstream",)
        )
        for target in self._targets:
            now, name = target.state(), [target.name]
            for state in STATES:
                states.add_metric([*name, state], float(state == now))
            calls.add_metric(name, target.slots.taken)
            waiting.add_metric(name, target.slots.waiting)
            circuits.add_metric(name, float(not target.closed()))
            _add_boots(boots, target)
        return iter((states, calls, waiting, circuits, boots))


def _add_boots(family: Metric, target: Target) -> None:
    boots, labels = target.life.boots, {"upstream": target.name}
    for quantile, seconds in (("0.5", boots.p50), ("0.9", boots.p90)):
        if seconds is not None:
            family.add_sample(family.name, {**labels, "quantile": quantile}, seconds)
    family.add_sample(f"{family.name}_count", labels, boots.count)
    family.add_sample(f"{family.name}_sum", labels, boots.total)

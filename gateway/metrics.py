"""Prometheus metrics, derived from records; the only module that knows prometheus.

Rule: labels come from the config, never from the client (an unknown model is ``other``), and are bound
once, because looking a label up costs as much as the observation. Names follow Prometheus' conventions.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache, partial

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST

from gateway import __version__
from gateway.record import Record

CONTENT_TYPE = CONTENT_TYPE_LATEST
# Seconds. A warm model answers in tenths, a cold one in minutes.
FIRST_EVENT_BUCKETS = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 150, 300, 600)
DURATION_BUCKETS = (0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 150, 300, 600, 1800)


class Metrics:
    """One registry; ``observe`` takes the record of each finished request."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry(auto_describe=True)
        counter = partial(Counter, registry=self._registry, namespace="modal_gateway")
        gauge = partial(Gauge, registry=self._registry, namespace="modal_gateway")
        histogram = partial(Histogram, registry=self._registry, namespace="modal_gateway")
        self._requests = counter("requests", "Finished requests.", ("route", "model", "status"))
        self._errors = counter("errors", "Requests that ended in an error.", ("model", "code"))
        self._tokens = counter(
            "tokens", "Tokens, by direction and by who counted them.", ("model", "direction", "source")
        )
        self._first_event = histogram(
            "time_to_first_event_seconds",
            "From the request to the first visible event of its answer.",
            ("model",),
            buckets=FIRST_EVENT_BUCKETS,
        )
        self._duration = histogram(
            "request_duration_seconds",
            "From the request to the end of its answer.",
            ("model",),
            buckets=DURATION_BUCKETS,
        )
        self._stops = counter("stop_matches", "Answers that a stop string ended in the gateway.", ("model",))
        self._left = counter("client_disconnects", "Requests whose client left early.", ("model",))
        self._ignored = counter(
            "ignored_parameters", "Requests with parameters that had no effect.", ("model",)
        )
        self._in_flight = gauge("requests_in_flight", "Requests being answered.")
        gauge("build_info", "1, labelled with the version.", ("version",)).labels(__version__).set(1)
        self._bound = lru_cache(maxsize=4096)(self._bind)
        self._bound_tokens = lru_cache(maxsize=4096)(self._bind_tokens)
        self.began: Callable[[], None] = self._in_flight.inc

    def observe(self, record: Record) -> None:
        """Count one finished request."""
        self._in_flight.dec()
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

    def _observe_rare(self, record: Record) -> None:
        if record.code:
            self._errors.labels(record.model, record.code).inc()
        if record.stop_matches:
            self._stops.labels(record.model).inc(record.stop_matches)
        if record.client_left:
            self._left.labels(record.model).inc()
        if record.ignored:
            self._ignored.labels(record.model).inc()

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

    def exposition(self) -> bytes:
        """The text that Prometheus scrapes."""
        return generate_latest(self._registry)

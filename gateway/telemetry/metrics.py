"""Prometheus metrics of this process, derived from records and from what is looked at when it is scraped.

Rule: labels come from the config, never from the client (an unknown model is ``other``), and are bound
once, because looking a label up costs as much as the observation. Names follow Prometheus' conventions.
Several processes are added up in `gateway/telemetry/workers.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache, partial
from typing import TYPE_CHECKING, NamedTuple

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    disable_created_metrics,
)

from gateway import __version__
from gateway.record import Record
from gateway.routing.target import Target
from gateway.serve.books import Books
from gateway.telemetry.collectors import OfBooks, OfLedger, OfUpstreams
from gateway.telemetry.families import Family, taken
from gateway.telemetry.series import Counts, Timings

if TYPE_CHECKING:
    from gateway.ledger.writer import Health

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"  # read by all; no name of ours needs a later one
PREFIX = "modal_gateway_"
# Seconds. A warm model answers in tenths, a cold one in minutes.
FIRST_EVENT_BUCKETS = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 150, 300, 600)
DURATION_BUCKETS = (0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 150, 300, 600, 1800)
QUEUE_BUCKETS = (0.1, 0.5, 1, 5, 10, 30, 60, 300)
BOOT_BUCKETS = (1, 5, 10, 20, 30, 60, 120, 300, 600)
TOKEN_BUCKETS = (0.005, 0.01, 0.02, 0.03, 0.05, 0.1, 0.2, 0.5)  # 200 to 2 tokens a second
OVERHEAD_BUCKETS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.05, 0.25, 1)
LAG_BUCKETS = (0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1, 5)

disable_created_metrics()  # type: ignore[no-untyped-call] # one more series for each counter and histogram


class _Bound(NamedTuple):
    """What is observed of requests with the same labels."""

    one: Callable[[], None]
    duration: Callable[[float], None]
    overhead: Callable[[float], None]
    first_event: Callable[[float], None]
    per_token: Callable[[float], None]


class Metrics:
    """One registry; ``observe`` takes the record of each finished request."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry(auto_describe=True)
        self._count()
        self._measure()
        gauge = partial(Gauge, registry=self._registry, namespace="modal_gateway")
        self._in_flight = 0  # read when it is scraped: two of prometheus' own steps a request cost more
        gauge("requests_in_flight", "Requests being answered.").set_function(lambda: self._in_flight)
        self._streams: Callable[[], int] = int
        self._sums: list[Callable[[], list[Family]]] = []
        gauge("open_streams", "Streams being answered.").set_function(lambda: self._streams())
        gauge("build_info", "1, labelled with the version.", ("version",)).labels(__version__).set(1)
        self._bound = lru_cache(maxsize=4096)(self._bind)
        self._bound_tokens = lru_cache(maxsize=4096)(self._bind_tokens)

    def _count(self) -> None:
        """Make the counters."""
        counter = partial(Counter, registry=self._registry, namespace="modal_gateway")
        by_model = partial(counter, labelnames=("model",))
        self._requests = self._counts("requests", "Finished requests.", ("route", "model", "status"))
        self._errors = self._counts("errors", "Requests that ended in an error.", ("model", "code"))
        self._tokens = self._counts(
            "tokens", "Tokens, by direction and by who counted them.", ("model", "direction", "source")
        )
        self._stops = by_model("stop_matches", "Answers that a stop string ended in the gateway.")
        self._left = by_model("client_disconnects", "Requests whose client left early.")
        self._ignored = by_model("ignored_parameters", "Requests with parameters that had no effect.")
        self._retries = by_model("retries", "Further calls to the model that was asked for, for a request.")
        self._fallbacks = counter(
            "fallbacks", "Calls to another model than was asked for.", ("model", "wanted")
        )

    def _measure(self) -> None:
        """Make the histograms."""
        self._first_event = self._timings(
            "time_to_first_event_seconds",
            "From the request to the first visible event of its answer.",
            FIRST_EVENT_BUCKETS,
        )
        self._duration = self._timings(
            "request_duration_seconds", "From the request to the end of its answer.", DURATION_BUCKETS
        )
        self._queue = self._timings(
            "queue_seconds", "Waiting for a slot, of the requests that had to.", QUEUE_BUCKETS
        )
        self._boot_wait = self._timings(
            "boot_wait_seconds", "Waiting for a container, of the requests that had to.", BOOT_BUCKETS
        )
        self._per_token = self._timings(
            "time_per_output_token_seconds",
            "Of streams, from the first event to the end, for each token of an answer but the first.",
            TOKEN_BUCKETS,
        )
        self._overhead = self._timings(
            "overhead_seconds",
            "Of requests that called an upstream, the time in which no such call was under way.",
            OVERHEAD_BUCKETS,
        )
        self.lag = Histogram(
            "event_loop_lag_seconds",
            "How much too late a timer of the event loop went off, looked at twice a second.",
            registry=self._registry,
            namespace="modal_gateway",
            buckets=LAG_BUCKETS,
        )

    def _counts(self, name: str, about: str, labels: Sequence[str]) -> Counts:
        made = Counts(f"modal_gateway_{name}", about, labels)
        self._registry.register(made)
        return made

    def _timings(self, name: str, about: str, bounds: Sequence[float]) -> Timings:
        made = Timings(f"modal_gateway_{name}", about, bounds)
        self._registry.register(made)
        return made

    def began(self) -> None:
        """Count a request that is to be observed."""
        self._in_flight += 1

    def observe(self, record: Record) -> None:
        """Count one finished request."""
        self._in_flight -= 1
        bound = self._bound(record.route, record.model, record.status)
        took, usage = record.finished - record.started, record.usage
        bound.one()
        bound.duration(took)
        if record.calls:
            bound.overhead(max(took - record.called, 0.0))
        if record.first_event is not None:
            bound.first_event(record.first_event - record.started)
        if usage is not None:
            prompt, answer = self._bound_tokens(record.model, usage.source)
            prompt(usage.prompt_tokens)
            answer(usage.completion_tokens)
            gaps = usage.completion_tokens / record.choices - 1
            if record.streamed and record.first_event is not None and gaps > 0:
                bound.per_token((record.finished - record.first_event) / gaps)
        if record.code or record.stop_matches or record.client_left or record.ignored:
            self._observe_rare(record)
        if record.queued or record.booted or record.calls > 1:
            self._observe_waits(record)

    def _observe_rare(self, record: Record) -> None:
        if record.code:
            self._errors.of(record.model, record.code)()
        if record.stop_matches:
            self._stops.labels(record.model).inc(record.stop_matches)
        if record.client_left:
            self._left.labels(record.model).inc()
        if record.ignored:
            self._ignored.labels(record.model).inc()

    def _observe_waits(self, record: Record) -> None:
        if record.queued > 0:
            self._queue.of(record.model)(record.queued)
        if record.booted > 0:
            self._boot_wait.of(record.model)(record.booted)
        if record.fallbacks:
            self._fallbacks.labels(record.model, record.wanted).inc(record.fallbacks)
        if retries := record.calls - 1 - record.fallbacks:
            self._retries.labels(record.wanted).inc(retries)

    def _bind(self, route: str, model: str, status: int) -> _Bound:
        return _Bound(
            self._requests.of(route, model, str(status)),
            self._duration.of(model),
            self._overhead.of(model),
            self._first_event.of(model),
            self._per_token.of(model),
        )

    def _bind_tokens(
        self, model: str, source: str
    ) -> tuple[Callable[[float], None], Callable[[float], None]]:
        return self._tokens.of(model, "in", source), self._tokens.of(model, "out", source)

    def watch(self, targets: Callable[[], Sequence[Target]]) -> None:
        """Tell of these upstreams at each scrape; to be called once."""
        made = OfUpstreams(targets)
        self._registry.register(made)
        self._sums.append(made.sums)

    def streaming(self, streams: Callable[[], int]) -> None:
        """Tell at each scrape how many streams there are."""
        self._streams = streams

    def keep(self, books: Books) -> None:
        """Tell of these books at each scrape; to be called once."""
        made = OfBooks(books)
        self._registry.register(made)
        self._sums.append(made.sums)

    def booking(self, health: Callable[[], Health | None], refused: Callable[[], int]) -> None:
        """Tell at each scrape how the ledger is, where there is one; to be called once."""
        self._registry.register(OfLedger(health, refused))

    def families(self) -> list[Family]:
        """What Prometheus scrapes of this process, as plain data."""
        return taken(self._registry)

    def sums(self) -> list[Family]:
        """What a glance at all models needs: ten families, with as many samples whatever models there are."""
        running, streams = f"{PREFIX}requests_in_flight", f"{PREFIX}open_streams"
        return [
            self._requests.sum(),
            self._errors.sum(),
            self._tokens.sum(by="direction"),
            self._first_event.sum(),
            self._per_token.sum(),
            (running, "gauge", "", [(running, {}, self._in_flight)]),
            (streams, "gauge", "", [(streams, {}, self._streams())]),
            *(family for sums in self._sums for family in sums()),
        ]

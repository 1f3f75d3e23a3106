"""Counters and histograms of every request read as prometheus' own do."""

from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest

from gateway.telemetry.series import Counts, Timings

BOUNDS = (0.1, 0.25, 1, 600)
MODELS = st.sampled_from(["a", "b", 'c"\\\n'])
AMOUNTS = st.sampled_from([0.0, *BOUNDS]) | st.floats(0, 1e6)


@given(st.lists(st.tuples(MODELS, AMOUNTS)))
def test_a_histogram_is_told_as_prometheus_tells_its_own(seen: list[tuple[str, float]]) -> None:
    ours, theirs = CollectorRegistry(), CollectorRegistry()
    timings = Timings("took_seconds", "How long.", BOUNDS)
    ours.register(timings)
    histogram = Histogram("took_seconds", "How long.", ("model",), registry=theirs, buckets=BOUNDS)
    for model, amount in seen:
        timings.of(model)(amount)
        histogram.labels(model).observe(amount)
    assert generate_latest(ours) == generate_latest(theirs)


@given(st.lists(st.tuples(MODELS, st.integers(0, 1 << 40))))
def test_a_counter_is_told_as_prometheus_tells_its_own(seen: list[tuple[str, int]]) -> None:
    ours, theirs = CollectorRegistry(), CollectorRegistry()
    counts = Counts("tokens", "Tokens.", ("model", "source"))
    ours.register(counts)
    counter = Counter("tokens", "Tokens.", ("model", "source"), registry=theirs)
    for model, amount in seen:
        counts.of(model, "upstream")(amount)
        counts.of(model, "estimate")()
        counter.labels(model, "upstream").inc(amount)
        counter.labels(model, "estimate").inc()
    assert generate_latest(ours) == generate_latest(theirs)


@given(st.lists(st.tuples(MODELS, AMOUNTS)))
def test_a_sum_has_a_sample_for_each_bucket_or_value_and_none_for_each_model(
    seen: list[tuple[str, float]],
) -> None:
    timings, counts = Timings("took_seconds", "", BOUNDS), Counts("tokens", "", ("model", "source"))
    for model, amount in seen:
        timings.of(model)(amount)
        counts.of(model, "x")(2)
        counts.of(model, "y")()
    [*_, samples] = timings.sum()
    within = [sum(amount <= end for _, amount in seen) for end in (*BOUNDS, float("inf"))]
    assert [float(labels["le"]) for _, labels, _ in samples] == ([*BOUNDS, float("inf")] if seen else [])
    assert [value for *_, value in samples] == (within if seen else [])
    n = len(seen)
    assert counts.sum()[3] == ([("tokens_total", {}, 3 * n)] if n else [])
    by = {labels["source"]: value for _, labels, value in counts.sum(by="source")[3]}
    assert by == ({"x": 2 * n, "y": n} if n else {})

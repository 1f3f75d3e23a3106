"""What metrics say of a request, and how many series there can be."""

import asyncio
from contextlib import suppress
from dataclasses import replace

import pytest

from gateway.allowances import Budget
from gateway.app import WORLD
from gateway.auth import Caller
from gateway.console.history import totals
from gateway.core.errors import UpstreamUnavailable
from gateway.core.events import Finish, Text, Usage
from gateway.ledger.writer import Health
from gateway.limits.leases import Leases
from gateway.limits.memory import Memory
from gateway.limits.rules import Amount, Kind
from gateway.limits.scopes import Scopes
from gateway.record import Record
from gateway.routing.visit import Visit as Met
from gateway.routing.visit import covered
from gateway.serve.books import Books
from gateway.telemetry import lag as lags
from gateway.telemetry.families import exposition
from gateway.telemetry.metrics import Metrics
from tests.ledger.books import record
from tests.serve.house import Desk, Scripted, Visit, deployed, house, soon, unbounded
from tests.serve.test_surface import call
from tests.telemetry.test_trace import ASK

HELLO = [Text("hello"), Finish("stop", Usage(3, 2))]
ENDS = {200: None, 400: "invalid_value", 429: "rate_limit", 503: "upstream_busy"}
GONE = [UpstreamUnavailable("gone", retry="elsewhere")]


def full(model: str, **other: object) -> Record:
    """A request with everything that is counted."""
    return record(
        "req_1", model=model, wanted=model, calls=2, queued=1.0, booted=1.0, stop_matches=1, client_left=True,
        ignored=("x",), called=1.0, **other,
    )  # fmt: skip


def series(metrics: Metrics) -> list[str]:
    return [line for line in exposition(metrics.families()).decode().splitlines() if not line.startswith("#")]


def test_a_model_has_a_hundred_series_and_junk_names_have_none_of_their_own() -> None:
    models = [f"m{number}" for number in range(20)]
    metrics, books = Metrics(), unbounded(WORLD)
    metrics.watch(lambda: [deployed(Scripted(name)).upstreams[0] for name in models])
    metrics.keep(books)
    for name in models:
        books.taken[name].busy = 1
        for status, code in ENDS.items():
            metrics.observe(full(name, status=status, code=code))
    known = len(series(metrics))
    assert known <= 150 + 115 * len(models)
    for number in range(100_000):
        metrics.observe(record("req_1", asked=f"junk{number}", model="other", status=404, usage=None))
    assert len(series(metrics)) - known < 100
    assert not [line for line in series(metrics) if "junk" in line]


def test_what_the_ledger_and_limits_lost_is_counted() -> None:
    metrics, limiter = Metrics(), Memory(WORLD.monotonic, WORLD.time)
    limiter.lost = 4

    async def nothing(kind: Kind, id: str, since: float) -> Amount:
        return Amount()

    metrics.keep(Books(Leases(limiter, Scopes({}), nothing, WORLD.time), WORLD))
    metrics.booking(lambda: Health(reachable=True, waiting=0, spoiled=3), lambda: 2)
    for line in ("ledger_refusals_total 2.0", "ledger_spoiled_rows_total 3.0", "limit_calls_lost_total 4.0"):
        assert f"modal_gateway_{line}" in series(metrics)


async def test_only_the_configuration_names_budgets_and_those_of_everybody_are_counted() -> None:
    metrics, books = Metrics(), unbounded(WORLD)
    metrics.keep(books)
    model = deployed(Scripted("m"))
    for id in ("config:ci", "key_0123", "oidc:0123:ann"):
        caller = Caller("ann@example.com", id=id, team="t", budgets=(Budget(tokens=10),))
        await books.leases.lease(caller, model, Amount(tokens=9), f"req_{id}")
    told = [line for line in series(metrics) if "budget" in line]
    labels = 'budget="tokens/month",id="config:ci",scope="key"'
    ratio, count = (
        f"modal_gateway_budget_spent_ratio{{{labels}}} 0.9",
        "modal_gateway_budgets_nearly_spent 3.0",
    )
    assert told == [ratio, count]


def test_the_sums_are_those_of_all_that_is_scraped_and_no_more_for_more_models() -> None:
    sizes = set()
    for models in (1, 100):
        targets = [deployed(Scripted(f"m{number}")).upstreams[0] for number in range(models)]
        metrics, books = Metrics(), unbounded(WORLD)
        metrics.watch(lambda targets=targets: targets)
        metrics.keep(books)
        metrics.began()
        for number, target in enumerate(targets):
            taken = books.taken[target.name]
            taken.busy, taken.idle, taken.cost = number, 2 * number, 3 * number
            target.life.refused(0.0)
            target.life.answered(number % 50 + 1.0)
            metrics.observe(full(target.name, streamed=True, first_event=0.5, usage=Usage(5, 7)))
            metrics.observe(full(target.name, status=503, code="x"))
        sums = metrics.sums()
        told, scraped = totals(sums), totals(metrics.families())
        assert told[:-2] == pytest.approx(scraped[:-2]) and told[-2:] == scraped[-2:]
        assert told.cold_starts == told.errors == models
        sizes.add((len(sums), sum(len(samples) for *_, samples in sums)))
    [(families, samples)] = sizes
    assert families <= 12 and samples <= 40


def test_time_per_token_is_of_streams_and_of_each_answer() -> None:
    metrics = Metrics()
    metrics.observe(record("req_2", streamed=False))
    metrics.observe(record("req_3", usage=Usage(1, 1)))
    times = {"started": 0.0, "first_event": 1.0, "finished": 3.0}
    metrics.observe(record("req_1", usage=Usage(1, 5), **times))
    metrics.observe(record("req_4", usage=Usage(1, 10), choices=2, **times))
    assert 'modal_gateway_time_per_output_token_seconds_sum{model="m"} 1.0' in series(metrics)
    assert 'modal_gateway_time_per_output_token_seconds_count{model="m"} 2.0' in series(metrics)


def test_what_calls_cover_is_counted_once() -> None:
    def met(came: float, ended: float) -> Met:
        return Met(came=came, ended=ended)

    assert covered([met(1, 3)]) == 2
    assert covered([met(1, 3), met(2, 5), met(7, 8)]) == 5
    assert covered([met(1, 9), met(2, 3), met(0, 0)]) == 8
    assert covered([]) == covered([Met()]) == 0


async def test_overhead_is_what_no_call_was_under_way_in() -> None:
    upstream = Scripted("m")
    desk = Desk(deployed(upstream))
    now = 0.0

    def clock() -> float:
        nonlocal now
        now += 0.25
        return now

    desk.service.world = replace(desk.service.world, monotonic=clock)
    [target] = desk.service.routes.deployments["m"].upstreams
    target._clock = clock
    await desk.ask()
    [made] = desk.records
    assert 0 < made.called < made.finished - made.started
    overhead = made.finished - made.started - made.called
    assert desk.counted(f'modal_gateway_overhead_seconds_sum{{model="m"}} {overhead}')


async def test_retries_and_fallbacks_are_told_apart() -> None:
    second = deployed(Scripted("b", [HELLO]), name="b")
    first = deployed(Scripted("a0", GONE), Scripted("a1", GONE), name="a", fallback=("b",))
    desk = Desk(first, second)
    assert (await desk.ask(model="a")).status == 200
    [made] = desk.records
    assert (made.wanted, made.model, made.calls, made.fallbacks) == ("a", "b", 3, 1)
    assert desk.counted('modal_gateway_retries_total{model="a"} 1.0')
    assert desk.counted('modal_gateway_fallbacks_total{model="b",wanted="a"} 1.0')


async def test_streams_and_connections_are_told_while_they_are_open() -> None:
    asked, told = asyncio.Event(), asyncio.Event()

    async def slow(visit: Visit) -> None:
        asked.set()
        await told.wait()
        await visit.say("hello")

    async def lines() -> list[str]:
        return (await call(at, "GET", "/metrics")).text.splitlines()

    async with house(slow) as at, asyncio.TaskGroup() as group:
        group.create_task(call(at, "POST", "/v1/chat/completions", json={**ASK, "stream": True}))
        await soon(asked.wait())
        during = await lines()
        assert "modal_gateway_open_streams 1.0" in during
        assert 'modal_gateway_upstream_connections{upstream="m"} 1.0' in during
        assert 'modal_gateway_upstream_containers{upstream="m"} 1.0' in during
        told.set()
        async with asyncio.timeout(10):
            while "modal_gateway_open_streams 0.0" not in await lines():
                pass


async def test_addresses_of_results_that_are_followed_are_counted() -> None:
    async def redirecting(visit: Visit) -> None:
        if visit.method == "POST" or "hop=1" in visit.path:
            location = "/?hop=1" if visit.method == "POST" else "/?hop=2"
            head = f"HTTP/1.1 303 See Other\r\nlocation: {location}&__modal_function_call_id=x\r\n"
            await visit.send(head.encode() + b"content-length: 0\r\n\r\n")
        else:
            await visit.answer({"prompt": "hello"})

    async with house(redirecting) as at:
        assert (await call(at, "POST", "/v1/chat/completions", json=ASK)).status_code == 200
        text = (await call(at, "GET", "/metrics")).text
        assert 'modal_gateway_upstream_result_redirects_total{upstream="m"} 2.0' in text.splitlines()


async def test_a_loop_that_was_blocked_was_late(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lags, "LOOK", 0.0)
    told: list[float] = []
    loop = asyncio.get_running_loop()
    real, late = loop.time, 0.0
    monkeypatch.setattr(loop, "time", lambda: real() + late)
    heard = asyncio.Event()

    def tell(seconds: float) -> None:
        told.append(seconds)
        heard.set()

    task = loop.create_task(lags.lag(tell))
    await asyncio.sleep(0)
    late = 5.0
    await soon(heard.wait())
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task
    assert 5.0 <= told[0] < 15.0

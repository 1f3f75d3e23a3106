"""GPU time of requests: whatever becomes of one, it is told and booked what its containers took."""

import asyncio
import json
import re
from collections.abc import AsyncGenerator, Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.core.call import Call
from gateway.core.errors import GatewayError, NoContainer, UpstreamUnavailable
from gateway.core.events import Batch, Finish, Text, Usage
from gateway.core.gpu import SECOND, Meter, Payer, Tail
from gateway.core.price import Price
from gateway.core.spec import ModelSpec
from gateway.ledger import Ledger
from gateway.ledger.rows import Idle
from gateway.limits.leases import Leases
from gateway.limits.memory import Memory
from gateway.limits.rules import Amount
from gateway.limits.scopes import Scopes
from gateway.routing.routes import Deployment
from gateway.routing.target import Target
from gateway.routing.visit import Bounds
from gateway.serve.books import Books
from gateway.store.config import Store
from gateway.templates import load
from gateway.world import World
from tests.conftest import ROOT
from tests.serve.house import HELLO, Desk, Line, Scripted, soon
from tests.serve.test_chat import chunks
from tests.serve.test_embeddings import Desk as VectorDesk
from tests.serve.test_embeddings import Embedder

WINDOW = 8.0
ROOMY = Bounds(8, 8, 1000.0, poll=0.0, window=WINDOW, inputs=4, containers=2)
DOLLAR = 1_000_000_000  # in billionths


class Time:
    """A clock that only a test moves; in eighths of a second, which floats hold exactly."""

    now = 0.0

    def __call__(self) -> float:
        return self.now

    def passing(self, seconds: float) -> Callable[[], Any]:
        """A step of an upstream that takes so long."""

        async def step() -> None:
            self.now += seconds

        return step


class Works(Desk):
    """The chat endpoint on such a clock."""

    def __init__(self, time: Time, *models: Deployment) -> None:
        self.time = time
        super().__init__(*models)

    @property
    def now(self) -> float:  # type: ignore[override]
        return self.time.now

    @now.setter
    def now(self, value: float) -> None:
        self.time.now = value

    def took(self) -> list[float | None]:
        """GPU seconds of the requests so far."""
        return [None if each.gpu is None else each.gpu / SECOND for each in self.records]


def model(
    time: Time, *upstreams: Scripted, name: str = "m", bounds: Bounds = ROOMY, **fields: Any
) -> Deployment:
    spec = ModelSpec(name, load("plain"), **fields.pop("spec", {}))
    return Deployment(spec, [Target(each, bounds, time) for each in upstreams], **fields)


class Gated(Scripted):
    """Each call waits until it is told what becomes of it."""

    def __init__(self, name: str = "u") -> None:
        super().__init__(name)
        self.waiting: list[asyncio.Future[GatewayError | None]] = []

    async def events(self, call: Call) -> AsyncGenerator[Batch, None]:
        gate = asyncio.get_running_loop().create_future()
        self.waiting.append(gate)
        self.asked.set()
        try:
            if (error := await gate) is not None:
                raise error
        finally:
            if gate in self.waiting:
                self.waiting.remove(gate)
        for batch in HELLO:
            yield batch  # type: ignore[misc]

    def answer(self, error: GatewayError | None = None) -> None:
        """The oldest."""
        self.waiting.pop(0).set_result(error)


async def rest() -> None:
    """Let everybody do what they can without the time passing, until nobody has anything to do."""
    ready: Any = asyncio.get_running_loop()._ready  # type: ignore[attr-defined]
    quiet = 0
    for _ in range(500):
        await asyncio.sleep(0)
        quiet = 0 if ready else quiet + 1
        if quiet > 5:
            return


# --- what a request is told ---


async def test_a_whole_answer_says_what_it_took_and_what_it_costs() -> None:
    time = Time()
    turn = [time.passing(1.5), [Text("hello")], time.passing(0.5), [Finish("stop", Usage(10, 5))]]
    price = Price(0.001, 2, per_million_input=1.0, per_million_output=3.0)
    works = Works(time, model(time, Scripted("u", turn), price=price))
    headers = dict((await works.ask()).said[0]["headers"])
    assert headers[b"x-gateway-gpu-ms"] == b"2000.000"
    assert headers[b"x-gateway-cost"] == b"0.004025000"
    [record] = works.records
    assert (record.gpu, record.gpu_source, record.cost) == (2 * SECOND, "estimated", 4_025_000)


async def test_a_stream_says_it_with_its_usage() -> None:
    time = Time()
    turn = [time.passing(1.0), [Text("hello")], time.passing(2.0), [Finish("stop", Usage(1, 1))]]
    works = Works(time, model(time, Scripted("u", turn), price=Price(0.5)))
    line = await works.ask(stream=True, stream_options={"include_usage": True})
    assert chunks(line.body.decode())[-1]["x_gateway"] == {"usage": "upstream", "gpu_ms": 3000.0, "cost": 1.5}
    assert not any(name == b"x-gateway-gpu-ms" for name, _ in line.said[0]["headers"])
    assert works.records[0].cost == 1.5 * DOLLAR


async def test_nothing_is_said_where_there_are_no_containers_and_no_price() -> None:
    time = Time()
    works = Works(time, model(time, Scripted("u"), bounds=Bounds(1, 1, 1.0)))
    line = await works.ask(stream=True, stream_options={"include_usage": True})
    assert chunks(line.body.decode())[-1]["x_gateway"] == {"usage": "upstream"}
    whole = await works.ask()
    assert not any(
        name.startswith((b"x-gateway-gpu", b"x-gateway-cost")) for name, _ in whole.said[0]["headers"]
    )
    assert [(each.gpu, each.gpu_source, each.cost) for each in works.records] == [(None, None, None)] * 2


async def test_a_model_priced_by_tokens_costs_without_containers_too() -> None:
    time = Time()
    priced = model(time, Scripted("u"), bounds=Bounds(1, 1, 1.0), price=Price(per_million_output=2.0))
    works = Works(time, priced)
    assert dict((await works.ask()).said[0]["headers"])[b"x-gateway-cost"] == b"0.000002000"
    assert (works.records[0].gpu, works.records[0].cost) == (None, 2000)


# --- whose time it is ---


async def test_choices_run_side_by_side_and_add_up() -> None:
    time, upstream = Time(), Gated()
    bounds = Bounds(8, 8, 1000.0, window=WINDOW, inputs=1, containers=2)
    works = Works(time, model(time, upstream, bounds=bounds))
    async with asyncio.TaskGroup() as group:
        group.create_task(works.ask(n=3))
        await rest()
        time.now += 4  # three calls on two containers
        upstream.answer()
        await rest()
        time.now += 2
        upstream.answer()
        upstream.answer()
    assert works.took() == [4 * 2 + 2 * 2]


DOWN = UpstreamUnavailable("down", retry="elsewhere")


async def test_each_try_counts_and_costs_what_its_own_model_asks() -> None:
    time = Time()
    first = Scripted("a", [time.passing(1.0), DOWN])
    second = Scripted("b", [time.passing(2.0), DOWN])
    last = Scripted("c", [time.passing(4.0), *HELLO])
    dear = model(time, first, second, price=Price(1.0, per_million_input=9.0), fallback=("f",))
    cheap = model(time, last, name="f", price=Price(0.125, per_million_output=1.0))
    works = Works(time, dear, cheap)
    assert (await works.ask()).status == 200
    assert works.took() == [7.0]
    assert works.records[0].cost == 3 * DOLLAR + DOLLAR // 2 + 1000
    assert (works.records[0].model, works.records[0].calls) == ("f", 3)


async def test_what_ran_before_an_upstream_without_containers_is_not_lost() -> None:
    time = Time()
    dear = model(time, Scripted("a", [time.passing(1.0), DOWN]), price=Price(1.0), fallback=("f",))
    free = model(time, Scripted("b"), name="f", bounds=Bounds(1, 1, 1.0))
    works = Works(time, dear, free)
    assert dict((await works.ask()).said[0]["headers"])[b"x-gateway-cost"] == b"1.000000000"
    assert works.took() == [1.0]


async def test_an_answer_that_was_asked_for_again_counts_twice() -> None:
    time = Time()
    turns = [
        [time.passing(1.0), [Text("no"), Finish("stop", Usage(1, 1))]],
        [time.passing(2.0), [Text("{}"), Finish("stop", Usage(2, 1))]],
    ]
    price = Price(1.0, per_million_output=1.0)
    works = Works(time, model(time, Scripted("u", *turns), price=price))
    line = await works.ask(response_format={"type": "json_object"})
    assert json.loads(line.body)["choices"][0]["message"]["content"] == "{}"
    assert (works.took(), works.records[0].cost) == ([3.0], 3 * DOLLAR + 2000)


@pytest.mark.parametrize("stream", [False, True])
async def test_whoever_leaves_has_still_used_it(stream: bool) -> None:
    time, upstream = Time(), Gated()
    works = Works(time, model(time, upstream, price=Price(1.0)))
    line = works.line(stream=stream)
    async with asyncio.TaskGroup() as group:
        group.create_task(works.take(line))
        await soon(upstream.asked.wait())
        time.now += 3
        line.left.set()
    assert (works.took(), works.records[0].cost) == ([3.0], 3 * DOLLAR)
    assert works.records[0].client_left


async def test_who_is_refused_has_used_nothing() -> None:
    time = Time()
    refusing = Scripted("u", [NoContainer("none", retry="elsewhere")])
    works = Works(time, model(time, refusing, cold="fail", price=Price(1.0)))
    line = await works.ask()
    assert (line.status, works.took(), works.records[0].cost) == (503, [0.0], 0)


async def test_a_request_that_called_nothing_has_no_time_and_no_cost() -> None:
    time = Time()
    works = Works(time, model(time, Scripted("u"), spec={"context_length": 1}, count=len, price=Price(1.0)))
    assert (await works.ask()).status == 400
    assert [(each.gpu, each.cost) for each in works.records] == [(None, None)]


async def test_a_boot_is_shared_evenly_by_those_who_wait_for_it() -> None:
    time, upstream = Time(), Gated()
    works = Works(time, model(time, upstream))
    async with asyncio.TaskGroup() as group:
        asking = [group.create_task(works.ask()) for _ in range(2)]
        await rest()
        for _ in range(2):
            while upstream.waiting:
                upstream.answer(NoContainer("none", retry="elsewhere"))
            await rest()
            time.now += 10
        while not all(task.done() for task in asking):
            if upstream.waiting:
                upstream.answer()
            await rest()
    assert works.took() == [10.0, 10.0]


async def test_waiting_for_a_slot_is_not_counted() -> None:
    time, upstream = Time(), Gated()
    works = Works(time, model(time, upstream, bounds=Bounds(1, 8, 1000.0, window=WINDOW, inputs=4)))
    async with asyncio.TaskGroup() as group:
        for _ in range(2):
            group.create_task(works.ask())
            await rest()
        time.now += 4
        upstream.answer()
        await rest()
        time.now += 2
        upstream.answer()
    assert works.took() == [4.0, 2.0]
    assert works.records[1].queued == 4.0


async def test_what_the_platform_counts_goes_before_a_guess() -> None:
    time, upstream = Time(), Gated()
    served = model(time, upstream)
    works = Works(time, served)
    served.upstreams[0].counted(3)
    async with asyncio.TaskGroup() as group:
        group.create_task(works.ask())
        await rest()
        time.now += 2
        upstream.answer()
    assert (works.took(), works.records[0].gpu_source) == ([6.0], "reported")


async def test_the_parts_of_a_request_for_vectors_share_their_container() -> None:
    time = Time()

    class Slow(Embedder):
        async def events(self, call: Call) -> AsyncGenerator[Batch, None]:
            time.now += 1
            async for batch in super().events(call):
                yield batch

    desk = VectorDesk(model(time, Slow("u"), spec={"embedding_batch": 2}, price=Price(1.0)))
    line = await desk.ask(["a", "b", "c", "d", "e", "f"])
    [record] = desk.records
    assert record.gpu == 3 * SECOND  # not the sum of three calls that ran at once
    assert record.cost == 3 * DOLLAR
    assert (b"x-gateway-gpu-ms", b"3000.000") in line.said[0]["headers"]


# --- everything adds up ---


class Plant:
    """Models behind gates, and by itself the integral of their containers as the rules define it."""

    def __init__(self) -> None:
        self.time = Time()
        self.upstreams = [Gated(name) for name in ("m-0", "m-1", "f")]
        self.bounds = Bounds(3, 2, 1000.0, poll=0.0, window=WINDOW, inputs=2, containers=2)
        m = model(self.time, *self.upstreams[:2], bounds=self.bounds, fallback=("f",))
        self.models = [m, model(self.time, self.upstreams[2], name="f", bounds=self.bounds)]
        self.targets = [target for each in self.models for target in each.upstreams]
        self.works = Works(self.time, *self.models)
        self.lines: list[Line] = []
        self.integral = 0
        loop = asyncio.get_running_loop()
        self._told = loop.time()  # only we move it: a departure is looked for a little later than it happens
        loop.time = lambda: self._told  # type: ignore[method-assign]
        self._ends = dict.fromkeys(map(id, self.targets), 0.0)  # when the last container will have stopped
        self._busy = dict.fromkeys(map(id, self.targets), 0)

    async def step(self, pause: float, what: str, group: asyncio.TaskGroup) -> None:
        """Something happens, and then so many seconds pass."""
        waiting = [each for each in self.upstreams if each.waiting]
        if what in ("ask", "ask two", "ask f"):
            self.lines.append(
                self.works.line(model=what[4:] if what == "ask f" else "m", n=1 + (what == "ask two"))
            )
            group.create_task(self.works.take(self.lines[-1]))
        elif what == "leave" and self.lines:
            self.lines.pop(0).left.set()
            self._told += 1
        elif waiting:
            errors = {"fail": DOWN, "refuse": NoContainer("none", retry="elsewhere")}
            waiting[0].answer(errors.get(what))
        await rest()
        for target in self.targets:
            self.integral += self._took(target, pause)
        self.time.now += pause

    def _took(self, target: Target, pause: float) -> int:
        calls, before = target.slots.taken, self._busy[id(target)]
        self._busy[id(target)] = calls
        if before and not calls:
            self._ends[id(target)] = self.time.now + WINDOW
        if calls:
            return round(min(2, -(-calls // 2)) * pause * SECOND)
        idle = min(self._ends[id(target)] - self.time.now, pause)
        return round(max(idle, 0.0) * SECOND)


STEPS = st.lists(
    st.tuples(
        st.integers(0, 80),
        st.sampled_from(["ask", "ask two", "ask f", "answer", "answer", "fail", "refuse", "leave"]),
    ),
    max_size=40,
)


@given(STEPS)
def test_all_requests_and_all_idle_times_are_together_what_the_containers_took(
    steps: Sequence[tuple[int, str]],
) -> None:
    async def play() -> tuple[int, int]:
        plant = Plant()
        async with asyncio.TaskGroup() as group:
            for eighths, what in steps:
                await plant.step(eighths / 8, what, group)
            while len(plant.works.records) < sum(what.startswith("ask") for _, what in steps):
                await plant.step(0.125, "answer", group)
        await plant.step(2 * WINDOW, "nothing", group)
        tails = [tail for target in plant.targets for tail in target.idled()]
        for target in plant.targets:
            await target.aclose()
        owed = sum(record.gpu or 0 for record in plant.works.records)
        return owed + sum(tail.gpu for tail in tails), plant.integral

    shared, integral = asyncio.run(play())
    assert shared == integral


# --- what containers take while they wait ---


def books(journal: Any) -> Books:
    async def nothing(kind: str, id: str, since: float) -> Amount:
        return Amount()

    ids = map(str, range(1000))
    world = World(time=lambda: 1_793_534_400.0, monotonic=lambda: 0.0, new_id=lambda: next(ids))
    return Books(Leases(Memory(world.monotonic, world.time), Scopes({}), nothing, world.time), world, journal)


ANN, BOB = Payer("k1", "ann", "red", "m"), Payer("k2", "bob", None, "m")
TAILS = [Tail(3 * SECOND, "estimated", ((ANN, 2 * SECOND), (BOB, SECOND))), Tail(5, "reported", ((BOB, 5),))]


def test_idle_time_is_a_row_for_each_who_pays() -> None:
    time, rows = Time(), list[Idle]()

    class Journal:
        def idle(self, more: Sequence[Idle]) -> None:
            rows.extend(more)

    served = model(time, Scripted("u"), price=Price(0.001, 2))
    books(Journal()).idle(served, served.upstreams[0], TAILS)
    assert [(row.key, row.team, row.model, row.upstream) for row in rows] == [
        ("ann", "red", "m", "u"),
        ("bob", None, "m", "u"),
        ("bob", None, "m", "u"),
    ]
    assert [(row.gpu, row.gpu_source, row.cost) for row in rows] == [
        (2 * SECOND, "estimated", 4_000_000),
        (SECOND, "estimated", 2_000_000),
        (5, "reported", 0),
    ]
    assert len({row.id for row in rows}) == 3


async def test_idle_time_is_part_of_what_a_key_has_spent(tmp_path: Path) -> None:
    time = Time()
    served = model(time, Scripted("u"), price=Price(0.001))
    ledger = Ledger(Store(url="sqlite:///gateway.db", fsync="never", retain_days=36_500), tmp_path)
    await ledger.start()
    try:
        books(ledger).idle(served, served.upstreams[0], TAILS)
        assert await ledger.spent("key", "k2", 0.0) == (0, 1_000_000, SECOND + 5)
        assert await ledger.spent("team", "red", 0.0) == (0, 2_000_000, 2 * SECOND)
        assert await ledger.spent("model", "m", 0.0) == (0, 3_000_000, 3 * SECOND + 5)
    finally:
        await ledger.aclose()


# --- the page that explains it ---

PAGE = (ROOT / "docs" / "costs.md").read_text()


def test_the_example_of_the_page_is_what_is_counted() -> None:
    rows = re.findall(r"^\| (\d+) to (\d+) \| .+ \| ([\d.]+) \| ([\d.]+) \|$", PAGE, re.MULTILINE)
    *busy, (_, _, *waits) = [tuple(map(float, row)) for row in rows]
    meter = Meter(32, 1, 60 * SECOND)
    ann, bob = (Payer(name, name, None, "m") for name in ("ann", "bob"))
    meter.enter("a", ann, 0)
    meter.enter("b", bob, 20 * SECOND)
    took = [meter.leave("a", 30 * SECOND)[0] / SECOND, meter.leave("b", 40 * SECOND)[0] / SECOND]
    assert took == [sum(row[2] for row in busy), sum(row[3] for row in busy)] == [25, 15]
    [tail] = meter.closed(200 * SECOND)
    assert [gpu / SECOND for _, gpu in tail.shares] == waits
    price = Price(0.001)
    costs = [price.of(None, round(seconds * SECOND)) for seconds in (*took, *waits)]
    assert all(cost is not None and f"${cost / DOLLAR:g}" in PAGE for cost in costs)

"""The last minutes as points: differences of totals, percentiles, and one worker that takes the samples."""

from __future__ import annotations

import asyncio
import math
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.console.history import COUNTED, KEPT, STEP, History, Point, Sample, Totals, percentile, totals
from gateway.console.history_file import HistoryFile
from gateway.console.overview import Watch
from gateway.telemetry.families import Family
from tests.keys.gate import ADMIN, OWN, Gate, calling, configured, container, gate, hello, serving
from tests.serve.house import BOUND, soon

INFINITE = math.inf
TTFT = "modal_gateway_time_to_first_event_seconds"


def counter(name: str, *samples: tuple[dict[str, str], float]) -> Family:
    return (f"modal_gateway_{name}", "counter", "", [(f"modal_gateway_{name}_total", *s) for s in samples])


def times(counts: dict[str, float], model: str = "m") -> Family:
    return (
        TTFT,
        "histogram",
        "",
        [(f"{TTFT}_bucket", {"model": model, "le": e}, n) for e, n in counts.items()],
    )


# --- totals ---


def test_totals_are_sums_over_all_labels() -> None:
    boots, running = "modal_gateway_upstream_boot_seconds", "modal_gateway_upstream_containers"
    found = totals(
        [
            counter("requests", ({"model": "a", "status": "200"}, 3), ({"model": "b", "status": "500"}, 2)),
            counter("errors", ({"model": "b", "code": "x"}, 2)),
            counter("tokens", ({"direction": "in"}, 10), ({"direction": "out"}, 4), ({"direction": "in"}, 1)),
            counter("gpu_seconds", ({"while": "busy"}, 1.5), ({"while": "idle"}, 0.25)),
            counter("cost_dollars", ({"model": "a"}, 0.125)),
            (boots, "summary", "", [(boots, {"quantile": "0.5"}, 9), (f"{boots}_count", {}, 2)]),
            (running, "gauge", "", [(running, {"upstream": "a"}, 1), (running, {"upstream": "b"}, 2)]),
            ("modal_gateway_open_streams", "gauge", "", [("modal_gateway_open_streams", {}, 6)]),
            times({"0.1": 1, "+Inf": 2}),
            times({"0.1": 3, "+Inf": 5}, "n"),
            counter("something_else", ({}, 99)),
        ]
    )
    assert found._replace(ttft=(), gap=()) == Totals(5, 2, 11, 4, 2, 1.75, 0.125, 0, 6, 3)
    assert found.ttft == ((0.1, 4), (INFINITE, 7)) and found.gap == ()


async def test_everything_that_is_added_up_is_among_what_is_scraped(tmp_path: Path) -> None:
    async with gate(tmp_path) as here:
        async with here.stream(OWN) as answer:
            await answer.aread()
        told = await here.client.get("/admin/overview", headers={"x-api-key": ADMIN})
        sums = told.json()["total"]
        assert sums["requests"] == 1 and sums["prompt_tokens"] >= 1 and sums["completion_tokens"] >= 1
        assert sums["gpu_seconds"] > 0
        assert told.json()["live"] == {"in_flight": 0, "streams": 0, "containers": 1}  # it waits for more
        assert told.json()["gateway"]["workers"] == 1 and told.json()["step"] == STEP
        text = (await here.client.get("/metrics", headers={"x-api-key": OWN})).text
        for name in (f"{TTFT}_bucket", "modal_gateway_upstream_boot_seconds_count"):
            assert f"\n{name}{{" in text
        assert "\nmodal_gateway_time_per_output_token_seconds" in text


@pytest.mark.parametrize(
    ("price", "costs"), [({}, None), ({"per_million_output": 0}, 0), ({"per_million_output": 1000}, 0.001)]
)
async def test_without_a_price_there_is_no_cost_instead_of_none(
    tmp_path: Path, price: dict[str, float], costs: float | None
) -> None:
    async with container(hello) as behind:
        config = configured(behind.port)
        config["models"]["m"]["price"] = price
        async with serving(config, tmp_path) as port, calling(port) as client:
            here, admin = Gate(port, behind, client, tmp_path), {"x-api-key": ADMIN}
            assert (await here.ask(OWN)).status_code == 200
            [row] = (await client.get("/admin/upstreams", headers=admin)).json()["data"]
            assert row["priced"] is (costs is not None)
            told = (await client.get("/admin/overview", headers=admin)).json()
            assert told["total"]["requests"] == 1 and told["total"]["cost"] == costs
            async with asyncio.timeout(BOUND):
                while not (today := told["today"])["requests"]:
                    told = (await client.get("/admin/overview", headers=admin)).json()
            assert today["cost"] == costs
            used = (await client.get("/admin/usage", headers=admin)).json()
            assert used["total"]["dollars"] == costs


# --- points ---


def at(number: int, **values: Any) -> Sample:
    return Sample(1000.0 + number * STEP, Totals(**values))


def points(*samples: Sample) -> list[Point]:
    history = History()
    for sample in samples:
        history.add(sample)
    return history.points


def test_points_are_what_was_added_since_the_sample_before() -> None:
    now = {"in_flight": 2, "streams": 1, "containers": 1.5}
    [point] = points(at(0, requests=5, cost=1.0), at(1, requests=8, cost=1.25, **now))
    assert point["time"] == 1005 and point["requests"] == 3 and point["cost"] == 0.25
    assert now == {name: point[name] for name in now} and point["errors"] == 0
    assert point["ttft_p50"] is None and point["gap_p95"] is None
    assert {name for name in point if name in COUNTED} == set(COUNTED)


def test_a_point_says_what_it_covers_also_where_a_sample_came_late_or_was_missing() -> None:
    found = points(at(0), at(2, requests=10), at(9, requests=99), at(10, requests=100))
    assert [(point["seconds"], point["requests"]) for point in found] == [(10.0, 10), (5.0, 1)]


@given(st.lists(st.integers(0, 50), min_size=2, max_size=KEPT + 40))
def test_the_newest_points_are_kept_and_add_up(counts: list[int]) -> None:
    history, total = History(), 0
    for number, count in enumerate(counts):
        history.add(at(number, requests=(total := total + count)))
    assert [point["requests"] for point in history.points] == counts[1:][-KEPT:]


def test_a_total_that_went_down_and_a_gap_are_no_points_of_the_past() -> None:
    assert [p["requests"] for p in points(at(0, requests=9), at(1, requests=2))] == [0]
    assert points(at(0), at(4, requests=9)) == []
    assert [p["requests"] for p in points(at(4), at(5), at(3), at(4, requests=1))] == [1]


@given(st.lists(st.floats(0.0, 9.9), min_size=1, max_size=200), st.floats(0.01, 1))
def test_a_percentile_lies_in_the_bucket_that_holds_it(values: list[float], share: float) -> None:
    ends = (0.5, 1.0, 2.5, 5.0, 10.0, INFINITE)
    buckets = tuple((end, float(sum(value <= end for value in values))) for end in ends)
    found = percentile(buckets, share)
    true = sorted(values)[math.ceil(share * len(values) - 1e-9) - 1]
    end = min(each for each in ends if true <= each)
    start = max((each for each in ends if each < end), default=0.0)
    assert found is not None and start - 1e-9 <= found <= end + 1e-9


@pytest.mark.parametrize(
    ("buckets", "share", "seconds"),
    [
        ((), 0.5, None),
        (((1.0, 0.0), (INFINITE, 0.0)), 0.5, None),
        (((1.0, 4.0), (INFINITE, 4.0)), 0.5, 0.5),
        (((1.0, 0.0), (3.0, 4.0), (INFINITE, 4.0)), 0.25, 1.5),
        (((1.0, 1.0), (INFINITE, 4.0)), 0.95, 1.0),  # beyond all ends
        (((1.0, 1.0), (2.0, 1.0), (4.0, 2.0), (INFINITE, 2.0)), 0.75, 3.0),
    ],
)
def test_percentiles_of_known_buckets(
    buckets: tuple[tuple[float, float], ...], share: float, seconds: float | None
) -> None:
    assert percentile(buckets, share) == seconds


def test_percentiles_of_a_point_are_those_of_its_step() -> None:
    old, new = (
        ((0.1, 100.0), (1.0, 100.0), (INFINITE, 100.0)),
        ((0.1, 100.0), (1.0, 110.0), (INFINITE, 110.0)),
    )
    [point] = points(at(0, ttft=old), at(1, ttft=new))
    assert point["ttft_p50"] == 0.55


# --- several workers ---


class Clock:
    now = 1000.0


def watching(folder: Path | None, requests: dict[str, float], clock: Clock) -> Watch:
    async def sums() -> list[Family]:
        await asyncio.sleep(0)  # as it does to ask the others
        return [counter("requests", ({}, requests["count"])), times({"0.1": requests["count"], "+Inf": 1})]

    return Watch(sums, lambda: clock.now, folder)


async def test_one_of_several_takes_the_samples_and_all_know_them(tmp_path: Path) -> None:
    clock, counted = Clock(), {"count": 0.0}
    first, second = (watching(tmp_path, counted, clock) for _ in range(2))
    for turn in range(4):
        counted["count"] = turn
        await first.sample()
        await second.sample()
        clock.now += STEP
    points, now = await first.look()
    assert (points, now) == await second.look()
    assert [point["requests"] for point in points] == [1, 1, 1] and now.requests == 3


async def kept(watch: Watch, folder: Path) -> None:
    """It goes on until others could know of a point, and is ended then."""
    keeping = asyncio.get_running_loop().create_task(watch.keep())
    while not (await asyncio.to_thread(HistoryFile(folder).read)).points:
        assert not keeping.done()
    keeping.cancel()
    await asyncio.wait({keeping})


async def test_when_it_ends_another_goes_on_with_what_there_was(tmp_path: Path) -> None:
    clock, counted = Clock(), {"count": 0.0}
    first, second = (watching(tmp_path, counted, clock) for _ in range(2))
    await first.sample()
    clock.now += STEP
    await soon(kept(first, tmp_path))
    clock.now += STEP
    counted["count"] = 7.0
    await second.sample()
    points, _ = await second.look()
    assert [point["requests"] for point in points] == [0, 7]


def test_a_file_that_is_spoilt_costs_the_past_alone(tmp_path: Path) -> None:
    file, history = HistoryFile(tmp_path), History()
    file.write(history)
    assert file.read().last is None
    history.add(at(0, requests=1))
    history.add(at(1, requests=4, ttft=((0.5, 1.0), (INFINITE, 2.0))))
    file.write(history)
    assert file.read().last == history.last and file.read().points == history.points != []
    good = (tmp_path / "history").read_bytes()
    for text in (b"", b"{", b"[[1]]", b"[1, [1, 2], []]", b"[null]", good[:-1], good[:-2] + b", 1]]"):
        (tmp_path / "history").write_bytes(text)
        assert file.read().last is None and file.read().points == []
    gone = HistoryFile(tmp_path / "nowhere")
    gone.write(history)
    assert not gone.take() and gone.read().points == []

"""Metrics of several processes: whoever is scraped tells the sum, and no sum goes down."""

import asyncio
import re
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from prometheus_client.parser import text_string_to_metric_families

from gateway.console.history import totals
from gateway.telemetry.families import Family, exposition, lasting, total
from gateway.telemetry.metrics import Metrics
from gateway.telemetry.workers import Workers
from tests.cli.test_serve import Endpoint, endpoint, said, serving  # noqa: F401
from tests.ledger.books import record

REQUESTS = 'modal_gateway_requests_total{model="m",route="chat",status="200"}'


@pytest.fixture
def folder() -> Iterator[Path]:
    with TemporaryDirectory(prefix="mg-") as short:  # the path of a socket has room for a hundred bytes
        yield Path(short)


class Process:
    """What a worker is to the others."""

    def __init__(self, folder: Path, requests: int = 0) -> None:
        self.metrics = Metrics()
        self.workers = Workers(folder, self.metrics.families, self.metrics.sums)
        for number in range(requests):
            self.metrics.began()
            self.metrics.observe(record(f"req_{number}", calls=1))

    async def told(self, line: str = REQUESTS) -> float:
        for each in (await self.workers.exposition()).decode().splitlines():
            if each.startswith(line + " "):
                return float(each.rpartition(" ")[2])
        return 0.0


def files(folder: Path, kind: str) -> list[str]:
    return [path.name for path in folder.glob(f"*.{kind}")]


@asynccontextmanager
async def all_of(*processes: Process) -> AsyncIterator[None]:
    async with AsyncExitStack() as stack:
        for each in processes:
            await stack.enter_async_context(each.workers.running())
        yield


async def test_whoever_is_asked_tells_the_sum(folder: Path) -> None:
    one, two, three = (Process(folder, requests) for requests in (1, 20, 300))
    one.metrics.began()
    three.metrics.began()
    async with all_of(one, two, three):
        assert [await each.told() for each in (one, two, three)] == [321] * 3
        assert await two.told("modal_gateway_requests_in_flight") == 2
        assert await two.told('modal_gateway_request_duration_seconds_bucket{le="2.5",model="m"}') == 321
        assert await two.told('modal_gateway_request_duration_seconds_sum{model="m"}') == 321 * 1.5
        version = re.search(rb"modal_gateway_build_info\{.+\} (.+)", await one.workers.exposition())
        assert version is not None and version[1] == b"1.0"


async def test_sums_are_of_all_that_serve_and_of_those_that_are_gone(folder: Path) -> None:
    one, two = Process(folder, 1), Process(folder, 20)
    two.metrics.began()
    async with all_of(one):
        async with all_of(two):
            for each in (one, two):
                found = totals(await each.workers.sums())
                assert (found.requests, found.in_flight, found.ttft[-1][1]) == (21, 1, 21)
        found = totals(await one.workers.sums())
        assert (found.requests, found.in_flight) == (21, 0)
        assert not files(folder, "seen")  # the rest of what a process told is not lost over a few sums


async def test_the_sum_says_what_one_process_would(folder: Path) -> None:
    one = Process(folder, 3)
    async with all_of(one):
        assert await one.workers.exposition() == exposition(one.metrics.families())


async def test_what_has_ended_counts_on_but_not_what_it_was_doing(folder: Path) -> None:
    one = Process(folder, 1)
    async with all_of(one):
        for _ in range(3):
            other = Process(folder, 10)
            other.metrics.began()
            async with all_of(other):
                pass
        assert (await one.told(), await one.told("modal_gateway_requests_in_flight")) == (31, 0)
        new = Process(folder)
        async with all_of(new):
            assert await new.told() == await one.told() == 31
            assert files(folder, "json") == ["past.json"]  # it does not grow
    assert await Process(folder).told() == 31


async def test_who_is_killed_counts_with_what_it_told_last(folder: Path) -> None:
    one, two = Process(folder, 1), Process(folder, 10)
    async with all_of(one):
        async with all_of(two):
            assert await one.told() == 11
            assert files(folder, "seen")
        for name in files(folder, "json"):  # as if it had not come to its end
            (folder / name).unlink()
        assert await one.told() == 11


async def test_who_does_not_answer_is_not_waited_for(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateway.telemetry.workers.PATIENCE", 0.05)
    silent = asyncio.Event()

    async def hold(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await silent.wait()
        writer.close()

    server = await asyncio.start_unix_server(hold, folder / "silent.sock")
    try:
        one = Process(folder, 5)
        async with all_of(one):
            assert await one.told() == 5
    finally:
        silent.set()
        server.close()


async def test_where_no_socket_can_be_made_one_process_is_told_of(tmp_path: Path) -> None:
    folder = tmp_path / ("x" * 120)
    folder.mkdir()
    one = Process(folder, 5)
    async with all_of(one):
        assert await one.told() == 5


def state(**upstreams: str) -> list[Family]:
    names = ("cold", "booting", "warm", "saturated", "stopped", "unknown")
    samples = [
        ("modal_gateway_upstream_state", {"upstream": upstream, "state": name}, float(name == now))
        for upstream, now in upstreams.items()
        for name in names
    ]
    return [("modal_gateway_upstream_state", "gauge", "", samples)]


def test_an_upstream_is_in_one_state() -> None:
    known = [state(a="unknown", b="cold"), state(a="cold", b="warm"), state(a="booting")]
    [(_, _, _, samples)] = total(known)
    now = {labels["upstream"]: labels["state"] for _, labels, value in samples if value}
    assert now == {"a": "booting", "b": "warm"}


def test_what_counts_is_added_and_quantiles_are_not() -> None:
    def boots(p50: float, count: float) -> list[Family]:
        samples = [("b", {"quantile": "0.5"}, p50), ("b_count", {}, count), ("b_sum", {}, count * p50)]
        return [("b", "summary", "", samples)]

    assert total([boots(10, 2), boots(20, 3)]) == [
        ("b", "summary", "", [("b", {"quantile": "0.5"}, 20), ("b_count", {}, 5), ("b_sum", {}, 80)])
    ]
    [(_, _, _, left)] = lasting(boots(10, 2))
    assert [name for name, _, _ in left] == ["b_count", "b_sum"]


def test_two_workers_tell_the_same(tmp_path: Path, endpoint: Endpoint) -> None:  # noqa: F811
    with serving(tmp_path, "--url", endpoint.url, "--workers", "2") as gateway:
        for _ in range(20):
            said(gateway)  # each over a connection of its own
        for _ in range(6):
            with gateway.client() as client:
                text = client.get("/metrics").text
            families = {each.name: each for each in text_string_to_metric_families(text)}
            [counted] = families["modal_gateway_requests"].samples
            assert counted.value == 20
        assert gateway.stop()[0] == 0

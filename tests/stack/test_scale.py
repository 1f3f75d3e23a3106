"""What docker-compose.yml promises with its profile `scale`, of the same processes on this machine.

Rule: what is sent is counted here, and compared with what clients got, what Prometheus scraped and what the
ledger kept. Everything is waited for by looking, within bounds.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import httpx
import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from tests.conftest import ROOT
from tests.stack.fleet import CLIENT, MODEL, PACE, Fleet, bearer, fleet
from tests.stack.queries import GRAFANA

pytestmark = [pytest.mark.database, pytest.mark.slow]
CHAT = "/v1/chat/completions"
BOUND = 30.0  # seconds for what others bring about


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    with fleet(tmp_path_factory.mktemp("stack")) as running:
        yield running


@asynccontextmanager
async def clients(url: str, key: str = CLIENT) -> AsyncIterator[httpx.AsyncClient]:
    limits = httpx.Limits(max_connections=64)
    async with httpx.AsyncClient(base_url=url, headers=bearer(key), timeout=BOUND, limits=limits) as client:
        yield client


def words(count: int) -> str:
    return " ".join(f"word{number}" for number in range(count))


def chat(count: int, **fields: Any) -> dict[str, Any]:
    """A chat that is answered with so many words."""
    return {"model": MODEL, "messages": [{"role": "user", "content": f"repeat: {words(count)}"}], **fields}


@dataclass
class Heard:
    """What clients got: ids of requests that were answered, and how often each kind of failure."""

    ids: list[str] = field(default_factory=list)
    failures: Counter[str] = field(default_factory=Counter)


async def ask(client: httpx.AsyncClient, count: int, heard: Heard, *, stream: bool) -> None:
    """One request, whose answer must be whole."""
    try:
        answer = await client.post(CHAT, json=chat(count, stream=stream))
    except httpx.RemoteProtocolError as error:
        heard.failures[str(error)] += 1
        return
    if answer.status_code != 200:
        heard.failures[str(answer.status_code)] += 1
        return
    assert (streamed if stream else whole)(answer) == words(count)
    heard.ids.append(answer.headers["x-request-id"])


def whole(answer: httpx.Response) -> str:
    return str(answer.json()["choices"][0]["message"]["content"])


def streamed(answer: httpx.Response) -> str:
    *events, done = [line[6:] for line in answer.text.splitlines() if line.startswith("data: ")]
    assert done == "[DONE]"
    return "".join(json.loads(event)["choices"][0]["delta"].get("content") or "" for event in events)


async def met(condition: Callable[[], bool]) -> None:
    """Wait for something that another process brings about and tells nobody of."""
    until = time.monotonic() + BOUND
    while not await asyncio.to_thread(condition):
        assert time.monotonic() < until
        await asyncio.sleep(0.05)


def counted(stack: Fleet) -> float:
    """Requests that both gateways have finished, as they say themselves."""
    return sum(
        sample.value
        for gateway in stack.gateways
        for family in text_string_to_metric_families(gateway.scrape())
        for sample in family.samples
        if sample.name == "modal_gateway_requests_total"
    )


def kept(stack: Fleet) -> list[str]:
    """The ids of all requests in the ledger, as the second gateway tells."""
    answer = stack.gateways[1].admin("GET", "/usage/rows", params={"format": "json", "since": "1d"})
    rows = [json.loads(line) for line in answer.raise_for_status().text.splitlines()]
    return [row["id"] for row in rows if row["kind"] == "request"]


async def test_prometheus_scrapes_both_and_knows_what_was_sent(stack: Fleet) -> None:
    before, heard = counted(stack), Heard()
    async with clients(stack.balancer) as client, asyncio.TaskGroup() as tasks:
        for number in range(40):
            tasks.create_task(ask(client, 5 + number, heard, stream=number % 2 == 0))
    assert (len(heard.ids), heard.failures) == (40, {})
    assert counted(stack) == before + 40

    def known() -> bool:
        total = stack.asked('sum(modal_gateway_requests_total{job="modal-gateway"})')
        return bool(total) and float(total[0]["value"][1]) == before + 40

    await met(known)
    both = {"gateway-1": "1", "gateway-2": "1"}
    await met(lambda: {each["metric"]["instance"]: each["value"][1] for each in stack.asked("up")} == both)
    each = stack.asked("sum by (instance) (modal_gateway_requests_total) > 0")
    assert len(each) == 2  # the balancer gave both of them something to do


async def test_a_stream_passes_the_balancer_as_it_comes(stack: Fleet) -> None:
    pieces = 200
    sent = chat(pieces, stream=True)
    async with clients(stack.balancer) as client, client.stream("POST", CHAT, json=sent) as answer:
        arrived = [time.monotonic() async for line in answer.aiter_lines() if line.startswith("data: {")]
    took = arrived[-1] - arrived[0]
    assert took > pieces * float(PACE) / 2  # else it was held back and sent at once
    gaps = [after - before for before, after in pairwise(arrived)]
    assert max(gaps) < took / 2


def made(stack: Fleet, name: str, **grant: Any) -> str:
    """A key of the store, made at the first gateway."""
    answer = stack.gateways[0].admin("POST", "/keys", json={"name": name, **grant})
    assert answer.status_code == 201, answer.text
    return str(answer.json()["key"])


async def test_a_limit_that_both_share_admits_exactly_so_many(stack: Fleet) -> None:
    key = made(stack, "limited", limits={"requests_per_minute": 20})
    heard = Heard()
    async with clients(stack.balancer, key) as client, asyncio.TaskGroup() as tasks:
        for _ in range(60):
            tasks.create_task(ask(client, 3, heard, stream=False))
    assert (len(heard.ids), heard.failures) == (20, {"429": 40})


async def test_a_key_revoked_at_one_is_refused_by_the_other_within_a_second(stack: Fleet) -> None:
    one, two = stack.gateways
    key = made(stack, "leaving")
    async with clients(two.url, key) as client:
        assert (await client.get("/v1/models")).status_code == 200
        assert (await asyncio.to_thread(one.admin, "DELETE", "/keys/leaving")).status_code == 200
        revoked = time.monotonic()
        while (await client.get("/v1/models")).status_code != 401:
            assert time.monotonic() - revoked < BOUND
        assert time.monotonic() - revoked < 1


def expressions() -> Iterator[str]:
    """Every query of the dashboard, and every alert's."""
    dashboard = (ROOT / "config/grafana/dashboards/gateway.json").read_text()
    for panel in json.loads(dashboard)["panels"]:
        for target in panel.get("targets", ()):
            query = target["expr"].replace("$model", ".*").replace("$instance", ".*")
            for variable, value in GRAFANA.items():
                query = query.replace(variable, value)
            yield query
    for group in yaml.safe_load((ROOT / "config/prometheus/alerts.yml").read_text())["groups"]:
        yield from (rule["expr"] for rule in group["rules"])


def test_prometheus_answers_every_query_of_the_dashboard_and_of_the_alerts(stack: Fleet) -> None:
    asked = list(expressions())
    assert len(asked) > 50
    answered = [query for query in asked if stack.asked(query)]  # fails with what is wrong with one
    assert len(answered) > 30  # the others ask for errors, boots and the like, which there were none of
    rules = httpx.get(f"{stack.prometheus}/api/v1/rules", timeout=BOUND).json()["data"]["groups"]
    assert [rule["lastError"] for group in rules for rule in group["rules"] if rule.get("lastError")] == []


async def test_a_gateway_ends_and_comes_back_under_load_and_no_request_fails(stack: Fleet) -> None:
    heard, going = Heard(), asyncio.Event()

    async def load(number: int) -> None:
        async with clients(stack.balancer) as client:
            while not going.is_set():
                await ask(client, 40 if number % 2 else 5, heard, stream=number % 4 > 1)

    async def beyond(count: int) -> None:
        wanted = len(heard.ids) + count
        await met(lambda: len(heard.ids) >= wanted)

    async with asyncio.TaskGroup() as tasks:
        for number in range(16):
            tasks.create_task(load(number))
        await beyond(100)
        await asyncio.to_thread(stack.gateways[0].stop)
        await beyond(100)
        await asyncio.to_thread(stack.gateways[0].start)
        await beyond(100)
        going.set()
    assert heard.failures == {}
    await met(lambda: set(heard.ids) <= set(kept(stack)))
    rows = Counter(kept(stack))
    assert {row: count for row, count in rows.items() if count != 1} == {}
    assert len(set(heard.ids)) == len(heard.ids)

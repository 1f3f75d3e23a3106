"""How many calls an upstream gets, who waits for that and how long, and what becomes of those who do not
stay to the end.
"""

import asyncio
import json

import httpx
import pytest

from gateway.app import build_app
from gateway.settings import settings_from
from tests.serve.house import (
    Desk,
    House,
    Line,
    Scripted,
    Visit,
    container,
    deployed,
    faster,
    house,
    listening,
    soon,
)
from tests.serve.test_chat import ASK, greet, post

# --- from the config ---


async def test_the_config_bounds_the_calls_and_the_queue() -> None:
    arrived, go = asyncio.Event(), asyncio.Event()

    async def hold(visit: Visit) -> None:
        arrived.set()
        await soon(go.wait())
        await greet(visit)

    async with (
        house(hold, upstream={"max_concurrency": 1, "max_queue": 1}) as at,
        asyncio.TaskGroup() as group,
    ):
        first = group.create_task(post(at))
        await soon(arrived.wait())
        two = [group.create_task(post(at)) for _ in range(2)]
        await soon(asyncio.wait(two, return_when=asyncio.FIRST_COMPLETED))
        assert len(at.container.visits) == 1
        go.set()
        codes = sorted([(await soon(each)).status_code for each in (first, *two)])
        assert codes == [200, 200, 429]
        assert len(at.container.visits) == 2


async def test_the_config_bounds_the_time_in_the_queue() -> None:
    arrived, go = asyncio.Event(), asyncio.Event()

    async def hold(visit: Visit) -> None:
        arrived.set()
        await soon(go.wait())
        await greet(visit)

    bounds = {"max_concurrency": 1, "queue_timeout": 0.01}
    async with house(hold, upstream=bounds) as at, asyncio.TaskGroup() as group:
        first = group.create_task(post(at))
        await soon(arrived.wait())
        late = await soon(post(at))
        assert late.status_code == 429
        assert "in time" in late.json()["error"]["message"]
        go.set()
        assert (await first).status_code == 200


async def test_a_key_that_floods_does_not_keep_another_waiting() -> None:
    """Of two keys, one has five hundred calls under way; the other's only one is next."""
    slots, flood = 8, 500
    release = asyncio.Semaphore(0)
    answered: list[str] = []  # keys, in the order of their answers

    async def hold(visit: Visit) -> None:
        await release.acquire()
        await greet(visit)

    async with container(hold) as behind:
        keys = [{"name": name, "key": f"sk-{name}-of-the-tests"} for name in ("flood", "other")]
        model = {"upstream": {"url": f"http://127.0.0.1:{behind.port}", "max_concurrency": slots}}
        app = build_app(settings_from({"auth": {"keys": keys}, "models": {"m": model}}, {}))

        async def one(key: str) -> None:
            line = Line(body=json.dumps(ASK).encode())
            line.scope["headers"].append((b"authorization", f"Bearer sk-{key}-of-the-tests".encode()))
            await app(line.scope, line.receive, line.send)
            assert line.status == 200
            answered.append(key)

        async with asyncio.TaskGroup() as group:
            for _ in range(flood):
                group.create_task(one("flood"))
            while len(behind.visits) < slots:
                behind.visited.clear()
                await soon(behind.visited.wait())
            other = group.create_task(one("other"))
            await asyncio.sleep(0)
            while not other.done():
                before = len(answered)
                release.release()
                while len(answered) == before:  # noqa: ASYNC110 - of these things nobody tells
                    await asyncio.sleep(0)
            assert len(answered) <= 2 * slots
            for _ in range(flood):
                release.release()
    assert len(behind.visits) == flood + 1


class Cold:
    """A container that is not ready for the first ``times`` visits of ``/m``."""

    def __init__(self, times: int) -> None:
        self.times = times
        self.paths: list[str] = []
        self.posted: list[str] = []

    async def __call__(self, visit: Visit) -> None:
        self.paths.append(visit.path)
        if visit.method == "POST":
            self.posted.append(visit.path)
        if visit.path == "/m" and self.paths.count("/m") <= self.times:
            await visit.answer(b"", status="503 Service Unavailable", kind="text/plain")
        else:
            await greet(visit)


async def cold_answer(script: Cold, cold: str) -> httpx.Response:
    """The answer of a model with a fallback, whose container is not ready; an hour of waiting is a moment."""
    async with container(script) as behind:
        url = f"http://127.0.0.1:{behind.port}"
        upstream = {"connect_timeout": 3600, "first_event_timeout": 3600, "idle_timeout": 3600}
        models = {
            "m": {"upstream": {"url": url + "/m", **upstream}, "cold": cold, "fallback": ["spare"]},
            "spare": {"upstream": {"url": url + "/spare", **upstream}},
        }
        config = {"auth": {"mode": "none"}, "models": models}
        async with listening(build_app(settings_from(config, {}))) as port, httpx.AsyncClient() as client:
            with faster(50) as bound:
                ask = client.post(House(port, behind).url + "/chat/completions", json=ASK, timeout=None)
                return await soon(ask, bound)


async def test_a_model_that_waits_is_asked_again_until_its_container_is_ready() -> None:
    script = Cold(1)
    assert (await cold_answer(script, "wait")).status_code == 200
    assert script.paths == ["/m", "/m"]


async def test_a_model_that_falls_back_does_so_at_once() -> None:
    script = Cold(1)
    assert (await cold_answer(script, "fallback")).status_code == 200
    assert script.posted == ["/spare"]
    assert "/m" in script.paths  # it was asked for a container


async def test_a_model_that_fails_when_cold_tells_the_client() -> None:
    script = Cold(1)
    answer = await cold_answer(script, "fail")
    assert answer.status_code == 503
    assert answer.json()["error"]["code"] == "upstream_cold"
    assert answer.headers["retry-after"] == "5"
    assert script.posted == []
    assert "/m" in script.paths


async def test_the_end_of_the_server_closes_the_connections_to_the_containers() -> None:
    closed = asyncio.Event()

    async def watched(visit: Visit) -> None:
        await greet(visit)
        await soon(visit.until_closed())
        closed.set()

    async with container(watched) as behind:
        config = {
            "auth": {"mode": "none"},
            "models": {"m": {"upstream": {"url": f"http://127.0.0.1:{behind.port}"}}},
        }
        async with listening(build_app(settings_from(config, {}))) as port:
            assert (await post(House(port, behind))).status_code == 200
            assert not closed.is_set()  # the connection is kept for the next call
        await soon(closed.wait())


# --- those who do not stay ---


@pytest.mark.parametrize("stream", [False, True])
async def test_a_client_that_left_before_any_answer_is_counted_as_499(stream: bool) -> None:
    silent = Scripted("a", [asyncio.Event().wait])
    desk = Desk(deployed(silent))
    line = desk.line(stream=stream)
    async with asyncio.TaskGroup() as group:
        served = group.create_task(desk.take(line))
        await soon(silent.asked.wait())
        line.left.set()
        await soon(served)
    assert line.said == []
    [record] = desk.records
    assert (record.status, record.code, record.client_left) == (499, None, True)
    assert desk.counted('modal_gateway_requests_total{model="m",route="chat",status="499"} 1.0')


async def test_an_answer_that_the_end_of_the_server_cancels_is_a_503() -> None:
    silent = Scripted("a", [asyncio.Event().wait])
    desk = Desk(deployed(silent))
    line = desk.line()
    async with asyncio.TaskGroup() as group:
        served = group.create_task(desk.take(line))
        await soon(silent.asked.wait())
        served.cancel()
    assert served.cancelled()
    assert (line.status, line.error["code"]) == (503, "shutting_down")
    [record] = desk.records
    assert (record.status, record.code, record.client_left) == (503, "shutting_down", False)
    assert desk.counted('modal_gateway_requests_total{model="m",route="chat",status="503"} 1.0')
    assert desk.counted('modal_gateway_errors_total{code="shutting_down",model="m"} 1.0')

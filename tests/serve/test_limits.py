"""Limits and budgets as requests meet them: on every route, and given back whatever happens."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest

from gateway.allowances import Budget
from gateway.app import Site, application, build_app
from gateway.core.errors import UpstreamUnavailable
from gateway.core.gpu import SECOND
from gateway.core.price import Price
from gateway.dispatch import HOT, OLD, PROMPTS, TEXTS, TURNS, Dispatch
from gateway.fleet import Fleet
from gateway.limits.means import Took
from gateway.serve.embeddings import Embeddings
from gateway.settings import Server, settings_from
from tests.conftest import ROOT
from tests.serve.house import HELLO, House, Line, Scripted, Visit, container, house, listening, settings, soon
from tests.serve.test_gpu_seconds import ROOMY, Gated, Time, Works, model, rest
from tests.serve.test_surface import error

KEY = {"authorization": "Bearer sk-one"}
CHAT: dict[str, Any] = {"model": "m", "messages": [{"role": "user", "content": "hi"}], "max_tokens": 5}
BODIES: dict[str, dict[str, Any]] = {
    HOT: CHAT,
    OLD: CHAT,
    TEXTS: {"model": "m", "prompt": "hi", "max_tokens": 5},
    f"{PROMPTS}m": {"prompt": "hi", "max_tokens": 5},
    TURNS: CHAT,
    "/responses": {"model": "m", "input": "hi", "max_output_tokens": 16},
    "/embeddings": {"model": "m", "input": "hi"},
    "/engines/m/embeddings": {"input": "hi"},
}
"""A request of every route that calls a model."""

FREE = ("/messages/count_tokens",)
"""Hot routes that call none."""

MODEL: dict[str, Any] = {"price": {"per_gpu_second": 1, "per_million_output": 10}}


def test_every_hot_route_is_here() -> None:
    models = {"m": {"upstream": {"kind": "demo"}}}
    app = build_app(settings_from({"auth": {"mode": "none"}, "models": models}))
    assert isinstance(app, Dispatch)
    routes = {path.removeprefix("/v1") for path in app._hot}
    here = {path if path != f"{PROMPTS}m" else PROMPTS for path in BODIES}
    assert routes == (here | set(FREE)) - {"/engines/m/embeddings"}  # which is found by its pattern


async def answering(visit: Visit) -> None:
    if "input" in visit.json:
        usage = {"prompt_tokens": 3}
        await visit.answer({"embeddings": [[1.0]] * len(visit.json["input"]), "usage": usage})
    elif visit.json.get("stream"):
        await visit.say("hello", " world")
    else:
        usage = {"prompt_tokens": 3, "completion_tokens": 2}
        await visit.answer({"prompt": "hello world", "finish_reason": "stop", "usage": usage})


@asynccontextmanager
async def bounded(script: Any = answering, *, team: Any = None, **key: Any) -> AsyncIterator[House]:
    entry = {"name": "one", "key": "sk-one", "team": "red", **key}
    top = {"auth": {"keys": [entry]}, "teams": {"red": team or {}}}
    async with house(script, top, **MODEL) as at:
        yield at


async def ask(at: House, path: str = HOT, **fields: Any) -> httpx.Response:
    async with httpx.AsyncClient() as client:
        url = f"http://127.0.0.1:{at.port}{path}"
        return await client.post(url, json={**BODIES[path], **fields}, headers=KEY, timeout=10)


SPENT = {
    "requests": ({"limits": {"requests_per_minute": 1}}, "rate_limit_exceeded"),
    "a day's requests": ({"limits": {"requests_per_day": 1}}, "rate_limit_exceeded"),
    "tokens": ({"limits": {"tokens_per_minute": 20}}, "rate_limit_exceeded"),
    "budget of tokens": ({"budgets": [{"tokens": 1, "per": "total"}]}, "insufficient_quota"),
    "budget of dollars": ({"budgets": [{"dollars": 1e-9, "per": "day"}]}, "insufficient_quota"),
    "budget of GPU seconds": ({"budgets": [{"gpu_seconds": 1e-9, "per": "week"}]}, "insufficient_quota"),
}


@pytest.mark.parametrize("path", BODIES)
@pytest.mark.parametrize("bound", SPENT)
@pytest.mark.parametrize("whose", ["key", "team"])
async def test_no_route_escapes(path: str, bound: str, whose: str) -> None:
    bounds, code = SPENT[bound]
    async with bounded(**(bounds if whose == "key" else {"team": bounds})) as at:
        answers = [await ask(at, path) for _ in range(8)]
        assert answers[-1].status_code == 429, answers[-1].text
        reached = sum(answer.status_code == 200 for answer in answers)
        assert len(at.container.visits) == reached < 8
        said = answers[-1].json()["error"]
        named = {TURNS: "rate_limit_error", f"{PROMPTS}m": "busy"}.get(path, code)  # in the API's own words
        assert named in (said.get("code"), said.get("type"))
        if code == "rate_limit_exceeded":
            assert int(answers[-1].headers["retry-after"]) > 0


async def test_the_headers_are_openai_s_and_count_down() -> None:
    async with bounded(limits={"requests_per_minute": 10, "tokens_per_minute": 1000}) as at:
        first, second = await ask(at), await ask(at)
        assert [a.headers["x-ratelimit-limit-requests"] for a in (first, second)] == ["10", "10"]
        assert [a.headers["x-ratelimit-remaining-requests"] for a in (first, second)] == ["9", "8"]
        assert first.headers["x-ratelimit-limit-tokens"] == "1000"
        assert int(second.headers["x-ratelimit-remaining-tokens"]) < 1000
        streamed = await ask(at, stream=True)
        assert streamed.headers["x-ratelimit-remaining-requests"] == "7"


async def test_a_failure_tells_of_the_limits_too() -> None:
    async def failing(visit: Visit) -> None:
        await visit.answer({"error": "out of memory"}, status="500 Internal Server Error")

    async with bounded(failing, limits={"requests_per_minute": 10}) as at:
        failed = await ask(at)
        assert failed.status_code == 502
        assert failed.headers["x-ratelimit-remaining-requests"] == "9"


async def test_a_request_that_is_refused_says_when_to_come_back() -> None:
    async with bounded(limits={"requests_per_minute": 1}) as at:
        await ask(at)
        refused = await ask(at)
        said = error(refused)
        assert (refused.status_code, said["code"]) == (429, "rate_limit_exceeded")
        assert 1 <= int(refused.headers["retry-after"]) <= 61
        assert "requests per minute" in said["message"]


@pytest.mark.parametrize("stream", [False, True])
async def test_a_place_comes_free_whatever_became_of_the_request(*, stream: bool) -> None:
    async def failing(visit: Visit) -> None:
        match len(at.container.visits):
            case 1:
                await visit.answer({"error": {"message": "no", "code": "bad_request"}}, status="400 No")
            case 2:
                visit.cut()
            case 3:
                await visit.start_stream()
                await visit.event({"prompt": "h"})
                visit.cut()
            case _:
                await answering(visit)

    async with bounded(failing, limits={"concurrent": 1}) as at:
        for _ in range(3):
            try:
                await ask(at, stream=stream)
            except httpx.RemoteProtocolError:
                continue  # the stream that was cut
        assert (await ask(at, stream=stream)).status_code == 200


async def test_a_client_that_leaves_gives_its_place_back() -> None:
    held = asyncio.Event()

    async def holding(visit: Visit) -> None:
        if not held.is_set():
            held.set()
            await visit.until_closed()
        else:
            await answering(visit)

    async with bounded(holding, limits={"concurrent": 1}) as at:
        async with asyncio.TaskGroup() as group:
            first = group.create_task(ask(at))
            await soon(held.wait())
            assert (await ask(at)).status_code == 429
            first.cancel()
        while (last := await ask(at)).status_code == 429:  # noqa: ASYNC110 # nobody tells
            await asyncio.sleep(0.01)
        assert last.status_code == 200


async def test_what_was_reserved_and_not_used_is_given_back() -> None:
    async with bounded(limits={"tokens_per_minute": 60}) as at:
        for _ in range(4):  # each reserves more than 40 and uses 5
            assert (await ask(at, max_tokens=40)).status_code == 200
        assert (await ask(at, max_tokens=59)).status_code == 429


async def test_a_request_larger_than_the_limit_is_told_that_waiting_does_not_help() -> None:
    async with bounded(limits={"tokens_per_minute": 20}) as at:
        refused = await ask(at, max_tokens=500)
        assert refused.status_code == 429
        assert refused.headers["x-should-retry"] == "false"
        assert "Waiting will not help" in error(refused)["message"]


async def test_a_model_without_a_price_is_never_stopped_by_dollars() -> None:
    entry = {"name": "one", "key": "sk-one", "budgets": [{"dollars": 1e-9, "per": "total"}]}
    async with house(answering, {"auth": {"keys": [entry]}}) as at:
        assert [(await ask(at)).status_code for _ in range(3)] == [200, 200, 200]


async def test_a_model_has_limits_of_its_own_for_all_keys_together() -> None:
    keys = [{"name": name, "key": f"sk-{name}"} for name in ("one", "two")]
    async with house(answering, {"auth": {"keys": keys}}, limits={"requests_per_minute": 2}) as at:
        assert (await ask(at)).status_code == 200
        async with httpx.AsyncClient() as client:
            url, two = f"http://127.0.0.1:{at.port}{HOT}", {"authorization": "Bearer sk-two"}
            assert (await client.post(url, json=CHAT, headers=two)).status_code == 200
            assert (await client.post(url, json=CHAT, headers=two)).status_code == 429


async def test_a_fallback_does_not_go_around_the_other_model_s_limits() -> None:
    async def failing(visit: Visit) -> None:
        if visit.path == "/a":
            await visit.answer(b"no", status="500 No", kind="text/plain")
        else:
            await answering(visit)

    async with house(failing) as probe:
        url = f"http://127.0.0.1:{probe.container.port}"
        models = {
            "m": {"upstream": {"url": url + "/a"}, "template": "plain", "fallback": ["b"]},
            "b": {"upstream": {"url": url + "/b"}, "template": "plain", "limits": {"requests_per_day": 1}},
        }
        top = {"auth": {"keys": [{"name": "one", "key": "sk-one"}]}, "models": models}
        async with house(answering, top) as at:
            assert (await ask(at)).status_code == 200
            refused = await ask(at)
            assert (refused.status_code, error(refused)["code"]) == (429, "rate_limit_exceeded")
            assert "model b on requests per day" in error(refused)["message"]
    assert [visit.path for visit in probe.container.visits].count("/b") == 1


async def test_a_budget_of_dollars_is_not_escaped_by_way_of_a_model_without_a_price() -> None:
    async def failing(visit: Visit) -> None:
        if visit.path == "/a":
            await visit.answer(b"no", status="500 No", kind="text/plain")
        else:
            await answering(visit)

    async with house(failing) as probe:
        url = f"http://127.0.0.1:{probe.container.port}"
        models = {
            "m": {"upstream": {"url": url + "/a"}, "template": "plain", "fallback": ["b"]},
            "b": {"upstream": {"url": url + "/b"}, "template": "plain", **MODEL},
        }
        budgets = [{"dollars": 1e-9, "per": "total"}]
        limits = {"requests_per_minute": 100}
        keys = [{"name": "one", "key": "sk-one", "budgets": budgets, "limits": limits}]
        async with house(answering, {"auth": {"keys": keys}, "models": models}) as at:
            assert (await ask(at)).status_code == 200
            refused = await ask(at)
            assert (refused.status_code, error(refused)["code"]) == (429, "insufficient_quota")
            assert "x-should-retry" not in refused.headers  # the first model may be well again
            assert (await ask(at, model="b")).headers["x-should-retry"] == "false"
    assert [visit.path for visit in probe.container.visits].count("/b") == 1


async def test_each_model_is_charged_with_its_own_tries() -> None:
    time = Time()
    day = (Budget(gpu_seconds=4.0, per="day"),)
    slow = Scripted("a", [time.passing(3.0), UpstreamUnavailable("down", retry="elsewhere")])
    quick = Scripted("b", [time.passing(1.0), *HELLO])
    dear = model(time, slow, price=Price(1.0), fallback=("f",), budgets=day)
    cheap = model(time, quick, name="f", price=Price(0.5), budgets=day)
    works = Works(time, dear, cheap)
    assert (await works.ask()).status == 200
    taken = works._chat._service.books.taken
    assert [(name, each.busy, each.cost) for name, each in sorted(taken.items())] == [
        ("f", SECOND, SECOND // 2),
        ("m", 3 * SECOND, 3 * SECOND),
    ]
    assert works.records[0].cost == 3 * SECOND + SECOND // 2
    for _ in range(3):  # each reserves the second that one takes, and not four
        assert (await works.ask(model="f")).status == 200
    assert [(await works.ask(model=name)).status for name in ("f", "m")] == [429, 429]
    assert taken["m"].busy == 6 * SECOND
    assert (await works.ask()).status == 429


@pytest.mark.parametrize("budget", [Budget(dollars=3.0, per="day"), Budget(gpu_seconds=3.0, per="day")])
async def test_a_burst_after_the_start_spends_no_more_than_the_budget(budget: Budget) -> None:
    time, upstream = Time(), Gated()
    works = Works(time, model(time, upstream, price=Price(1.0), budgets=(budget,)))
    async with asyncio.TaskGroup() as group:
        asked = [group.create_task(works.ask()) for _ in range(20)]
        await rest()
        assert len(upstream.waiting) == 1
        upstream.answer(UpstreamUnavailable("down"))  # which says nothing about its cost
        await rest()
        assert len(upstream.waiting) == 1
        time.now += 1.0
        upstream.answer()
        await rest()
        assert len(upstream.waiting) == 2  # a dollar each
        for _ in range(2):
            upstream.answer()
        await rest()
    statuses = [each.result().status for each in asked]
    assert sorted(statuses) == [200] * 3 + [429] * 16 + [503]
    assert works._chat._service.books.taken["m"].cost <= 3 * SECOND


@pytest.mark.parametrize("path", [HOT, "stream", "/embeddings"])
async def test_whoever_leaves_before_their_turn_is_missed_by_nobody(path: str) -> None:
    time, upstream = Time(), Gated()
    day = (Budget(dollars=3.0, per="day"),)
    works = Works(time, model(time, upstream, price=Price(1.0), budgets=day))
    takes, lines = works.take, [works.line(stream=path == "stream") for _ in range(4)]
    if path == "/embeddings":
        vectors = Embeddings(works.service)
        lines = [Line(path, b'{"model": "m", "input": "hi"}') for _ in lines]

        async def takes(line: Line) -> None:
            await vectors(line.scope, line.receive, line.send)

    async with asyncio.TaskGroup() as group:
        asked = [group.create_task(takes(line)) for line in lines]
        await rest()
        for line, task in zip(lines[::-1], asked[::-1], strict=True):  # the one that runs is the last to go
            line.left.set()
            await soon(task)
            assert (len(upstream.waiting), line.said) == (line is not lines[0], [])
    assert [record.client_left for record in works.records] == [True] * 4


async def test_a_stream_that_waits_for_its_turn_is_kept_alive() -> None:
    time, upstream = Time(), Gated()
    day = (Budget(dollars=3.0, per="day"),)
    works = Works(time, model(time, upstream, price=Price(1.0), budgets=day))
    works.service.limits = Server(first_byte_grace=0.01)
    async with asyncio.TaskGroup() as group:
        lines = [works.line(stream=True) for _ in range(2)]
        for line in lines:
            group.create_task(works.take(line))
            await rest()
        await soon(lines[1].until(b"data: "))
        assert len(upstream.waiting) == 1
        upstream.answer()
        await rest()
        upstream.answer()
    assert all(b"[DONE]" in line.body for line in lines)


async def test_what_the_ledger_knows_of_a_model_lets_all_in_that_wait() -> None:
    time, upstream = Time(), Gated()
    served = model(time, upstream, price=Price(1.0), budgets=(Budget(dollars=3.0, per="day"),))
    works = Works(time, served)
    books = works.service.books
    async with asyncio.TaskGroup() as group:
        asked = [group.create_task(works.ask()) for _ in range(5)]
        await rest()
        books.recall(served, [Took(None, SECOND, 5), Took(SECOND, None, 5)])  # from when it had no price
        await rest()
        assert len(upstream.waiting) == 1
        books.recall(served, [Took(SECOND, SECOND, 5)])
        await rest()
        assert len(upstream.waiting) == 4  # a dollar each, but the first one had reserved nothing
        for _ in range(4):
            upstream.answer()
    assert sorted(each.result().status for each in asked) == [200, 200, 200, 200, 429]


async def test_after_a_restart_a_slow_first_request_holds_up_no_other(tmp_path: Path) -> None:
    held, go = asyncio.Event(), asyncio.Event()

    async def slow(visit: Visit) -> None:
        if len(visits := behind.visits) > 1 and visit is visits[1]:
            held.set()
            await go.wait()
        await answering(visit)

    async with container(slow) as behind:
        keys = [{"name": "one", "key": "sk-one", "budgets": [{"dollars": 500}]}]
        config = settings_from({**settings(behind.port, **MODEL), "auth": {"keys": keys}}, {})
        for visits in (1, 3):
            app = application(config, Site(tmp_path, loopback=True, store=True))
            async with listening(app) as port, asyncio.TaskGroup() as group:
                at = House(port, behind)
                first = group.create_task(ask(at))
                if visits > 1:
                    await soon(held.wait())
                    assert (await soon(ask(at))).status_code == 200
                    go.set()
                assert (await soon(first)).status_code == 200
            assert len(behind.visits) == visits


async def test_without_such_a_budget_nobody_waits_for_the_first() -> None:
    time, upstream = Time(), Gated()
    works = Works(time, model(time, upstream, price=Price(1.0), budgets=(Budget(tokens=100_000),)))
    async with asyncio.TaskGroup() as group:
        for _ in range(3):
            group.create_task(works.ask())
        await rest()
        assert len(upstream.waiting) == 3
        for _ in range(3):
            upstream.answer()


async def test_a_fallback_that_nobody_knows_is_tried_by_one_at_a_time() -> None:
    time, upstream = Time(), Gated("b")
    day = (Budget(dollars=3.0, per="day"),)
    first = model(time, Scripted("a", [UpstreamUnavailable("down", retry="elsewhere")]), fallback=("f",))
    works = Works(time, first, model(time, upstream, name="f", price=Price(1.0), budgets=day))
    async with asyncio.TaskGroup() as group:
        one = group.create_task(works.ask())
        await rest()
        assert (await works.ask()).status == 429
        upstream.answer()
    assert one.result().status == 200


@pytest.mark.parametrize(
    "bound", [{"limits": {"tokens_per_minute": 60}}, {"budgets": [{"tokens": 60, "per": "total"}]}]
)
async def test_a_small_limit_of_tokens_lets_a_first_request_in(bound: dict[str, Any]) -> None:
    async with bounded(**bound) as at:
        answers = [await ask(at, max_tokens=None) for _ in range(40)]
        assert [answer.status_code for answer in answers[:3]] == [200] * 3
        assert answers[-1].status_code == 429
        assert "requested" in error(answers[-1])["message"] or "is used up" in error(answers[-1])["message"]


async def test_each_of_several_workers_pays_its_part_of_what_the_platform_counts() -> None:
    time = Time()
    served = model(time, Scripted("u", [time.passing(2.0), *HELLO]), bounds=replace(ROOMY, workers=2))
    works = Works(time, served)
    served.upstreams[0].counted(3)
    assert (await works.ask()).status == 200
    assert (works.took(), works.records[0].gpu_source) == ([3.0], "estimated")


def test_the_upstreams_of_a_worker_know_how_many_there_are() -> None:
    settings = settings_from(
        {"models": {"m": {"upstream": {"url": "http://127.0.0.1:9"}, "template": "plain"}}}
    )
    [member] = Fleet(ROOT, Time(), 4).plan(settings).members.values()
    assert member.target._bounds.workers == 4

"""What models and upstreams are shown to be doing, who may see it, and waking one over HTTP."""

import asyncio
import json
import logging
from collections.abc import Callable
from typing import Any

import httpx
import pytest

from gateway.core.errors import UpstreamUnavailable
from gateway.pages.admin import progress
from gateway.pages.public import readiness
from gateway.record import Record
from gateway.routing.lifecycle import State
from gateway.routing.observations import REMEMBERED, Sightings
from gateway.settings import settings_from
from gateway.telemetry import log
from gateway.telemetry.families import exposition
from gateway.telemetry.metrics import Metrics
from gateway.upstreams import Observed
from tests.serve.house import House, Scripted, Visit, container, deployed, faster, house, soon
from tests.serve.test_chat import greet, post
from tests.serve.test_surface import KEYED, call, error

KEY = "sk-admin-0123456789"
LOCKED = {"admin": {"key": KEY}}
JSON = {"content-type": "application/json"}
WARM = "/admin/models/m/warm"
STOPPED = b"modal-http: app for invoked web endpoint is stopped"


async def absent(visit: Visit) -> None:
    """An edge without a container."""
    await visit.answer(b"no container", status="503 Service Unavailable", kind="text/plain")


async def there(visit: Visit) -> None:
    """A container that has no GET."""
    await visit.answer({"detail": "Method Not Allowed"}, status="405 Method Not Allowed")


async def stopped(visit: Visit) -> None:
    await visit.answer(STOPPED, status="404 Not Found", kind="text/plain")


def in_turn(*steps: Callable[[Visit], Any]) -> Callable[[Visit], Any]:
    """Each request is answered by the next step, at the end by the last one again."""
    left = list(steps)

    async def script(visit: Visit) -> None:
        await (left.pop(0) if len(left) > 1 else left[0])(visit)

    return script


async def rows(at: House, **headers: str) -> list[dict[str, Any]]:
    return list((await call(at, "GET", "/admin/upstreams", headers=headers)).json()["data"])


async def shown(at: House, **wanted: Any) -> dict[str, Any]:
    """The upstream's row, once it has these values."""

    async def look() -> dict[str, Any]:
        while not wanted.items() <= (row := (await rows(at))[0]).items():
            pass
        return row

    return await soon(look())


async def wake(at: House, path: str = WARM, **options: Any) -> tuple[int, list[dict[str, Any]]]:
    """The status, and the lines of progress."""
    answer = await call(at, "POST", path, headers=JSON, **options)
    return answer.status_code, [json.loads(line) for line in answer.text.splitlines()]


# --- who may ask ---


@pytest.mark.parametrize(
    ("top", "loopback", "headers", "status"),
    [
        ({}, True, {}, 200),
        ({}, True, {"host": "evil.example"}, 403),
        ({}, False, {}, 403),
        (KEYED, True, {"authorization": "Bearer sk-test-0123456789"}, 403),
        (LOCKED, True, {}, 401),
        (LOCKED, True, {"authorization": "Bearer wrong"}, 401),
        (LOCKED, True, {"authorization": f"Bearer {KEY}"}, 200),
        (LOCKED, False, {"x-api-key": KEY}, 200),
        ({**KEYED, **LOCKED}, False, {"authorization": "Bearer sk-test-0123456789"}, 401),
        ({**KEYED, **LOCKED}, False, {"authorization": f"Bearer {KEY}", "host": "gateway.example"}, 200),
    ],
)
async def test_the_admin_key_or_nothing_but_this_machine_opens_it(
    top: dict[str, Any], loopback: bool, headers: dict[str, str], status: int
) -> None:
    async with house(there, top, loopback=loopback) as at:
        answer = await call(at, "GET", "/admin/upstreams", headers=headers)
        assert answer.status_code == status, answer.text
        woken = await call(at, "POST", WARM, headers={**JSON, **headers})
        assert woken.status_code == status
        assert len(at.container.visits) == (status == 200)


async def test_where_it_is_closed_it_says_what_to_set() -> None:
    async with house(there, loopback=False) as at:
        refused = error(await call(at, "GET", "/admin/upstreams"))
        assert refused["code"] == "admin_disabled"
        assert "admin.key" in refused["message"]


async def test_the_admin_key_calls_no_model() -> None:
    async with house(greet, {**KEYED, **LOCKED}) as at:
        answer = await call(at, "GET", "/v1/models", headers={"authorization": f"Bearer {KEY}"})
        assert answer.status_code == 401


def test_a_key_of_the_environment_counts_where_none_is_written() -> None:
    data = {"models": {"m": {"upstream": {"kind": "demo"}}}}
    environ = {"MODAL_GATEWAY_ADMIN_KEY": KEY}
    assert settings_from(data, environ).admin.key.get_secret_value() == KEY
    written = settings_from({**data, "admin": {"key": "other"}}, environ)
    assert written.admin.key.get_secret_value() == "other"


@pytest.mark.parametrize("content_type", ["text/plain", "application/x-www-form-urlencoded"])
async def test_without_a_key_no_form_of_another_site_wakes_a_model(content_type: str) -> None:
    async with house(there) as at:
        refused = await call(at, "POST", WARM, content=b"x", headers={"content-type": content_type})
        assert refused.status_code == 415
        assert (await call(at, "POST", WARM)).status_code == 415
        assert at.container.visits == []


# --- what is shown ---


async def test_an_upstream_is_shown_with_what_it_is_doing() -> None:
    hold = asyncio.Event()

    async def held(visit: Visit) -> None:
        await soon(hold.wait())
        await visit.say("done")

    upstream = {"max_concurrency": 1}
    async with house(held, upstream=upstream) as at:
        async with asyncio.TaskGroup() as group:
            first = group.create_task(post(at))
            await soon(at.container.visited.wait())
            second = group.create_task(post(at))
            row = await shown(at, waiting=1)
            assert {name: row[name] for name in ("model", "name", "kind", "running", "limit", "circuit")} == {
                "model": "m", "name": "m", "kind": "prompt", "running": 1, "limit": 1, "circuit": "closed",
            }  # fmt: skip
            assert row["observed"] is None
            metrics = (await call(at, "GET", "/metrics")).text.splitlines()
            assert 'modal_gateway_upstream_calls{upstream="m"} 1.0' in metrics
            assert 'modal_gateway_upstream_calls_waiting{upstream="m"} 1.0' in metrics
            hold.set()
        assert first.result().status_code == second.result().status_code == 200
        [row] = await rows(at)
        assert (row["state"], row["running"], row["waiting"]) == ("warm", 0, 0)
        text = (await call(at, "GET", "/metrics")).text
        assert 'modal_gateway_upstream_state{state="warm",upstream="m"} 1.0' in text
        assert 'modal_gateway_upstream_state{state="cold",upstream="m"} 0.0' in text
        assert 'modal_gateway_queue_seconds_count{model="m"} 1.0' in text  # the second alone


async def test_an_upstream_is_saturated_when_its_containers_take_no_more() -> None:
    hold = asyncio.Event()

    async def held(visit: Visit) -> None:
        await soon(hold.wait())
        await visit.say("done")

    async with house(in_turn(greet, held), upstream={"inputs_per_container": 1}) as at:
        await post(at)
        async with asyncio.TaskGroup() as group:
            group.create_task(post(at))
            row = await shown(at, running=1)
            assert (row["state"], row["limit"]) == ("saturated", 100)
            hold.set()
        await shown(at, running=0, state="warm")


@pytest.mark.parametrize(
    ("states", "best"),
    [
        (["cold"], "cold"),
        (["stopped", "cold"], "cold"),
        (["cold", "unknown"], "unknown"),
        (["unknown", "booting"], "booting"),
        (["booting", "saturated"], "saturated"),
        (["saturated", "stopped", "warm"], "warm"),
    ],
)
def test_a_model_is_as_ready_as_its_best_upstream(states: list[State], best: str) -> None:
    model = deployed(*(Scripted(f"m-{index}") for index in range(len(states))))
    for target, state in zip(model.upstreams, states, strict=True):
        target.state = lambda state=state: state  # type: ignore[method-assign,misc]
    shown = readiness(model)
    assert shown["state"] == best
    assert [(each["name"], each["state"]) for each in shown["upstreams"]] == [
        (f"m-{index}", state) for index, state in enumerate(states)
    ]


async def test_models_and_aliases_show_their_state_and_boots_and_wake_nobody() -> None:
    async with house(in_turn(absent, absent, there), aliases=["org/name"]) as at:
        [before, alias] = (await call(at, "GET", "/v1/models")).json()["data"]
        assert before["x_gateway"] == alias["x_gateway"]
        none = {"p50": None, "p90": None, "count": 0}
        upstream = {"name": "m", "state": "unknown", "boot_seconds": none}
        assert before["x_gateway"] == {"state": "unknown", "upstreams": [upstream]}
        assert at.container.visits == []
        assert (await wake(at, "/admin/models/org/name/warm"))[0] == 200
        after = (await call(at, "GET", "/v1/models/org/name")).json()["x_gateway"]
        assert after["state"] == "warm"
        boots = after["upstreams"][0]["boot_seconds"]
        assert boots["count"] == 1 and boots["p50"] == boots["p90"] >= 1
        assert (await wake(at))[1][-1]["expected"] == boots["p50"]
        assert 'modal_gateway_upstream_boot_seconds_count{upstream="m"} 1.0' in (
            await call(at, "GET", "/metrics")
        ).text


# --- what a platform says ---


class Told(Scripted):
    """An upstream whose platform can be asked."""

    def __init__(self, *answers: Observed | Exception) -> None:
        super().__init__("m")
        self.answers = list(answers)
        self.times = 0
        self.hold = asyncio.Event()
        self.hold.set()

    async def observed(self) -> Observed | None:
        self.times += 1
        await self.hold.wait()
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer


async def settled() -> None:
    """What was begun in the background has run, where it waits for nothing."""
    for _ in range(3):
        await asyncio.sleep(0)


async def test_what_a_platform_says_is_asked_in_the_background_and_remembered() -> None:
    upstream = Told(Observed(1, 0), Observed(2, 5), UpstreamUnavailable("gone"))
    [target] = deployed(upstream).upstreams
    now = 100.0
    sightings = Sightings(lambda: now)
    assert sightings.of(target) is None
    await settled()
    assert [sightings.of(target) for _ in range(3)] == [Observed(1, 0)] * 3
    now += REMEMBERED
    assert sightings.of(target) == Observed(1, 0)  # while it is asked again
    await settled()
    assert (sightings.of(target), upstream.times) == (Observed(2, 5), 2)
    now += REMEMBERED
    sightings.of(target)
    await settled()
    assert (sightings.of(target), upstream.times) == (None, 3)
    await sightings.aclose()


async def test_a_platform_that_does_not_answer_is_asked_once_and_holds_nobody_up() -> None:
    upstream = Told(Observed(1, 0))
    upstream.hold.clear()
    [target] = deployed(upstream).upstreams
    sightings = Sightings(lambda: 0.0)
    assert [sightings.of(target), sightings.of(target)] == [None, None]
    await settled()
    assert (sightings.of(target), upstream.times) == (None, 1)
    await soon(sightings.aclose())


# --- waking ---


async def test_waking_tells_each_second_how_far_it_is() -> None:
    async with house(in_turn(absent, absent, absent, there)) as at:
        with faster(5) as bound:
            status, lines = await soon(wake(at), bound)
        assert status == 200
        assert [line["state"] for line in lines[:-1]] == ["booting"] * (len(lines) - 1)
        assert lines[-1]["state"] == "warm"
        assert len(lines) > 2
        assert [visit.method for visit in at.container.visits] == ["GET"] * 4


class Counted(Told):
    """Only its platform can tell that a container runs."""

    async def wake(self) -> Observed:
        return Observed(1, 0)


async def test_a_container_that_is_counted_has_started_and_is_not_called_warm() -> None:
    [target] = deployed(Counted()).upstreams
    [last] = [line async for line in progress(target, lambda: 0.0)]
    assert (last["state"], target.life.boots.count) == ("started", 0)
    await target.aclose()


async def test_a_failure_that_comes_at_once_is_a_status_and_a_later_one_the_last_line() -> None:
    async with house(stopped) as at:
        refused = await call(at, "POST", WARM, headers=JSON)
        assert (refused.status_code, error(refused)["code"]) == (503, "upstream_stopped")
        assert (await rows(at))[0]["state"] == "stopped"
    async with house(in_turn(absent, absent, absent, stopped)) as at:
        with faster(5) as bound:
            status, lines = await soon(wake(at), bound)
        assert status == 200
        assert lines[-1]["error"]["code"] == "upstream_stopped"
        assert "models.m.upstream.url" in lines[-1]["error"]["message"]


async def test_who_does_not_want_to_wait_is_answered_at_once() -> None:
    hold = asyncio.Event()

    async def boots(visit: Visit) -> None:
        await soon(hold.wait())
        await there(visit)

    async with house(boots, aliases=["org/name"]) as at:
        status, [line] = await soon(wake(at, "/admin/models/org/name/warm?wait=false"))
        assert (status, line) == (202, {"state": "unknown", "expected": None})
        await soon(at.container.visited.wait())
        hold.set()
        await shown(at, state="warm")
        assert (await call(at, "POST", WARM + "?wait=perhaps", headers=JSON)).status_code == 400
        assert (await call(at, "POST", "/admin/models/nope/warm", headers=JSON)).status_code == 404


async def test_the_waking_goes_on_when_its_caller_leaves() -> None:
    hold = asyncio.Event()

    async def boots(visit: Visit) -> None:
        await soon(hold.wait())
        await there(visit)

    async with house(boots) as at, httpx.AsyncClient() as client:
        url = f"http://127.0.0.1:{at.port}{WARM}"
        async with client.stream("POST", url, headers=JSON) as answer:
            line = json.loads(await soon(anext(answer.aiter_lines())))
            assert line["state"] in ("booting", "unknown")
        hold.set()
        await shown(at, state="warm")
        assert len(at.container.visits) == 1


async def test_the_first_upstream_is_woken_and_no_other() -> None:
    async with container(there) as first, container(there) as second:
        upstreams = [{"url": f"http://127.0.0.1:{each.port}/"} for each in (first, second)]
        async with house(there, {"models": {"m": {"upstreams": upstreams, "template": "plain"}}}) as at:
            assert (await wake(at))[0] == 200
            states = [(row["name"], row["state"]) for row in await rows(at)]
            assert states == [("m-0", "warm"), ("m-1", "unknown")]
        assert (len(first.visits), len(second.visits)) == (1, 0)


# --- what is counted and logged ---


def record(**fields: Any) -> Record:
    known: dict[str, Any] = {
        "request_id": "req_1", "route": "chat", "key": "-", "asked": "m", "model": "m", "upstream": "m",
        "status": 200, "code": None, "streamed": False, "started": 0.0, "first_event": 1.0, "finished": 2.0,
        "usage": None, "finish": "stop", "calls": 1,
    }  # fmt: skip
    return Record(**{**known, **fields})


def test_waiting_and_extra_calls_are_counted_where_there_were_any() -> None:
    metrics = Metrics()
    metrics.observe(record())
    before = exposition(metrics.families()).decode()
    for name in ("queue_seconds", "boot_wait_seconds", "retries_total", "fallbacks_total"):
        assert f"modal_gateway_{name}_count{{" not in before and f"modal_gateway_{name}{{" not in before
    metrics.observe(record(queued=2.0, booted=21.5, calls=4, fallbacks=1, wanted="asked"))
    after = exposition(metrics.families()).decode().splitlines()
    assert 'modal_gateway_queue_seconds_sum{model="m"} 2.0' in after
    assert 'modal_gateway_boot_wait_seconds_sum{model="m"} 21.5' in after
    assert 'modal_gateway_retries_total{model="asked"} 2.0' in after
    assert 'modal_gateway_fallbacks_total{model="m",wanted="asked"} 1.0' in after


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"state": "warm"}, "code=upstream_error after 2.000 s"),
        ({"state": "unknown", "queued": 0.0004}, "code=upstream_error after 2.000 s"),
        ({"state": "cold", "booted": 1.5}, "code=upstream_error state=cold boot=1.500s after 2.000 s"),
        ({"state": "saturated", "queued": 0.25}, "state=saturated queue=0.250s after 2.000 s"),
    ],
)
def test_the_log_tells_of_waiting_where_there_was_any(
    fields: dict[str, Any], said: str, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        log.observe(record(status=502, code="upstream_error", **fields))
    assert caplog.messages[0].endswith(said)

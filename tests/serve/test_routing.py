"""Which model a name means, which upstream gets the call, and what is tried after a failure."""

import asyncio
import json
from typing import Any

import pytest

from gateway.app import build_app
from gateway.core.call import PromptCall
from gateway.core.errors import (
    NoContainer,
    UpstreamBadRequest,
    UpstreamError,
)
from gateway.core.events import Extra, Finish, Text
from gateway.routing.visit import Bounds
from gateway.settings import settings_from
from tests.serve.house import HELLO, Desk, House, Line, Scripted, container, deployed, house, listening, soon
from tests.serve.test_chat import chunks, greet, post
from tests.serve.test_failures import error_event
from tests.serve.test_surface import KEY, call, error

NEVER = UpstreamBadRequest("never", retry="never")
ONCE = UpstreamError("once", retry="once")
ELSEWHERE = UpstreamError("elsewhere", retry="elsewhere")
CALL = PromptCall("hi", {})


def content(line: Line) -> str:
    assert line.status == 200
    return str(json.loads(line.body)["choices"][0]["message"]["content"])


# --- order ---


async def test_rendering_takes_no_ones_turn() -> None:
    async with container(greet) as behind:
        upstreams = [{"url": f"http://127.0.0.1:{behind.port}/{name}"} for name in "ab"]
        model = {"upstreams": upstreams, "template": "plain", "balance": "round_robin"}
        app = build_app(settings_from({"auth": {"mode": "none"}, "models": {"m": model}}, {}))
        async with listening(app) as port:
            at = House(port, behind)
            for _ in range(4):
                assert (await post(at, "/chat/completions/render")).status_code == 200
                assert (await post(at)).status_code == 200
        assert [visit.path for visit in behind.visits] == ["/a", "/b", "/a", "/b"]


# --- what is tried again ---


async def test_the_same_upstream_is_asked_once_more_where_that_may_help() -> None:
    upstream, beside = Scripted("a", [ONCE], HELLO), Scripted("b")
    desk = Desk(deployed(upstream, beside, balance="round_robin"))
    assert content(await desk.ask()) == "hello"
    assert (len(upstream.calls), len(beside.calls)) == (2, 0)


async def test_an_upstream_that_fails_twice_is_left_for_another() -> None:
    upstream, beside = Scripted("a", [ONCE]), Scripted("b")
    desk = Desk(deployed(upstream, beside, balance="round_robin"))
    assert content(await desk.ask()) == "hello"
    assert (len(upstream.calls), len(beside.calls)) == (2, 1)
    assert desk.records[0].upstream == "b"


async def test_one_more_call_a_model_is_enough() -> None:
    three = [Scripted(name, [ELSEWHERE]) for name in "abc"]
    spare = Scripted("spare")
    desk = Desk(
        deployed(*three, balance="round_robin", fallback=("x",)),
        deployed(spare, name="x"),
    )
    assert content(await desk.ask()) == "hello"
    assert [len(each.calls) for each in (*three, spare)] == [1, 1, 0, 1]
    assert desk.records[0].model == "x"


@pytest.mark.parametrize("stream", [False, True])
async def test_what_nothing_can_mend_is_tried_nowhere_else(stream: bool) -> None:
    upstream, beside, spare = Scripted("a", [NEVER]), Scripted("b"), Scripted("spare")
    desk = Desk(deployed(upstream, beside, balance="round_robin", fallback=("x",)), deployed(spare, name="x"))
    line = await desk.ask(stream=stream)
    assert (line.status, line.error["message"]) == (400, "never")
    assert [len(each.calls) for each in (upstream, beside, spare)] == [1, 0, 0]


async def test_a_full_queue_sends_the_request_to_another_upstream() -> None:
    go = asyncio.Event()
    first, second = Scripted("a", [go.wait, *HELLO]), Scripted("b")
    desk = Desk(deployed(first, second, balance="round_robin", bounds=Bounds(1, 0, 60.0)))
    async with asyncio.TaskGroup() as group:
        group.create_task(desk.ask())
        await soon(first.asked.wait())
        for _ in range(2):
            assert content(await desk.ask()) == "hello"
        go.set()
    assert (len(first.calls), len(second.calls)) == (1, 2)


@pytest.mark.parametrize(("cold", "status", "calls"), [("fail", 503, 0), ("fallback", 200, 1)])
async def test_a_model_without_a_container_goes_elsewhere_unless_it_is_to_fail(
    cold: str, status: int, calls: int
) -> None:
    upstream, spare = Scripted("a", [NoContainer("cold", retry="elsewhere")]), Scripted("spare")
    desk = Desk(deployed(upstream, cold=cold, fallback=("x",)), deployed(spare, name="x"))
    line = await desk.ask()
    assert (line.status, upstream.woken, len(upstream.calls), len(spare.calls)) == (status, 1, 0, calls)


async def test_a_model_that_fails_when_cold_still_goes_elsewhere_with_other_failures() -> None:
    desk = Desk(
        deployed(Scripted("a", [ELSEWHERE]), cold="fail", fallback=("x",)),
        deployed(Scripted("spare"), name="x"),
    )
    assert content(await desk.ask()) == "hello"


# --- fallback models that cannot take the request ---


@pytest.mark.parametrize("spec", [{"max_output_tokens": 1}, {"context_length": 3}])
async def test_a_fallback_that_refuses_the_request_is_passed_over(spec: dict[str, Any]) -> None:
    small, spare = Scripted("small"), Scripted("spare")
    desk = Desk(
        deployed(Scripted("a", [ELSEWHERE]), fallback=("x", "y")),
        deployed(small, name="x", spec=spec, count=len),
        deployed(spare, name="y"),
    )
    assert content(await desk.ask(max_tokens=5)) == "hello"
    assert (len(small.calls), len(spare.calls)) == (0, 1)


@pytest.mark.parametrize("stream", [False, True])
async def test_the_client_hears_of_the_failure_and_not_of_what_a_fallback_refuses(stream: bool) -> None:
    desk = Desk(
        deployed(Scripted("a", [ELSEWHERE]), fallback=("x",)),
        deployed(Scripted("small"), name="x", spec={"max_output_tokens": 1}),
    )
    line = await desk.ask(max_tokens=5, stream=stream)
    assert (line.status, line.error["message"]) == (502, "elsewhere")
    [record] = desk.records
    assert (record.model, record.upstream, record.code) == ("m", "a", "upstream_error")
    assert desk.counted('modal_gateway_requests_total{model="m",route="chat",status="502"} 1.0')


# --- nothing is tried again once the client was told something ---


async def test_a_choice_that_ended_without_a_word_is_not_ended_again() -> None:
    desk_line: list[Line] = []

    async def told() -> None:
        await desk_line[0].until(b'"finish_reason":"stop"')

    upstream, beside = Scripted("a", [[Finish("stop")]], [told, ELSEWHERE]), Scripted("b")
    desk = Desk(deployed(upstream, beside, balance="round_robin"))
    desk_line.append(desk.line(stream=True, n=2))
    await soon(desk.take(desk_line[0]))
    body = desk_line[0].body
    assert beside.calls == []
    assert body.count(b'"finish_reason":"stop"') == 1
    assert error_event(body)["message"] == "elsewhere"


async def test_fields_that_nobody_knows_are_an_answer_too() -> None:
    async def annotate(visit: Any) -> None:
        await visit.start_stream()
        delta = {"role": "assistant", "annotations": [{"type": "url_citation"}]}
        await visit.event({"choices": [{"index": 0, "delta": delta, "finish_reason": None}]})
        visit.cut()

    async with container(annotate) as behind:
        upstreams = [{"kind": "openai", "url": f"http://127.0.0.1:{behind.port}/{name}/v1"} for name in "ab"]
        config = {"auth": {"mode": "none"}, "models": {"m": {"upstreams": upstreams}}}
        line = Line(body=b'{"model":"m","stream":true,"messages":[{"role":"user","content":"hi"}]}')
        await soon(build_app(settings_from(config, {}))(line.scope, line.receive, line.send))
        assert b'"annotations"' in line.body
        assert error_event(line.body)["message"]
        assert len(behind.visits) == 1


@pytest.mark.parametrize("event", [Text("hel"), Extra({"refusal": "no"})])
async def test_nothing_is_tried_again_after_an_event(event: Any) -> None:
    upstream, beside = Scripted("a", [[event], ELSEWHERE]), Scripted("b")
    desk = Desk(deployed(upstream, beside, balance="round_robin"))
    line = await desk.ask(stream=True)
    assert error_event(line.body)["message"] == "elsewhere"
    assert beside.calls == []


async def test_text_without_a_character_is_nothing_and_leaves_the_way_open() -> None:
    upstream, beside = Scripted("a", [[Text("")], ELSEWHERE]), Scripted("b")
    desk = Desk(deployed(upstream, beside, balance="round_robin"))
    line = await desk.ask(stream=True)
    got = chunks(line.body.decode())
    assert [c["choices"][0]["delta"].get("content") for c in got] == ["", "hello", None]
    assert len(beside.calls) == 1


# --- around the routes ---


async def test_a_client_that_hangs_up_inside_a_body_to_render_is_no_error(
    caplog: pytest.LogCaptureFixture,
) -> None:
    app = build_app(
        settings_from({"auth": {"mode": "none"}, "models": {"m": {"upstream": {"kind": "demo"}}}}, {})
    )
    line = Line("/v1/chat/completions/render", b'{"model', cut=True)
    await soon(app(line.scope, line.receive, line.send))
    assert line.status == 499
    assert caplog.records == []


async def test_a_browsers_question_before_the_call_carries_a_request_id() -> None:
    async with house(greet, {"server": {"cors_origins": ["https://app.example"]}}) as at:
        asked = {"origin": "https://app.example", "access-control-request-method": "POST"}
        for path in ("/v1/chat/completions", "/v1/models"):
            answer = await call(at, "OPTIONS", path, headers=asked)
            assert answer.status_code == 200
            assert answer.headers["x-request-id"].startswith("req_")


async def test_a_key_is_never_told_of_the_default_model() -> None:
    keys = {"auth": {"keys": [{"name": "some", "key": KEY, "models": ["other*"]}]}}
    async with house(greet, {**keys, "default_model": "m"}, aliases=["the-default"]) as at:
        for asked in ("junk", "the-default"):
            for path in ("/v1/chat/completions", "/v1/chat/completions/render"):
                body = {"model": asked, "messages": [{"role": "user", "content": "hi"}]}
                refused = await call(at, "POST", path, json=body, headers={"x-api-key": KEY})
                assert refused.status_code == 404
                assert f"`{asked}`" in error(refused)["message"]
                assert "`m`" not in error(refused)["message"]
        assert at.container.visits == []

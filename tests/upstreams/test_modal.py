"""Kind ``modal``: what a function gives becomes the answer, what goes wrong the right error."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import aclosing, asynccontextmanager
from typing import Any

import pytest

from gateway.core.errors import GatewayError, NoContainer, UpstreamError
from gateway.core.events import Finish, Text, Usage
from gateway.core.gpu import SECOND
from gateway.routing.observations import Sighting, Sightings
from gateway.routing.target import Target
from gateway.routing.visit import Bounds, Visit
from gateway.upstreams import Observed
from gateway.upstreams.modal_sdk import ModalUpstream
from gateway.upstreams.modal_sdk.calls import harmless
from gateway.upstreams.modal_sdk.calls import outcome as taken
from gateway.upstreams.modal_sdk.config import ModalConfig
from gateway.upstreams.modal_sdk.errors import MADE, Where
from modal_backend import spawned
from tests.backend.scripted import Scripted
from tests.backend.scripted import pieces as made
from tests.upstreams.calling import AT, PROMPT, Outcome, ask, outcome
from tests.upstreams.fake import soon
from tests.upstreams.modal_fake import FakeModal, Stats, exception

LOGPROBS = [{"token": "hi", "logprob": -0.5, "bytes": [104, 105], "top_logprobs": []}]
ANSWER = {
    "prompt": "hi",
    "finish_reason": "length",
    "usage": {"prompt_tokens": 3, "completion_tokens": 1},
    "logprobs": LOGPROBS,
    "ignored": ["lora"],
}


@asynccontextmanager
async def deployed(body: Callable[..., Any], **config: Any) -> AsyncIterator[tuple[ModalUpstream, FakeModal]]:
    """``body`` as the deployed function ``f`` of the app ``demo``."""
    sdk = FakeModal(functions={"f": body})
    made = ModalConfig.model_validate({"app": "demo", "function": "f", **config})
    upstream = ModalUpstream("m", made, model="m", at=AT, sdk=sdk)
    try:
        yield upstream, sdk
    finally:
        await upstream.aclose()
        await sdk.stop()


async def asked(body: Callable[..., Any], call: Any = None, **config: Any) -> Outcome:
    async with deployed(body, **config) as (upstream, _):
        return await soon(outcome(upstream, call or ask()))


class Later:
    """A function that says when it is called, and answers when it may."""

    def __init__(self, body: Callable[..., Any]) -> None:
        self._body = body
        self.asked = asyncio.Event()
        self.goes = asyncio.Event()

    async def __call__(self, prompt: str) -> Any:
        self.asked.set()
        await self.goes.wait()
        return await self._body(prompt)


async def read(target: Target, visit: Visit | None = None) -> None:
    """One call, to its end."""
    async with aclosing(target.events(ask(), visit or Visit())) as batches:
        async for _ in batches:
            pass


async def seen(target: Target, sightings: Sightings, when: float) -> None:
    """Until what its platform says was learned at ``when``."""

    async with asyncio.timeout(10):
        while sightings._known.get(target, Sighting()).at != when or sightings._asking:  # noqa: ASYNC110
            await asyncio.sleep(0)


async def text(prompt: str) -> str:
    return f"you said {prompt}"


async def pieces(prompt: str) -> AsyncGenerator[Any, None]:
    for piece in ("he", " ", "llo"):
        yield piece


# --- the historic cases ---


async def test_predict_of_a_class_that_returns_text() -> None:
    async def predict(text: str) -> str:
        return f"you said {text}"

    sdk = FakeModal(classes={"Model": {"predict": predict}})
    config = ModalConfig.model_validate(
        {
            "app": "demo", "class": "Model", "method": "predict", "parameters": {"size": "7b"},
            "environment": "dev", "version": 3, "options": {"gpu": "H100"},
        }
    )  # fmt: skip
    upstream = ModalUpstream("m", config, sdk=sdk)
    for _ in range(2):
        got = await soon(outcome(upstream, ask()))
        assert got.events == [Text(f"you said {PROMPT}"), Finish("stop")]
    assert sdk.asked == [
        {"name": "demo", "tag": "Model", "version": 3, "environment_name": "dev"},
        {"gpu": "H100"},
        {"size": "7b"},
    ]
    assert [spawning.arguments for spawning in sdk.spawned] == [((PROMPT,), {})] * 2
    await upstream.aclose()


@pytest.mark.parametrize("config", [{}, {"stream": "generator"}])
@pytest.mark.parametrize("stream", [True, False])
async def test_generate_that_yields_text(config: dict[str, Any], stream: bool) -> None:
    async with deployed(pieces, **config) as (upstream, sdk):
        for _ in range(2):  # the first call learns that it is a generator
            got = await soon(outcome(upstream, ask(stream=stream)))
            assert got.events == [Text("he"), Text(" "), Text("llo"), Finish("stop")]
        assert sdk.spawned == []


# --- what is passed ---


@pytest.mark.parametrize(
    ("config", "arguments"),
    [
        ({"pass": "prompt"}, ((PROMPT,), {})),
        ({"pass": "fields"}, ((), {"prompt": PROMPT, "max_tokens": 5, "stop": ["x"]})),
        ({"pass": "dict"}, (({"prompt": PROMPT, "max_tokens": 5, "stop": ["x"]},), {})),
        (
            {"pass": "fields", "request_fields": {"prompt": "text", "max_tokens": "o.n", "stop": None}},
            ((), {"text": PROMPT, "o": {"n": 5}}),
        ),
        (
            {"pass": "dict", "request_fields": {"request_id": "id", "stop": None}},
            (({"prompt": PROMPT, "max_tokens": 5, "id": "req_1"},), {}),
        ),
    ],
)
async def test_the_function_is_given(config: dict[str, Any], arguments: Any) -> None:
    async def anything(*args: Any, **kwargs: Any) -> str:
        return "a"

    async with deployed(anything, **config) as (upstream, sdk):
        got = await soon(outcome(upstream, ask(max_tokens=5, stop=("x",))))
        assert [spawning.arguments for spawning in sdk.spawned] == [arguments]
        assert got.finish.ignored == (("max_tokens",) if config["pass"] == "prompt" else ())


# --- what it may give ---


async def test_the_contracts_dict_is_passed_on_whole() -> None:
    async def answer(prompt: str) -> Any:
        return ANSWER

    logprobs = tuple(LOGPROBS)
    assert (await asked(answer)).events == [
        Text("hi", logprobs),
        Finish("length", Usage(3, 1), ignored=("lora",)),
    ]


async def test_a_generator_of_the_contracts_events() -> None:
    async def generate(prompt: str) -> AsyncGenerator[Any, None]:
        yield {"prompt": "h", "logprobs": [{"token": "h", "logprob": -0.5}]}
        yield {"prompt": "i"}
        yield {"finish_reason": "length", "usage": {"prompt_tokens": 3, "completion_tokens": 2}}

    got = await asked(generate)
    assert got.text == "hi"
    assert (got.finish.reason, got.finish.usage) == ("length", Usage(3, 2))
    assert isinstance(got.events[0], Text) and got.events[0].logprobs is not None


async def test_a_generator_may_end_without_a_word() -> None:
    async def generate(prompt: str) -> AsyncGenerator[Any, None]:
        return
        yield

    assert (await asked(generate)).events == [Finish("stop")]


async def test_old_shapes_by_configuration() -> None:
    async def predict(prompt: str) -> Any:
        return {"prediction": "hi"}

    async def texts(prompt: str) -> AsyncGenerator[Any, None]:
        yield "h"
        yield "hi"

    assert (await asked(predict, response_field="prediction")).text == "hi"
    assert (await asked(text, response_field="0.generated_text")).text == f"you said {PROMPT}"
    assert (await asked(texts, cumulative=True)).text == "hi"


@pytest.mark.parametrize("value", [None, 5, {"text": "x"}, ["x"], object(), "\ud800", b"\xff"])
async def test_anything_else_is_an_error(value: Any) -> None:
    async def whole(prompt: str) -> Any:
        return value

    async def generate(prompt: str) -> AsyncGenerator[Any, None]:
        yield "he"
        yield value

    for body, before in ((whole, ""), (generate, "he")):
        got = await asked(body)
        assert got.text == before
        assert (got.failure.status, got.failure.code) == (502, "upstream_bad_response")


async def test_an_error_of_the_contract_is_that_error() -> None:
    async def fail(prompt: str) -> Any:
        return {"error": {"message": "no memory", "code": "out_of_memory", "status": 503}}

    failure = (await asked(fail)).failure
    assert (failure.status, failure.code) == (503, "out_of_memory")


# --- through a queue ---


def writing(*batches: list[Any], then: BaseException | None = None) -> Callable[..., Any]:
    """A function that writes these to the queue of its app."""

    async def write(sdk: FakeModal, body: Any, partition: str | None = None) -> Any:
        if partition is None:
            return ANSWER
        for batch in batches:
            await sdk.queues["demo-pieces"].put_many.aio(batch, partition=partition, partition_ttl=600)
        if then is not None:
            raise then
        return None

    return write


@asynccontextmanager
async def queued(body: Callable[..., Any], **config: Any) -> AsyncIterator[tuple[ModalUpstream, FakeModal]]:
    async def bound(*args: Any, **kwargs: Any) -> Any:
        return await body(sdk, *args, **kwargs)

    async with deployed(bound, **{"stream": "queue", "pass": "dict", **config}) as (upstream, sdk):
        yield upstream, sdk


COMPLETE = writing(
    [b'{"prompt":"he"}', b'{"prompt":" "}'],
    ["llo", {"finish_reason": "stop", "usage": {"prompt_tokens": 3, "completion_tokens": 2}}, b"[DONE]"],
)


async def test_pieces_of_a_queue_come_in_order() -> None:
    async with queued(COMPLETE) as (upstream, sdk):
        for _ in range(3):
            got = await soon(outcome(upstream, ask()))
            assert (got.text, got.finish.usage) == ("he llo", Usage(3, 2))
        names = [spawning.arguments[1]["partition"] for spawning in sdk.spawned]
        assert len(set(names)) == 3 and all(name.startswith("req_1-") for name in names)
        assert (sdk.left, [spawning.cancelled for spawning in sdk.spawned]) == ([], [False] * 3)


async def test_a_whole_answer_needs_no_queue() -> None:
    async with queued(COMPLETE) as (upstream, sdk):
        got = await soon(outcome(upstream, ask(stream=False)))
        assert (got.text, got.finish.reason) == ("hi", "length")
        assert sdk.spawned[0].arguments == (({"prompt": PROMPT},), {})


@pytest.mark.parametrize("before", [[], ["he"]])
async def test_a_call_that_fails_while_its_queue_is_read(before: list[Any]) -> None:
    failing = writing(before, then=exception.FunctionTimeoutError("x"))
    async with queued(failing) as (upstream, sdk):
        got = await soon(outcome(upstream, ask()))
        assert got.text == "".join(before)
        assert (got.failure.status, got.failure.code, got.failure.retry) == (504, "upstream_timeout", "never")
        assert len(sdk.queues["demo-pieces"].cleared) == 1


async def test_a_failure_long_after_the_first_piece_is_that_failure() -> None:
    """The time for the first event is over by then, and the result is asked for once."""
    gate = asyncio.Event()

    async def fail(sdk: FakeModal, body: Any, partition: str | None = None) -> None:
        for piece in "abcdef":
            await sdk.queues["demo-pieces"].put_many.aio([piece], partition=partition, partition_ttl=600)
        await gate.wait()
        raise exception.RemoteError("secret words")

    async with queued(fail, first_event_timeout=0.2) as (upstream, sdk):
        loop, got = asyncio.get_running_loop(), ""
        loop.call_later(0.3, gate.set)
        with pytest.raises(GatewayError) as caught:
            async with aclosing(upstream.events(ask())) as batches:
                async for batch in batches:
                    got += "".join(event.text for event in batch if isinstance(event, Text))
        assert (got, caught.value.status, caught.value.code) == ("abcdef", 502, "upstream_error")
        assert [spawning.got for spawning in sdk.spawned] == [1]


async def test_a_return_without_an_end_is_a_cut() -> None:
    async with queued(writing(["he"])) as (upstream, _):
        got = await soon(outcome(upstream, ask()))
        assert got.text == "he"
        assert (got.failure.status, got.failure.code) == (502, "upstream_cut")


async def test_an_error_in_the_queue_comes_after_the_text_before_it() -> None:
    body = writing(["he", {"error": {"message": "x", "code": "engine_dead", "status": 503}}])
    async with queued(body) as (upstream, _):
        got = await soon(outcome(upstream, ask()))
        assert (got.text, got.failure.code) == ("he", "engine_dead")


async def contained(sdk: FakeModal, body: Any, partition: str | None = None) -> Any:
    """What the container of a deployment file does, with an engine of the tests."""
    engine = Scripted(*made(*"he llo", "!", " more"), honours=frozenset({"stop"}))
    if partition is None:
        return await spawned.whole(engine, body)

    async def write(events: list[bytes]) -> None:
        await sdk.queues["demo-pieces"].put_many.aio(events, partition=partition, partition_ttl=600)

    return await spawned.streamed(engine, body, write)


@pytest.mark.parametrize("stream", [True, False])
async def test_our_own_container_is_understood(stream: bool) -> None:
    async with queued(contained) as (upstream, _):
        got = await soon(outcome(upstream, ask(stream=stream, stop=["!"], top_k=3)))
        assert got.text == "he llo"
        assert (got.finish.reason, got.finish.usage, got.finish.ignored) == ("stop", Usage(7, 7), ("top_k",))
        failure = (await soon(outcome(upstream, ask(stream=stream, max_tokens=0)))).failure
        assert (failure.status, failure.code) == (400, "upstream_bad_request")


# --- silence ---


async def silent(sdk: FakeModal, body: Any, partition: str | None = None) -> None:
    await asyncio.Event().wait()


async def beginning(sdk: FakeModal, body: Any, partition: str | None = None) -> None:
    await sdk.queues["demo-pieces"].put_many.aio(["he"], partition=partition, partition_ttl=600)
    await asyncio.Event().wait()


async def mute(prompt: str) -> AsyncGenerator[Any, None]:
    await asyncio.Event().wait()
    yield


async def muttering(prompt: str) -> AsyncGenerator[Any, None]:
    yield "he"
    await asyncio.Event().wait()


@pytest.mark.parametrize("stream", [True, False])
async def test_silence_before_the_first_event_is_a_timeout(stream: bool) -> None:
    async with queued(silent, first_event_timeout=0.1) as (upstream, sdk):
        failure = (await soon(outcome(upstream, ask(stream=stream)))).failure
        assert (failure.status, failure.code) == (504, "upstream_timeout")
        assert [spawning.cancelled for spawning in sdk.spawned] == [True]
    assert (await asked(mute, first_event_timeout=0.1)).failure.code == "upstream_timeout"


async def test_silence_between_events_is_a_timeout_after_what_came() -> None:
    async with queued(beginning, idle_timeout=0.1) as (upstream, sdk):
        got = await soon(outcome(upstream, ask()))
        assert (got.text, got.failure.status, got.failure.code) == ("he", 504, "upstream_idle")
        assert [spawning.cancelled for spawning in sdk.spawned] == [True]
    got = await asked(muttering, idle_timeout=0.1)
    assert (got.text, got.failure.code) == ("he", "upstream_idle")


# --- errors ---

BEFORE = {
    "AuthError": (502, "upstream_auth", "elsewhere"),
    "PermissionDeniedError": (502, "upstream_auth", "elsewhere"),
    "NotFoundError": (502, "upstream_not_found", "elsewhere"),
    "InvalidError": (502, "upstream_refused", "elsewhere"),
    "ConflictError": (503, "upstream_unavailable", "elsewhere"),
    "RequestSizeError": (400, "upstream_bad_request", "never"),
    "ResourceExhaustedError": (429, "upstream_rate_limited", "elsewhere"),
    "ConnectionError": (503, "upstream_unavailable", "once"),
    "ServiceError": (503, "upstream_unavailable", "once"),
    "VersionError": (502, "upstream_error", "elsewhere"),
    "UnimplementedError": (502, "upstream_error", "elsewhere"),
}
WHILE = {
    "FunctionTimeoutError": (504, "upstream_timeout", "never"),
    "OutputExpiredError": (504, "upstream_timeout", "never"),
    "InputCancellation": (502, "upstream_cut", "elsewhere"),
    "RemoteError": (502, "upstream_error", "elsewhere"),
    "InternalFailure": (502, "upstream_error", "elsewhere"),
    "ExecutionError": (502, "upstream_bad_response", "elsewhere"),
    "ResourceExhaustedError": (429, "upstream_rate_limited", "elsewhere"),
    "ServiceError": (503, "upstream_unavailable", "elsewhere"),
    "InvalidError": (502, "upstream_error", "elsewhere"),
}


@pytest.mark.parametrize("name", BEFORE)
async def test_what_modal_refuses_is_the_right_error(name: str) -> None:
    async with deployed(text) as (upstream, sdk):
        sdk.broken = getattr(exception, name)("secret words")
        failure = (await soon(outcome(upstream, ask()))).failure
        assert (failure.status, failure.code, failure.retry) == BEFORE[name]
        assert "secret" not in failure.message
        with pytest.raises(GatewayError) as caught:
            await upstream.reachable()
        assert caught.value.code == failure.code
        sdk.broken = None
        assert (await soon(outcome(upstream, ask()))).text == f"you said {PROMPT}"


@pytest.mark.parametrize("name", WHILE)
async def test_what_fails_at_modal_is_the_right_error(name: str) -> None:
    async def fail(prompt: str) -> str:
        raise getattr(exception, name)("secret words")

    async def generate(prompt: str) -> AsyncGenerator[Any, None]:
        yield "he"
        raise getattr(exception, name)("secret words")

    for body in (fail, generate):
        async with deployed(body) as (upstream, sdk):
            got = await soon(outcome(upstream, ask()))
            failure = got.failure
            assert (failure.status, failure.code, failure.retry) == WHILE[name]
            assert "secret" not in failure.message
            assert (got.text, len(sdk.spawned)) == (("", 1) if body is fail else ("he", 0))


@pytest.mark.parametrize("ends", [SystemExit(3), KeyboardInterrupt()])
async def test_what_would_end_a_process_ends_the_call_alone(ends: BaseException) -> None:
    """Modal's SDK raises here what the function raised there, whatever it was."""

    async def leave() -> None:
        raise ends

    task = asyncio.get_running_loop().create_task(harmless(leave()))
    await soon(asyncio.wait({task}))
    with pytest.raises(UpstreamError):
        taken(task, Where("models.m.upstream", "app.predict", "app"), ran=True)


def test_every_class_that_is_told_apart_exists() -> None:
    assert [name for name in MADE if not hasattr(exception, name)] == []


async def test_what_the_function_raises_is_named_and_not_repeated() -> None:
    async def fail(prompt: str) -> str:
        raise KeyError(prompt)

    failure = (await asked(fail)).failure
    assert (failure.status, failure.code) == (502, "upstream_error")
    assert "demo/f raised KeyError" in failure.message
    assert PROMPT not in failure.message


async def test_a_function_that_does_not_take_what_it_is_given() -> None:
    async def narrow(prompt: str) -> str:
        return prompt

    async def taking(**given: Any) -> str:
        return await narrow(**given)

    failure = (await asked(taking, ask(top_k=5), **{"pass": "fields"})).failure
    assert "TypeError" in failure.message and f"{AT}.pass" in failure.message


async def test_a_missing_function_is_looked_up_again() -> None:
    async with deployed(text) as (upstream, sdk):
        body = sdk.functions.pop("f")
        failure = (await soon(outcome(upstream, ask()))).failure
        assert failure.code == "upstream_not_found"
        assert f"app and function of {AT}" in failure.message
        sdk.functions["f"] = body
        assert (await soon(outcome(upstream, ask()))).finish.reason == "stop"


# --- containers ---


async def test_observed_is_what_modal_counts() -> None:
    async with deployed(text) as (upstream, sdk):
        sdk.stats = lambda: Stats(backlog=7, num_total_runners=2)
        assert await upstream.observed() == Observed(runners=2, backlog=7)


def asleep(sdk: FakeModal) -> None:
    """No container runs unless a minimum says so."""
    sdk.stats = lambda: Stats(0, (sdk.updates[-1] if sdk.updates else None) or 0)


def asleep_no_more(sdk: FakeModal) -> None:
    """It runs on for its window."""
    sdk.stats = lambda: Stats(0, 1)


CLASS = {"function": None, "class": "Model", "method": "predict"}


@pytest.mark.parametrize("config", [{}, CLASS])
async def test_wake_starts_one_container_and_lets_go_of_it(config: dict[str, Any]) -> None:
    async with deployed(text, **config) as (upstream, sdk):
        sdk.classes["Model"] = {"predict": text}
        asleep(sdk)
        assert await soon(upstream.wake()) == Observed(1, 0)
        assert sdk.updates == [1, 0]
        assert sdk.spawned == []


async def test_wake_touches_nothing_while_a_container_runs() -> None:
    async with deployed(text) as (upstream, sdk):
        await soon(upstream.wake())
        assert sdk.updates == []


async def test_wake_that_is_given_up_lets_go_too() -> None:
    async with deployed(text, first_event_timeout=0.05) as (upstream, sdk):
        sdk.stats = lambda: Stats(0, 0)
        with pytest.raises(NoContainer):
            await soon(upstream.wake())
        assert sdk.updates == [1, 0]


@pytest.mark.parametrize("config", [{}, CLASS])
async def test_a_minimum_of_somebody_else_is_never_touched(config: dict[str, Any]) -> None:
    """One of the deployment, or one that another process keeps."""
    async with deployed(text, **config) as (upstream, sdk):
        sdk.classes["Model"] = {"predict": text}
        sdk.minimum = 2
        looks = iter([0, 2])
        sdk.stats = lambda: Stats(0, next(looks))
        await soon(upstream.wake())
        assert sdk.updates == []


async def test_what_is_kept_outlives_a_wake() -> None:
    async with deployed(text) as (upstream, sdk):
        await soon(upstream.keep(2))
        looks = iter([0, 1])
        sdk.stats = lambda: Stats(0, next(looks))
        await soon(upstream.wake())
        assert sdk.updates == [2]


async def test_two_processes_that_wake_an_app_start_one_container_and_let_go_of_it() -> None:
    async with deployed(text) as (upstream, sdk), deployed(text) as (other, _):
        other._app._sdk = sdk
        asleep(sdk)
        await soon(asyncio.gather(upstream.wake(), other.wake()))
        assert sdk.updates[-1] == 0
        assert set(sdk.updates) == {0, 1}


@pytest.mark.parametrize("kept", [1, 2])
async def test_hours_that_begin_while_it_is_woken_are_kept(kept: int) -> None:
    """Whatever is still under way, the last word is what is kept."""
    async with deployed(text) as (upstream, sdk):
        asleep(sdk)
        sdk.settled.clear()
        async with asyncio.TaskGroup() as group:
            group.create_task(upstream.wake())
            await soon(sdk.updating.wait())
            group.create_task(upstream.keep(kept))
            for _ in range(5):
                await asyncio.sleep(0)
            sdk.settled.set()
        assert sdk.updates == [1, kept]


async def test_a_counted_container_is_not_yet_an_answer() -> None:
    """Modal counts a container before its model is loaded: the boot ends with the first answer."""
    now = 1000.0
    async with deployed(text) as (upstream, sdk):
        target = Target(upstream, Bounds(4, 4, 5.0, window=60.0, sleeps=True), lambda: now)
        await soon(read(target))
        assert target.state() == "warm"
        now += 100.0
        assert target.state() == "cold"
        asleep(sdk)
        await soon(target.wake())
        assert (target.state(), target.life.boots.count) == ("booting", 0)
        now += 5.0
        sdk.functions["f"] = later = Later(text)
        upstream._app.forget()
        async with asyncio.TaskGroup() as group:
            group.create_task(read(target))
            await soon(later.asked.wait())
            now += 15.0
            later.goes.set()
        assert (target.state(), target.life.boots.p50) == ("warm", 20.0)
        await target.aclose()


async def test_who_will_not_wait_gets_through_though_nobody_else_asks() -> None:
    now = 1000.0
    async with deployed(text) as (upstream, sdk):
        target = Target(upstream, Bounds(4, 4, 5.0, window=60.0, sleeps=True), lambda: now)
        await soon(read(target))
        asleep(sdk)
        now += 100.0
        refused = 0
        while target.state() != "warm":
            try:
                await soon(read(target, Visit(patient=False, wakes=True)))
            except NoContainer:
                refused += 1
                await soon(target.wake())
                asleep_no_more(sdk)
                now += 10.0
        assert 1 < refused < 10
        await target.aclose()


async def test_one_that_is_kept_warm_is_not_called_cold() -> None:
    now = 1000.0
    async with deployed(text) as (upstream, sdk):
        target = Target(upstream, Bounds(4, 4, 5.0, window=60.0, sleeps=True), lambda: now)
        await soon(read(target))
        sightings, naps = Sightings(lambda: now), asyncio.Semaphore(0)

        async def sleep(_: float) -> None:
            await naps.acquire()

        kept = [(50.0, 2, "warm")] * 4  # far beyond the window
        async with asyncio.TaskGroup() as group:
            watching = group.create_task(sightings.watch(lambda: [target], sleep))
            for gap, runners, state in (*kept, (50.0, 0, "cold"), (301.0, 0, "cold"), (301.0, 1, "booting")):
                sdk.stats = lambda runners=runners: Stats(0, runners)
                now += gap
                naps.release()
                await seen(target, sightings, now)
                assert target.state() == state
            watching.cancel()
        await sightings.aclose()
        assert sdk.updates == []
        await target.aclose()


async def test_containers_are_counted_while_calls_run() -> None:
    now = 1000.0
    async with deployed(text) as (upstream, sdk):
        sdk.functions["f"] = later = Later(text)
        sdk.stats = lambda: Stats(0, 3)
        target = Target(upstream, Bounds(4, 4, 5.0, inputs=1, containers=9), lambda: now)
        sightings, naps, visit = Sightings(lambda: now), asyncio.Semaphore(0), Visit()

        async def sleep(_: float) -> None:
            await naps.acquire()

        async with asyncio.TaskGroup() as group:
            watching = group.create_task(sightings.watch(lambda: [target], sleep))
            reading = group.create_task(read(target, visit))
            await soon(later.asked.wait())
            naps.release()
            await seen(target, sightings, now)
            now += 10.0
            later.goes.set()
            await soon(reading)
            watching.cancel()
        assert (visit.gpu, visit.gpu_source) == (30 * SECOND, "reported")
        await sightings.aclose()
        await target.aclose()


async def test_batches_come_as_they_are_written() -> None:
    gate = asyncio.Event()

    async def generate(prompt: str) -> AsyncGenerator[Any, None]:
        yield "he"
        await gate.wait()
        yield "llo"

    async with deployed(generate) as (upstream, _), aclosing(upstream.events(ask())) as batches:
        assert await soon(anext(batches)) == [Text("he")]
        gate.set()
        assert await soon(anext(batches)) == [Text("llo")]


# --- the configuration ---


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({"function": None}, "either function"),
        ({"class": "M", "method": "f"}, "either function"),
        ({"function": None, "class": "M"}, "belong together"),
        ({"parameters": {"a": 1}}, "a function has none"),
        ({"request_fields": {"a": "b"}}, "prompt alone"),
        ({"forward": "all"}, "prompt alone"),
        ({"queue": "q"}, "stream: queue"),
        ({"options": {"gpus": "H100"}}, "no option gpus"),
        ({"app": ""}, "match pattern"),
        ({"app": "my app"}, "match pattern"),
        ({"stream": "queue", "queue": "a/b"}, "match pattern"),
        ({"url": "http://a"}, "Extra inputs"),
    ],
)
def test_what_is_refused(config: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        ModalConfig.model_validate({"app": "demo", "function": "f", **config})


def test_a_queue_has_a_name_that_modal_takes() -> None:
    config = {"function": "f", "stream": "queue"}
    assert ModalConfig.model_validate({"app": "demo", **config}).queue_name == "demo-pieces"
    assert len(ModalConfig.model_validate({"app": "a" * 64, **config}).queue_name) == 64


@pytest.mark.parametrize(("stream", "said"), [("auto", 1), ("generator", 1), ("none", 0), ("queue", 0)])
def test_what_runs_on_is_remarked(stream: str, said: int) -> None:
    config = ModalConfig.model_validate({"app": "demo", "function": "f", "stream": stream})
    assert len(config.remarks) == said
    assert all("runs on" in remark for remark in config.remarks)

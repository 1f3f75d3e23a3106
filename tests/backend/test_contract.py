"""The contract on a real socket: whole answers, streams, stops, errors before and after the first piece."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from modal_backend.answers import End, answer
from modal_backend.contract import Limits, contract_app
from modal_backend.engine import (
    Alternative,
    BadRequest,
    Busy,
    ContextLengthExceeded,
    Done,
    EngineDead,
    EngineError,
    Logprob,
    OutOfMemory,
    Piece,
    Request,
    Usage,
)
from modal_backend.fields import ToContinue
from tests.backend.conftest import Host, Wire
from tests.backend.scripted import Embedder, Scripted, Step, pieces

ERRORS: list[tuple[type[EngineError], str, int]] = [
    (BadRequest, "bad_request", 400),
    (ContextLengthExceeded, "context_length_exceeded", 400),
    (Busy, "busy", 429),
    (OutOfMemory, "out_of_memory", 503),
    (EngineDead, "engine_dead", 503),
]


class Spoken:
    """What one request to one engine gave."""

    def __init__(self, engine: Scripted, response: httpx.Response) -> None:
        self.engine, self.response = engine, response

    @property
    def body(self) -> Any:
        return json.loads(self.response.content)

    @property
    def events(self) -> list[Any]:
        """The data of each event, ``[DONE]`` as itself; comments left out."""
        blocks = [block for block in self.response.content.split(b"\n\n") if block and block[:1] != b":"]
        assert all(block.startswith(b"data: ") and b"\n" not in block for block in blocks)
        return ["[DONE]" if block == b"data: [DONE]" else json.loads(block[6:]) for block in blocks]

    @property
    def text(self) -> str:
        return "".join(event.get("prompt", "") for event in self.events if event != "[DONE]")


@pytest.fixture
def ask(host: Host, client: httpx.AsyncClient) -> Callable[..., Any]:
    async def asking(engine: Any, /, **given_fields: Any) -> Spoken:
        url = host.serve(contract_app(engine))
        return Spoken(engine, await client.post(url, json={"prompt": "p", **given_fields}))

    return asking


# --- answers ---


async def test_a_whole_answer(ask: Any) -> None:
    said = await ask(Scripted(*pieces("Hel", "lo", " 你好 🗼")), unknown=1)
    assert said.response.status_code == 200
    assert said.response.headers["content-type"] == "application/json"
    assert said.body == {
        "prompt": "Hello 你好 🗼",
        "finish_reason": "stop",
        "usage": {"prompt_tokens": 7, "completion_tokens": 3},
        "ignored": ["unknown"],
    }


async def test_a_stream(ask: Any) -> None:
    said = await ask(Scripted(*pieces("Hel", "lo", " 你好 🗼", reason="length")), stream=True, unknown=1)
    assert said.response.status_code == 200
    assert said.response.headers["content-type"] == "text/event-stream"
    assert said.response.headers["cache-control"] == "no-cache, no-transform"
    assert said.events == [
        {"prompt": "Hel"},
        {"prompt": "lo"},
        {"prompt": " 你好 🗼"},
        {
            "finish_reason": "length",
            "usage": {"prompt_tokens": 7, "completion_tokens": 3},
            "ignored": ["unknown"],
        },
        "[DONE]",
    ]


@pytest.mark.parametrize("stream", [False, True])
async def test_usage_that_an_engine_does_not_know_is_left_out(ask: Any, stream: bool) -> None:
    said = await ask(Scripted(Piece("a"), Done("stop")), stream=stream)
    assert "usage" not in (said.events[-2] if stream else said.body)


@pytest.mark.parametrize("stream", [False, True])
async def test_echo_repeats_the_prompt_first(ask: Any, stream: bool) -> None:
    said = await ask(Scripted(*pieces("lo", " you")), prompt="Hel", echo=True, stream=stream)
    assert (said.text if stream else said.body["prompt"]) == "Hello you"


@pytest.mark.parametrize("stream", [False, True])
async def test_echo_of_an_answer_without_text(ask: Any, stream: bool) -> None:
    said = await ask(Scripted(Done("stop")), prompt="Hel", echo=True, stream=stream)
    assert (said.text if stream else said.body["prompt"]) == "Hel"


async def test_events_hold_no_line_break_of_any_kind(ask: Any) -> None:
    text = "a\nb\rc\u2028d\u2029e\x85f\x0bg\x1ch"
    said = await ask(Scripted(*pieces(text)), stream=True)
    assert said.text == text
    lines = said.response.content.decode().splitlines()
    assert [line for line in lines if line and not line.startswith("data: ")] == []


@pytest.mark.parametrize("stream", [False, True])
async def test_half_a_surrogate_pair_from_an_engine_breaks_nothing(ask: Any, stream: bool) -> None:
    said = await ask(Scripted(*pieces("a\ud800b")), stream=stream)
    assert (said.text if stream else said.body["prompt"]) == "a?b"


async def test_pieces_reach_the_client_as_they_are_made(host: Host, wire: type[Wire]) -> None:
    gate = asyncio.Event()
    engine = Scripted(Piece("one"), gate, Piece("two"), Done("stop"))
    held = await wire.post(host.serve(contract_app(engine)), {"prompt": "p", "stream": True})
    assert b'data: {"prompt":"one"}' in await held.until(b"one\"}\n\n")
    gate.set()
    assert b"[DONE]" in await held.until(b"data: [DONE]\n\n")
    await held.leave()


# --- stops ---


@pytest.mark.parametrize("stream", [False, True])
async def test_a_stop_cuts_whatever_the_engine_does(ask: Any, stream: bool) -> None:
    engine = Scripted(*pieces("Hello wo", "r", "ld and", " more"))
    said = await ask(engine, stop=["world", "more"], stream=stream)
    end = said.events[-2] if stream else said.body
    assert (said.text if stream else said.body["prompt"]) == "Hello "
    assert end["finish_reason"] == "stop"
    assert end["usage"] == {"prompt_tokens": 7, "completion_tokens": 3}


async def test_a_stop_closes_the_engine_before_the_rest_is_made(ask: Any) -> None:
    said = await ask(Scripted(Piece("a STOP b"), asyncio.Event(), Done("length")), stop=["STOP"])
    assert said.body["prompt"] == "a "
    assert said.engine.closed.is_set()
    assert said.engine.taken == 1


@pytest.mark.parametrize("stream", [False, True])
async def test_the_beginning_of_a_stop_is_given_out_when_the_text_ends(ask: Any, stream: bool) -> None:
    said = await ask(Scripted(*pieces("Hello wor", reason="length")), stop=["world"], stream=stream)
    assert (said.text if stream else said.body["prompt"]) == "Hello wor"
    assert (said.events[-2] if stream else said.body)["finish_reason"] == "length"


async def test_a_stop_in_the_prompt_does_not_stop_its_echo(ask: Any) -> None:
    said = await ask(Scripted(*pieces("a STOP b")), prompt="say STOP", echo=True, stop=["STOP"])
    assert said.body["prompt"] == "say STOPa "


@given(
    texts=st.lists(st.text(alphabet="ab\n好", max_size=4), max_size=8),
    stops=st.lists(st.text(alphabet="ab好", min_size=1, max_size=3), max_size=3),
    echo=st.booleans(),
)
def test_a_whole_answer_is_the_collected_stream(texts: list[str], stops: list[str], echo: bool) -> None:
    def spoken(cut: list[str]) -> tuple[str, End]:
        asked = ToContinue(Request(prompt="ab", stop=tuple(stops)), echo=echo)
        engine = Scripted(*(Piece(text) for text in cut), Done("length"))
        return asyncio.run(collect(engine, asked))

    assert spoken(texts) == spoken(["".join(texts)]) == spoken(list("".join(texts)))


async def collect(engine: Scripted, asked: ToContinue) -> tuple[str, End]:
    text = ""
    async for item in answer(engine, asked):
        if isinstance(item, End):
            return text, item
        text += item.text
    raise AssertionError("no end")


# --- logprobs ---


def chosen(token: str, *others: str) -> Logprob:
    return Logprob(token, -0.25, token.encode(), tuple(Alternative(other, -1.5) for other in others))


def shown(token: str, *others: str) -> dict[str, Any]:
    top = [{"token": other, "logprob": -1.5, "bytes": None} for other in others]
    return {"token": token, "logprob": -0.25, "bytes": list(token.encode()), "top_logprobs": top}


@pytest.mark.parametrize("stream", [False, True])
async def test_logprobs_have_the_shape_of_chat_completions(ask: Any, stream: bool) -> None:
    engine = Scripted(Piece("He", (chosen("He", "he", "She"),)), Piece("好", (chosen("好"),)), Done("stop"))
    said = await ask(engine, logprobs=2, stream=stream)
    wanted = [shown("He", "he", "She"), shown("好")]
    assert engine.requests[0].logprobs == 2
    if stream:
        assert [event["logprobs"] for event in said.events[:2]] == [[wanted[0]], [wanted[1]]]
    else:
        assert said.body["logprobs"] == wanted


@pytest.mark.parametrize("stream", [False, True])
async def test_without_being_asked_for_there_are_no_logprobs(ask: Any, stream: bool) -> None:
    said = await ask(Scripted(Piece("He", (chosen("He"),)), Done("stop")), stream=stream)
    assert "logprobs" not in (said.events[0] if stream else said.body)


async def test_logprobs_never_tell_more_than_the_text(ask: Any) -> None:
    steps = [Piece("a ", (chosen("a "),)), Piece("big STOP", (chosen("big"), chosen(" ST"), chosen("OP")))]
    said = await ask(Scripted(*steps, Piece("x", (chosen("x"),)), Done("stop")), stop=["STOP"], logprobs=0)
    assert said.body["prompt"] == "a big "
    assert said.body["logprobs"] == [shown("a "), shown("big")]


async def test_logprobs_wait_for_the_text_they_belong_to(ask: Any) -> None:
    steps = [Piece("a S", (chosen("a S"),)), Piece("T", (chosen("T"),)), Piece("x", (chosen("x"),))]
    said = await ask(Scripted(*steps, Done("stop")), stop=["STOP"], logprobs=0, stream=True)
    assert said.events[0] == {"prompt": "a ", "logprobs": []}
    assert said.events[1] == {"prompt": "STx", "logprobs": [shown("a S"), shown("T"), shown("x")]}


@pytest.mark.parametrize("impossible", [float("-inf"), float("nan")])
async def test_a_logprob_that_json_cannot_hold(ask: Any, impossible: float) -> None:
    said = await ask(Scripted(Piece("a", (Logprob("a", impossible),)), Done("stop")), logprobs=0)
    assert said.body["logprobs"][0]["logprob"] == -9999.0


# --- failures ---


@pytest.mark.parametrize(("kind", "code", "status"), ERRORS)
@pytest.mark.parametrize("stream", [False, True])
async def test_a_failure_before_the_first_piece_is_a_status(
    ask: Any, kind: type[EngineError], code: str, status: int, stream: bool
) -> None:
    said = await ask(Scripted(kind("why")), stream=stream)
    assert said.response.status_code == status
    assert said.response.headers["content-type"] == "application/json"
    assert said.body == {"error": {"message": "why", "code": code, "status": status}}


@pytest.mark.parametrize(("kind", "code", "status"), ERRORS)
async def test_a_failure_after_the_first_piece_is_an_event_and_no_end(
    ask: Any, kind: type[EngineError], code: str, status: int
) -> None:
    said = await ask(Scripted(Piece("a"), kind("why")), stream=True)
    assert said.response.status_code == 200
    assert said.events == [{"prompt": "a"}, {"error": {"message": "why", "code": code, "status": status}}]


@pytest.mark.parametrize(("kind", "code", "status"), ERRORS)
async def test_a_failure_in_a_whole_answer_is_a_status_at_any_time(
    ask: Any, kind: type[EngineError], code: str, status: int
) -> None:
    said = await ask(Scripted(Piece("a"), kind("why")))
    assert (said.response.status_code, said.body["error"]["code"]) == (status, code)


@pytest.mark.parametrize("steps", [(), (Piece("a"),)])
@pytest.mark.parametrize("stream", [False, True])
async def test_an_engine_that_ends_without_a_reason_has_failed(
    ask: Any, steps: tuple[Step, ...], stream: bool
) -> None:
    said = await ask(Scripted(*steps), stream=stream)
    assert b"[DONE]" not in said.response.content
    assert b'"code":"engine_dead"' in said.response.content
    assert b"finish_reason" not in said.response.content


@pytest.mark.parametrize("steps", [(), (Piece("a"),)])
@pytest.mark.parametrize("stream", [False, True])
async def test_an_unforeseen_failure_is_logged_and_not_shown(
    ask: Any, caplog: pytest.LogCaptureFixture, steps: tuple[Step, ...], stream: bool
) -> None:
    said = await ask(Scripted(*steps, ZeroDivisionError("/secret/path")), stream=stream)
    assert b'"code":"internal_error","status":500' in said.response.content
    assert b"secret" not in said.response.content
    assert b"[DONE]" not in said.response.content
    assert "/secret/path" in caplog.text
    assert said.response.status_code == (200 if stream and steps else 500)


async def test_a_bad_field_never_reaches_the_engine(ask: Any) -> None:
    said = await ask(Scripted(*pieces("a")), temperature=3, stream=True)
    message = "`temperature` must be from 0 to 2, not 3"
    assert (said.response.status_code, said.body["error"]["message"]) == (400, message)
    assert said.engine.requests == []


async def test_a_dead_engine_is_told_without_asking_it(ask: Any) -> None:
    said = await ask(Scripted(*pieces("a"), broken="the engine process is gone"))
    assert said.response.status_code == 503
    assert said.body["error"]["code"] == "engine_dead"
    assert said.engine.requests == []


# --- silence ---


async def test_a_stream_without_a_piece_sends_headers_and_comments(host: Host, wire: type[Wire]) -> None:
    gate = asyncio.Event()
    app = contract_app(Scripted(gate, *pieces("late")), Limits(first_byte=0, keep_alive=0.001))
    held = await wire.post(host.serve(app), {"prompt": "p", "stream": True})
    assert b" 200 OK" in await held.until(b"\r\n\r\n")
    for _ in range(3):
        assert b": keep-alive" in await held.until(b": keep-alive\n\n")
    gate.set()
    rest = await held.until(b"data: [DONE]\n\n")
    assert b'data: {"prompt":"late"}\n\n' in rest
    assert await held.until(b"0\r\n\r\n")  # the body ends cleanly
    await held.leave()


async def test_silence_after_a_piece_is_broken_too(host: Host, wire: type[Wire]) -> None:
    app = contract_app(Scripted(Piece("a"), asyncio.Event()), Limits(first_byte=0.001, keep_alive=0.001))
    held = await wire.post(host.serve(app), {"prompt": "p", "stream": True})
    await held.until(b'data: {"prompt":"a"}\n\n')
    for _ in range(3):
        await held.until(b": keep-alive\n\n")
    await held.leave()


async def test_a_failure_after_an_early_first_byte_is_an_event(host: Host, wire: type[Wire]) -> None:
    gate = asyncio.Event()
    app = contract_app(Scripted(gate, Busy("full")), Limits(first_byte=0))
    held = await wire.post(host.serve(app), {"prompt": "p", "stream": True})
    assert b" 200 OK" in await held.until(b": keep-alive\n\n")
    gate.set()
    rest = await held.until(b"0\r\n\r\n")
    assert b'data: {"error":{"message":"full","code":"busy","status":429}}\n\n' in rest
    assert b"[DONE]" not in rest
    await held.leave()


# --- embeddings ---


async def test_embeddings(ask: Any) -> None:
    said = await ask(Embedder(), prompt=None, input=["abc", ""], temperature=1)
    assert said.body == {
        "embeddings": [[3.0, 0.5], [0.0, 0.5]],
        "usage": {"prompt_tokens": 3, "completion_tokens": 0},
        "ignored": ["temperature"],
    }


async def test_an_engine_that_does_not_embed_says_so(ask: Any) -> None:
    said = await ask(Scripted(*pieces("a")), prompt=None, input=["abc"])
    assert said.response.status_code == 400
    assert "scripted makes no embeddings" in said.body["error"]["message"]


async def test_an_engine_that_only_embeds_says_so(ask: Any) -> None:
    said = await ask(Embedder())
    assert said.response.status_code == 400
    assert "embedder continues no prompts" in said.body["error"]["message"]


# --- HTTP ---


async def test_health_says_what_serves(host: Host, client: httpx.AsyncClient) -> None:
    url = host.serve(contract_app(Scripted(honours=frozenset({"seed"}))))
    answered = await client.get(f"{url}/health")
    assert answered.status_code == 200
    assert answered.json() == {"status": "ok", "engine": "scripted", "note": "for tests", "honours": ["seed"]}
    assert (await client.head(f"{url}/health")).status_code == 200


async def test_health_of_a_dead_engine(host: Host, client: httpx.AsyncClient) -> None:
    answered = await client.get(host.serve(contract_app(Scripted(broken="gone"))) + "/health")
    assert answered.status_code == 503
    assert answered.json() == {"error": {"message": "gone", "code": "engine_dead", "status": 503}}


@pytest.mark.parametrize("path", ["", "/", "/prompt", "/prompt/"])
async def test_a_prompt_is_taken_at(host: Host, client: httpx.AsyncClient, path: str) -> None:
    url = host.serve(contract_app(Scripted(*pieces("a"))))
    assert (await client.post(url + path, json={"prompt": "p"})).json()["prompt"] == "a"


@pytest.mark.parametrize(
    ("asked_for", "wanted"),
    [
        ("GET /", (405, "method_not_allowed", "POST")),
        ("PUT /prompt", (405, "method_not_allowed", "POST")),
        ("POST /health", (405, "method_not_allowed", "GET, HEAD")),
        ("POST /v1/chat/completions", (404, "not_found", None)),
        ("GET /healthy", (404, "not_found", None)),
    ],
)
async def test_what_is_not_there(
    host: Host, client: httpx.AsyncClient, asked_for: str, wanted: tuple[int, str, str | None]
) -> None:
    method, path = asked_for.split()
    answered = await client.request(method, host.serve(contract_app(Scripted())) + path)
    error = answered.json()["error"]
    assert (answered.status_code, error["code"], answered.headers.get("allow")) == wanted
    assert error["status"] == answered.status_code


async def test_the_body_is_bounded_by_its_declared_length(host: Host, wire: type[Wire]) -> None:
    engine = Scripted()
    held = await wire.send(host.serve(contract_app(engine, Limits(max_body=100))), b"", length=101)
    answered = await held.until(b"}}")  # though not a byte of the body was sent
    assert b" 413 " in answered
    assert b"at most 100 bytes" in answered
    await held.leave()
    assert engine.requests == []


async def test_a_body_of_undeclared_length_is_bounded(host: Host, client: httpx.AsyncClient) -> None:
    async def chunks() -> Any:
        for _ in range(11):
            yield b" " * 10

    url = host.serve(contract_app(Scripted(), Limits(max_body=100)))
    answered = await client.post(url, content=chunks())
    assert (answered.status_code, answered.json()["error"]["code"]) == (413, "request_too_large")


async def test_a_body_of_exactly_the_limit_is_read(host: Host, client: httpx.AsyncClient) -> None:
    url = host.serve(contract_app(Scripted(*pieces("a")), Limits(max_body=100)))
    assert (await client.post(url, content=b'{"prompt": "p"}'.ljust(100))).status_code == 200


async def test_other_protocols_are_turned_away() -> None:
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    async def receive() -> Any:
        return incoming.pop(0)

    app = contract_app(Scripted())
    incoming = [{"type": "lifespan.startup"}, {"type": "lifespan.shutdown"}]
    await app({"type": "lifespan"}, receive, send)
    await app({"type": "websocket", "path": "/"}, receive, send)
    assert [message["type"] for message in sent] == [
        "lifespan.startup.complete",
        "lifespan.shutdown.complete",
        "websocket.close",
    ]


async def test_many_at_once_do_not_mix(host: Host, client: httpx.AsyncClient) -> None:
    class Mirror(Scripted):
        async def generate(self, request: Request) -> Any:
            for count, char in enumerate(request.prompt, 1):
                await asyncio.sleep(0)
                yield Piece(char, usage=Usage(1, count))
            yield Done("stop", Usage(1, len(request.prompt)))

    url = host.serve(contract_app(Mirror()))
    prompts = [f"prompt {number} " * 20 for number in range(32)]
    streams = [False, True] * 16
    asking = zip(prompts, streams, strict=True)
    answers = await asyncio.gather(
        *(client.post(url, json={"prompt": prompt, "stream": stream}) for prompt, stream in asking)
    )
    for prompt, answered, streamed in zip(prompts, answers, streams, strict=True):
        said = Spoken(Scripted(), answered)
        assert (said.text if streamed else said.body["prompt"]) == prompt

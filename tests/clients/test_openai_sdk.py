"""The OpenAI SDK, unchanged, against a running gateway: answers, streams, and every way to fail.

Rule: what is asserted is what its users see: returned objects, raised classes and their texts.
"""

from __future__ import annotations

import re
import socket
from collections.abc import AsyncIterator, Iterator
from typing import Any

import openai
import pytest
from openai import AsyncOpenAI, OpenAI
from openai.types.chat import (
    ChatCompletionContentPartTextParam,
    ChatCompletionMessageParam,
    ChatCompletionTokenLogprob,
)

from tests.clients.conftest import MAX_BODY, Guarded

GREETING = "你好！我是人工智能助手 ChatGLM2-6B，很高兴见到你，欢迎问我任何问题。"
STOPPED = "你好！我是人工智能助手 ChatGLM2-6B，很高兴见到你，"
MODEL = "chatglm2-6b"
TEXT: ChatCompletionContentPartTextParam = {"type": "text", "text": "Be kind. "}
IMAGE = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AA=="}}
COUNTED = "1 2 3 4 5 6 7 8 9 10"


def said(text: str) -> list[ChatCompletionMessageParam]:
    return [{"role": "user", "content": text}]


@pytest.fixture
def client(demo: str) -> Iterator[OpenAI]:
    with OpenAI(base_url=f"{demo}/v1", api_key="unused", max_retries=0) as client:
        yield client


@pytest.fixture
async def async_client(demo: str) -> AsyncIterator[AsyncOpenAI]:
    async with AsyncOpenAI(base_url=f"{demo}/v1", api_key="unused", max_retries=0) as client:
        yield client


@pytest.fixture
def strict(guarded: Guarded) -> Iterator[OpenAI]:
    """A client of the gateway with keys; it does not try again, so that each failure shows."""
    with OpenAI(base_url=f"{guarded.url}/v1", api_key=guarded.key, max_retries=0) as client:
        yield client


# --- answers ---


def test_a_whole_answer_has_all_that_openai_sends(client: OpenAI) -> None:
    answer = client.chat.completions.create(model="gpt-3.5-turbo", messages=said("你好"))
    assert answer.id.startswith("chatcmpl-")
    assert (answer.object, answer.model) == ("chat.completion", "gpt-3.5-turbo")
    [choice] = answer.choices
    assert (choice.index, choice.finish_reason, choice.logprobs) == (0, "stop", None)
    assert (choice.message.role, choice.message.content) == ("assistant", GREETING)
    assert answer.usage
    assert answer.usage.completion_tokens > 0 < answer.usage.prompt_tokens
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens
    assert (answer._request_id or "").startswith("req_")


def test_the_environment_alone_configures_it(demo_command: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_BASE_URL", f"{demo_command}/v1")
    monkeypatch.setenv("OPENAI_API_KEY", "unused")
    with OpenAI() as client:
        answer = client.chat.completions.create(model="a-name-nobody-configured", messages=said("你好"))
    assert answer.choices[0].message.content == GREETING
    assert answer.model == "a-name-nobody-configured"


def test_a_stream_is_the_whole_answer_in_pieces(client: OpenAI) -> None:
    with client.chat.completions.create(model=MODEL, messages=said("count to 10"), stream=True) as stream:
        chunks = list(stream)
    assert {(chunk.id, chunk.created, chunk.model, chunk.object) for chunk in chunks} == {
        (chunks[0].id, chunks[0].created, MODEL, "chat.completion.chunk")
    }
    deltas = [chunk.choices[0].delta for chunk in chunks]
    assert [delta.role for delta in deltas] == ["assistant"] + [None] * (len(chunks) - 1)
    assert "".join(delta.content or "" for delta in deltas) == COUNTED
    assert len([delta for delta in deltas if delta.content]) > 1
    assert [c.choices[0].finish_reason for c in chunks] == [None] * (len(chunks) - 1) + ["stop"]
    assert [chunk.usage for chunk in chunks] == [None] * len(chunks)


def test_a_stream_says_its_usage_when_asked(client: OpenAI) -> None:
    whole = client.chat.completions.create(model=MODEL, messages=said("count to 10"))
    with client.chat.completions.create(
        model=MODEL,
        messages=said("count to 10"),
        stream=True,
        stream_options={"include_usage": True},
    ) as stream:
        *others, last = stream
    assert all(chunk.choices and chunk.usage is None for chunk in others)
    assert (last.choices, last.usage) == ([], whole.usage)


def test_the_accumulating_stream_helper_ends_with_the_whole_answer(client: OpenAI) -> None:
    with client.chat.completions.stream(model=MODEL, messages=said("你好")) as stream:
        pieces = [event.delta for event in stream if event.type == "content.delta"]
        final = stream.get_final_completion()
    assert "".join(pieces) == final.choices[0].message.content == GREETING
    assert final.choices[0].finish_reason == "stop"


@pytest.mark.parametrize(
    ("stop", "text"),
    [
        ("欢迎", STOPPED),
        (["欢迎"], STOPPED),
        (["任何", "欢迎", "，"], "你好！我是人工智能助手 ChatGLM2-6B"),
        (["。", "not there"], GREETING[:-1]),
        (["你好"], ""),
        ("not there", GREETING),
        (["|", ".*", "(?"], GREETING),  # literal, whatever a regular expression would make of it
        ([""], GREETING),
        ([], GREETING),
    ],
)
def test_stops_end_the_text_whole_and_streamed(client: OpenAI, stop: str | list[str], text: str) -> None:
    whole = client.chat.completions.create(model=MODEL, messages=said("你好"), stop=stop)
    assert (whole.choices[0].message.content, whole.choices[0].finish_reason) == (text, "stop")
    with client.chat.completions.create(
        model=MODEL, messages=said("你好"), stop=stop, stream=True
    ) as stream:
        chunks = list(stream)
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == text
    assert chunks[-1].choices[0].finish_reason == "stop"


def test_n_choices_share_one_prompt(client: OpenAI) -> None:
    one = client.chat.completions.create(model=MODEL, messages=said("你好"))
    two = client.chat.completions.create(model=MODEL, messages=said("你好"), n=2)
    assert [(c.index, c.message.content) for c in two.choices] == [(0, GREETING), (1, GREETING)]
    assert one.usage and two.usage
    assert two.usage.prompt_tokens == one.usage.prompt_tokens
    assert two.usage.completion_tokens == 2 * one.usage.completion_tokens


def test_n_choices_stream_side_by_side(client: OpenAI) -> None:
    texts, finished = ["", ""], []
    with client.chat.completions.create(model=MODEL, messages=said("你好"), n=2, stream=True) as stream:
        for chunk in stream:
            for choice in chunk.choices:
                assert choice.index not in finished
                texts[choice.index] += choice.delta.content or ""
                finished += [choice.index] if choice.finish_reason else []
    assert (texts, sorted(finished)) == ([GREETING, GREETING], [0, 1])


def test_logprobs_cover_the_text_whole_and_streamed(client: OpenAI) -> None:
    asked: dict[str, Any] = {"model": MODEL, "messages": said("你好"), "logprobs": True, "top_logprobs": 2}
    choice = client.chat.completions.create(**asked).choices[0]
    assert choice.logprobs and choice.logprobs.content
    assert "".join(token.token for token in choice.logprobs.content) == GREETING
    assert all(token.logprob <= 0 and len(token.top_logprobs) == 2 for token in choice.logprobs.content)
    assert b"".join(bytes(token.bytes or ()) for token in choice.logprobs.content) == GREETING.encode()
    tokens: list[ChatCompletionTokenLogprob] = []
    with client.chat.completions.create(**asked, stream=True) as stream:
        for chunk in stream:
            tokens += (chunk.choices[0].logprobs and chunk.choices[0].logprobs.content) or []
    assert tokens == choice.logprobs.content


@pytest.mark.parametrize("field", ["max_tokens", "max_completion_tokens"])
def test_a_token_limit_ends_with_length(client: OpenAI, field: str) -> None:
    limit: dict[str, Any] = {field: 3}
    answer = client.chat.completions.create(model=MODEL, messages=said("count to 10"), **limit)
    [choice] = answer.choices
    assert choice.finish_reason == "length"
    assert choice.message.content and COUNTED.startswith(choice.message.content)
    assert len(choice.message.content) < len(COUNTED)
    assert answer.usage and answer.usage.completion_tokens == 3


def test_max_completion_tokens_goes_before_max_tokens(client: OpenAI) -> None:
    answer = client.chat.completions.create(
        model=MODEL, messages=said("count to 10"), max_tokens=1, max_completion_tokens=3
    )
    assert answer.usage and answer.usage.completion_tokens == 3


def test_every_kind_of_message_is_taken(client: OpenAI) -> None:
    answer = client.chat.completions.create(
        model=MODEL,
        messages=[
            {"role": "developer", "content": "Be brief."},
            {"role": "system", "content": [TEXT, TEXT]},
            {"role": "user", "content": "count to 3", "name": "ada"},
            {"role": "assistant", "content": None},
            {"role": "user", "content": [{"type": "text", "text": "你好"}]},
        ],
    )
    assert answer.choices[0].message.content == GREETING


def test_headers_tell_about_the_answer(client: OpenAI) -> None:
    raw = client.chat.completions.with_raw_response.create(
        model=MODEL, messages=said("你好"), extra_body={"no_such_field": 1, "store": True}
    )
    assert raw.headers["content-type"] == "application/json"
    assert raw.headers["x-request-id"] == raw.parse()._request_id
    assert raw.headers["x-gateway-usage"] in ("upstream", "tokenizer", "estimate")
    assert set(raw.headers["x-gateway-ignored"].split(", ")) == {"no_such_field", "store"}


def test_headers_of_a_stream_come_before_its_text(client: OpenAI) -> None:
    with client.chat.completions.with_streaming_response.create(
        model=MODEL, messages=said("你好"), stream=True
    ) as raw:
        assert raw.headers["content-type"].startswith("text/event-stream")
        assert raw.headers["x-request-id"].startswith("req_")
        text = "".join(chunk.choices[0].delta.content or "" for chunk in raw.parse())
    assert text == GREETING


async def test_the_asynchronous_client_does_the_same(async_client: AsyncOpenAI) -> None:
    create = async_client.chat.completions.create
    whole = await create(model=MODEL, messages=said("你好"), stop=["欢迎"])
    assert whole.choices[0].message.content == STOPPED
    text = ""
    async with await create(model=MODEL, messages=said("你好"), stop=["欢迎"], stream=True) as stream:
        async for chunk in stream:
            text += chunk.choices[0].delta.content or ""
    assert text == STOPPED


# --- models ---


def test_models_are_listed_and_found(client: OpenAI) -> None:
    names = [model.id for model in client.models.list()]
    assert names[0] == MODEL
    assert {"gpt-3.5-turbo", "gpt-4o-mini"} <= set(names)
    for name in names:
        model = client.models.retrieve(name)
        assert (model.id, model.object) == (name, "model")


# --- failures before the answer ---


def test_400_names_the_field_and_what_is_wrong(strict: OpenAI) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        strict.chat.completions.create(model="obedient-7b", messages=said("say: hi"), temperature=3)
    assert str(caught.value).startswith("Error code: 400 - temperature: ")
    assert (caught.value.param, caught.value.type) == ("temperature", "invalid_request_error")


@pytest.mark.parametrize(
    ("param", "asked"),
    [
        ("messages", {"messages": []}),
        ("messages[0].role", {"messages": [{"role": "robot", "content": "hi"}]}),
        ("stop", {"stop": [str(number) for number in range(17)]}),
        ("n", {"n": 9}),
        ("max_tokens", {"max_tokens": 0}),
        ("logprobs", {"logprobs": True}),  # this model does not declare them
        ("messages[0].content[0].type", {"messages": [{"role": "user", "content": [IMAGE]}]}),
    ],
)
def test_400_says_which_parameter(strict: OpenAI, param: str, asked: dict[str, Any]) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        strict.chat.completions.create(**{"model": "obedient-7b", "messages": said("say: hi"), **asked})
    assert caught.value.param == param
    assert len(caught.value.message) > len("Error code: 400 - ")


def test_16_stops_are_taken(strict: OpenAI) -> None:
    stops = [f"<{number}>" for number in range(16)]
    answer = strict.chat.completions.create(
        model="obedient-7b", messages=said("say: a<7>b"), stop=stops
    )
    assert answer.choices[0].message.content == "a"


def test_401_for_a_wrong_key(guarded: Guarded) -> None:
    with OpenAI(base_url=f"{guarded.url}/v1", api_key="sk-wrong") as client:
        with pytest.raises(openai.AuthenticationError) as caught:
            client.chat.completions.create(model="obedient-7b", messages=said("say: hi"))
        with pytest.raises(openai.AuthenticationError):
            client.models.list()
    assert caught.value.code == "invalid_api_key"
    assert caught.value.response.headers["www-authenticate"] == "Bearer"
    assert "sk-wrong" not in str(caught.value)


def test_403_for_a_name_that_is_not_this_machine(client: OpenAI) -> None:
    with pytest.raises(openai.PermissionDeniedError) as caught:
        client.chat.completions.create(
            model=MODEL, messages=said("你好"), extra_headers={"host": "rebound.example"}
        )
    assert caught.value.code == "host_not_allowed"


def test_404_names_the_nearest_model(strict: OpenAI) -> None:
    for call in (
        lambda: strict.chat.completions.create(model="obedient-7", messages=said("say: hi")),
        lambda: strict.models.retrieve("obedient-7"),
    ):
        with pytest.raises(openai.NotFoundError, match=r"obedient-7`.*`obedient-7b`") as caught:
            call()
        assert caught.value.code == "model_not_found"


def test_404_for_a_route_that_does_not_exist(strict: OpenAI) -> None:
    with pytest.raises(openai.NotFoundError, match="moderations"):
        strict.moderations.create(input="hi")


def test_a_doubled_v1_is_explained(guarded: Guarded) -> None:
    with (
        OpenAI(base_url=f"{guarded.url}/v1/v1", api_key=guarded.key) as client,
        pytest.raises(openai.NotFoundError, match="/v1/v1"),
    ):
        client.chat.completions.create(model="obedient-7b", messages=said("say: hi"))


def test_413_for_a_body_that_is_too_large(strict: OpenAI) -> None:
    with pytest.raises(openai.APIStatusError) as caught:
        strict.chat.completions.create(model="obedient-7b", messages=said("say: " + "x" * MAX_BODY))
    assert (caught.value.status_code, caught.value.code) == (413, "request_too_large")


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
@pytest.mark.parametrize(
    ("told", "raised", "code"),
    [
        ("refuse 400 bad_request: no", openai.BadRequestError, "400"),
        ("refuse 400 context_length_exceeded: no", openai.BadRequestError, "400 context_length_exceeded"),
        ("refuse 401 unauthorized: no", openai.InternalServerError, "502 upstream_auth"),
        ("refuse 429 busy: no", openai.RateLimitError, "429 upstream_rate_limited"),
        ("refuse 500 oops: no", openai.InternalServerError, "502"),
        ("refuse 503 engine_dead: no", openai.InternalServerError, "503"),
    ],
)
def test_what_the_container_refuses_is_a_status(
    strict: OpenAI, told: str, raised: type[openai.APIStatusError], code: str, *, stream: bool
) -> None:
    with pytest.raises(raised) as caught:
        strict.chat.completions.create(model="obedient-7b", messages=said(told), stream=stream)
    status, _, named = code.partition(" ")
    assert caught.value.status_code == int(status)
    assert re.fullmatch(rf"Error code: {status} - .+", str(caught.value))
    assert named in str(caught.value.code)


def test_a_whole_answer_that_was_cut_is_an_error(strict: OpenAI) -> None:
    with pytest.raises(openai.InternalServerError) as caught:
        strict.chat.completions.create(model="obedient-7b", messages=said("cut: once upon a time"))
    assert caught.value.status_code == 502


# --- failures in the middle of a stream ---


@pytest.mark.parametrize("how", ["break", "cut", "drop"])
def test_a_stream_that_fails_raises_after_its_text(strict: OpenAI, how: str) -> None:
    text = ""
    with (
        strict.chat.completions.create(
            model="obedient-7b", messages=said(f"{how}: once upon a time"), stream=True
        ) as stream,
        pytest.raises(openai.APIError) as caught,
    ):
        for chunk in stream:
            assert chunk.choices[0].finish_reason is None
            text += chunk.choices[0].delta.content or ""
    assert text == "once upon a time"
    assert caught.value.message
    assert caught.value.code


async def test_a_stream_that_fails_raises_in_the_asynchronous_client(guarded: Guarded) -> None:
    async with AsyncOpenAI(base_url=f"{guarded.url}/v1", api_key=guarded.key, max_retries=0) as client:
        stream = await client.chat.completions.create(
            model="obedient-7b", messages=said("break: once upon"), stream=True
        )
        with pytest.raises(openai.APIError):
            async for _ in stream:
                pass


# --- connections ---


def test_a_client_that_stops_reading_frees_the_container(strict: OpenAI, guarded: Guarded) -> None:
    with strict.chat.completions.create(
        model="obedient-7b", messages=said("wait: one two"), stream=True
    ) as stream:
        text = ""
        while text != "one two":
            text += next(stream).choices[0].delta.content or ""
    assert guarded.container.hung_up.get(timeout=30) == "one two"


def test_a_client_that_runs_out_of_patience_frees_the_container(strict: OpenAI, guarded: Guarded) -> None:
    told = {"x-stainless-read-timeout": "600"}  # what it announces itself, the gateway keeps it within
    for patience in (0.3, 3.0, 20.0):  # seconds; a busy machine may need more to get as far as the container
        with pytest.raises(openai.APITimeoutError):
            strict.chat.completions.create(
                model="obedient-7b", messages=said("wait: for me"), timeout=patience, extra_headers=told
            )
        if "wait: for me" in [call["prompt"] for call in guarded.container.calls]:
            break
    assert guarded.container.hung_up.get(timeout=30) == "for me"


def test_no_gateway_at_all_is_a_connection_error() -> None:
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))  # bound, not listening: nobody else takes the port meanwhile
        url = f"http://127.0.0.1:{nobody.getsockname()[1]}/v1"
        with OpenAI(base_url=url, api_key="unused", max_retries=0) as client, pytest.raises(
            openai.APIConnectionError
        ):
            client.models.list()

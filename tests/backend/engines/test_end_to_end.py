"""A model with random weights behind the contract app behind the gateway, called by the OpenAI SDK."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from openai import AsyncOpenAI
from openai.types.chat import ChatCompletion

from gateway.app import build_app
from gateway.settings import settings_from
from modal_backend.contract import contract_app
from modal_backend.engines.transformers_engine import TransformersEngine
from tests.backend.conftest import Host
from tests.backend.engines.tiny import LENGTH
from tests.serve.house import BOUND, listening

pytestmark = pytest.mark.torch

GREEDY: dict[str, Any] = {"temperature": 0, "max_tokens": 40}
SAMPLED: dict[str, Any] = {"temperature": 1, "max_tokens": 40}
SCHEMA = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "maxLength": 12},
        "kind": {"enum": ["river", "bridge"]},
        "counts": {"type": "array", "items": {"type": "integer", "minimum": 0, "maximum": 99}, "maxItems": 3},
    },
    "required": ["name", "kind", "counts"],
    "additionalProperties": False,
}


@pytest.fixture
async def client(host: Host, engine: TransformersEngine) -> AsyncIterator[AsyncOpenAI]:
    upstream = {"url": host.serve(contract_app(engine)), "forward": ["json_schema"]}
    model = {"template": "plain", "logprobs": True, "upstream": upstream}
    settings = settings_from({"auth": {"mode": "none"}, "models": {"tiny": model}}, {})
    async with listening(build_app(settings, loopback=True)) as port:
        url = f"http://127.0.0.1:{port}/v1"
        async with AsyncOpenAI(base_url=url, api_key="unused", max_retries=0, timeout=BOUND) as made:
            yield made


async def ask(client: AsyncOpenAI, text: str = "the river runs 你好", **fields: Any) -> ChatCompletion:
    messages: Any = [{"role": "user", "content": text}]
    answer: ChatCompletion = await client.chat.completions.create(model="tiny", messages=messages, **fields)
    return answer


async def until(condition: Callable[[], bool]) -> None:
    """Bounded waiting for the decode loop's thread, which tells nobody what it does."""
    async with asyncio.timeout(BOUND):
        while not condition():  # noqa: ASYNC110 - there is no event to wait for
            await asyncio.sleep(0.001)


def said(answer: ChatCompletion) -> str:
    return answer.choices[0].message.content or ""


async def streamed(client: AsyncOpenAI, **fields: Any) -> tuple[list[str], str | None, Any]:
    """The pieces, why it ended, and the usage."""
    pieces, reason, usage = [], None, None
    stream: Any = await ask(client, stream=True, stream_options={"include_usage": True}, **fields)
    async for chunk in stream:
        usage = chunk.usage or usage
        for choice in chunk.choices:
            reason = choice.finish_reason or reason
            pieces += [choice.delta.content] if choice.delta.content else []
    return pieces, reason, usage


async def test_a_whole_answer_counts_as_the_model_s_tokenizer_does(
    client: AsyncOpenAI, engine: TransformersEngine
) -> None:
    answer = await ask(client, **GREEDY)
    prompt = engine._loaded.tokenizer.encode("the river runs 你好")
    assert answer.usage is not None
    assert answer.usage.completion_tokens == 40
    assert answer.usage.prompt_tokens == len(prompt)
    assert answer.choices[0].finish_reason == "length"
    assert said(answer)


async def test_a_stream_is_the_whole_answer_in_pieces(client: AsyncOpenAI) -> None:
    answer = await ask(client, **GREEDY)
    pieces, reason, usage = await streamed(client, **GREEDY)
    assert "".join(pieces) == said(answer)
    assert len(pieces) > 10
    assert reason == "length"
    assert answer.usage is not None
    assert (usage.prompt_tokens, usage.completion_tokens) == (
        answer.usage.prompt_tokens,
        answer.usage.completion_tokens,
    )


async def test_a_stop_ends_the_answer_and_frees_the_slot(
    client: AsyncOpenAI, engine: TransformersEngine
) -> None:
    full = said(await ask(client, **GREEDY))
    stop = full[20:23]
    before = engine.load.steps
    answer = await ask(client, **{**GREEDY, "max_tokens": 400}, stop=[stop])
    assert said(answer) == full[: full.index(stop)]
    assert answer.choices[0].finish_reason == "stop"
    pieces, reason, _ = await streamed(client, **{**GREEDY, "max_tokens": 400}, stop=[stop])
    assert ("".join(pieces), reason) == (said(answer), "stop")
    await until(lambda: engine.load.running == 0)
    assert engine.load.steps - before < 400  # of the 800 that two answers without a stop would take


async def test_a_seed_gives_the_same_answer_again(client: AsyncOpenAI) -> None:
    one, again, other = [said(await ask(client, **SAMPLED, seed=seed)) for seed in (1, 1, 2)]
    assert one == again != other
    pieces, _, _ = await streamed(client, **SAMPLED, seed=1)
    assert "".join(pieces) == one


async def test_logprobs_of_the_model_itself_arrive(client: AsyncOpenAI) -> None:
    answer = await ask(client, **GREEDY, logprobs=True, top_logprobs=2)
    logprobs = answer.choices[0].logprobs
    assert logprobs is not None and logprobs.content is not None
    assert len(logprobs.content) == 40
    assert all(entry.logprob == entry.top_logprobs[0].logprob <= 0 for entry in logprobs.content)


async def test_a_guided_answer_is_json_of_its_schema(client: AsyncOpenAI) -> None:
    texts = []
    for seed in range(3):
        fields = {**SAMPLED, "max_tokens": 200, "seed": seed, "extra_body": {"json_schema": SCHEMA}}
        texts.append(said(await ask(client, **fields)))
        pieces, reason, _ = await streamed(client, **fields)
        assert ("".join(pieces), reason) == (texts[-1], "stop")
    for text in texts:
        made = json.loads(text)
        assert list(made) == ["name", "kind", "counts"]
        assert made["kind"] in ("river", "bridge")
        assert len(made["name"]) <= 12 and len(made["counts"]) <= 3
        assert all(isinstance(count, int) and 0 <= count <= 99 for count in made["counts"])
    assert len(set(texts)) > 1


async def test_answers_that_run_together_are_those_that_run_alone(client: AsyncOpenAI) -> None:
    asked = [{"text": f"question {number}", **SAMPLED, "seed": number} for number in range(12)]
    together = await asyncio.gather(*[ask(client, **fields) for fields in asked])
    assert [said(answer) for answer in together] == [said(await ask(client, **fields)) for fields in asked]


async def test_a_client_that_leaves_frees_its_slot(client: AsyncOpenAI, engine: TransformersEngine) -> None:
    before = engine.load.steps
    stream: Any = await ask(client, stream=True, temperature=0, max_tokens=LENGTH - 100)
    await anext(aiter(stream))
    await stream.close()
    await until(lambda: engine.load.running == 0)
    assert engine.load.steps - before < LENGTH - 100


async def test_too_long_a_chat_says_how_long_it_may_be(client: AsyncOpenAI) -> None:
    from openai import BadRequestError

    with pytest.raises(BadRequestError) as refused:
        await ask(client, "the " * 4 * LENGTH, **GREEDY)
    assert refused.value.code == "context_length_exceeded"
    assert str(LENGTH) in refused.value.message

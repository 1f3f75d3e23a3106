"""Completions of bare texts by the OpenAI SDK and by LangChain's older `OpenAI` class, unchanged."""

from __future__ import annotations

from collections.abc import Iterator

import openai
import pytest
from openai import OpenAI

from tests.clients.conftest import Guarded

COUNTED = "1 2 3 4 5"


@pytest.fixture
def client(demo: str) -> Iterator[OpenAI]:
    with OpenAI(base_url=f"{demo}/v1", api_key="unused", max_retries=0) as client:
        yield client


def test_a_text_is_completed(client: OpenAI) -> None:
    answer = client.completions.create(model="gpt-3.5-turbo", prompt="count to 5")
    assert (answer.object, answer.model) == ("text_completion", "gpt-3.5-turbo")
    [choice] = answer.choices
    assert (choice.text, choice.finish_reason, choice.index) == (COUNTED, "stop", 0)
    assert answer.usage and answer.usage.completion_tokens == 5


def test_several_prompts_are_answered_in_order_whole_and_streamed(client: OpenAI) -> None:
    prompts = ["count to 3", "count to 5"]
    whole = client.completions.create(model="chatglm2-6b", prompt=prompts, n=2, echo=True, stop=[" 4"])
    texts = [choice.text for choice in sorted(whole.choices, key=lambda choice: choice.index)]
    assert texts == ["count to 31 2 3"] * 2 + ["count to 51 2 3"] * 2
    streamed = dict.fromkeys(range(4), "")
    with client.completions.create(
        model="chatglm2-6b", prompt=prompts, n=2, echo=True, stop=[" 4"], stream=True
    ) as stream:
        for chunk in stream:
            for choice in chunk.choices:
                streamed[choice.index] += choice.text
    assert list(streamed.values()) == texts


def test_logprobs_are_lists_side_by_side(client: OpenAI) -> None:
    answer = client.completions.create(model="chatglm2-6b", prompt="count to 5", logprobs=2, echo=True)
    logprobs = answer.choices[0].logprobs
    assert logprobs and logprobs.tokens and logprobs.text_offset and logprobs.token_logprobs
    assert "".join(logprobs.tokens) == COUNTED
    assert logprobs.text_offset[0] == len("count to 5")
    assert all(number <= 0 for number in logprobs.token_logprobs)


def test_usage_of_a_stream_comes_if_asked_for(client: OpenAI) -> None:
    with client.completions.create(
        model="chatglm2-6b", prompt="count to 5", stream=True, stream_options={"include_usage": True}
    ) as stream:
        *chunks, last = stream
    assert "".join(chunk.choices[0].text for chunk in chunks) == COUNTED
    assert last.choices == []
    assert last.usage and last.usage.completion_tokens == 5


def test_a_refusal_names_the_field(client: OpenAI) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        client.completions.create(model="chatglm2-6b", prompt="a", suffix="b")
    assert caught.value.param == "suffix"


def test_a_stream_that_fails_raises_after_its_text(guarded: Guarded) -> None:
    text = ""
    with (
        OpenAI(base_url=f"{guarded.url}/v1", api_key=guarded.key, max_retries=0) as client,
        client.completions.create(model="obedient-7b", prompt="break: once upon", stream=True) as stream,
        pytest.raises(openai.APIError),
    ):
        for chunk in stream:
            text += chunk.choices[0].text
    assert text == "once upon"


def test_langchains_older_class_does_all_it_did(demo: str, monkeypatch: pytest.MonkeyPatch) -> None:
    langchain = pytest.importorskip("langchain_openai", reason="langchain-openai is not installed")
    monkeypatch.setenv("OPENAI_BASE_URL", f"{demo}/v1")
    monkeypatch.setenv("OPENAI_API_KEY", "unused")
    llm = langchain.OpenAI(model="chatglm2-6b")
    try:
        assert llm.invoke("count to 5") == COUNTED
        assert llm.invoke("count to 5", stop=[" 4"]) == "1 2 3"
        assert llm.batch(["count to 3", "count to 5"]) == ["1 2 3", COUNTED]
        assert "".join(llm.stream("count to 5")) == COUNTED
        told = llm.generate(["count to 3", "count to 5"])  # one request with both prompts
        assert [one.text for [one] in told.generations] == ["1 2 3", COUNTED]
        assert told.llm_output["token_usage"]["completion_tokens"] == 8
    finally:
        llm.client._client.close()

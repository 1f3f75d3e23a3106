"""ChatOpenAI with no arguments: everything it needs is in the environment, as LangChain's users have it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

pytest.importorskip("langchain_openai", reason="langchain-openai is not installed")

from langchain_core.callbacks import BaseCallbackHandler, FileCallbackHandler, UsageMetadataCallbackHandler
from langchain_core.messages import AIMessage, HumanMessage, SystemMessage
from langchain_core.output_parsers import StrOutputParser
from langchain_core.outputs import LLMResult
from langchain_core.prompts import ChatPromptTemplate, PromptTemplate
from langchain_openai import ChatOpenAI

GREETING = "你好！我是人工智能助手 ChatGLM2-6B，很高兴见到你，欢迎问我任何问题。"
STOPPED = "你好！我是人工智能助手 ChatGLM2-6B，很高兴见到你，"
ENGLISH = "Who are you, and what runs here?"


@pytest.fixture(scope="module")
def llm(demo: str) -> Iterator[ChatOpenAI]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OPENAI_BASE_URL", f"{demo}/v1")
        patch.setenv("OPENAI_API_KEY", "unused")
        llm = ChatOpenAI()
        yield llm
    llm.root_client.close()  # LangChain keeps one HTTP client a process, which every ChatOpenAI shares


@pytest.fixture(scope="module")
async def async_llm(llm: ChatOpenAI) -> AsyncIterator[ChatOpenAI]:
    """The same; while this lives all tests share one event loop, as their HTTP client needs."""
    yield llm
    await llm.root_async_client.close()


class Heard(BaseCallbackHandler):
    """Keeps what LangChain tells its callbacks."""

    def __init__(self) -> None:
        self.tokens: list[str] = []
        self.ends: list[LLMResult] = []
        self.errors: list[BaseException] = []

    def on_llm_new_token(self, token: Any, **_: Any) -> None:
        self.tokens.append(token)

    def on_llm_end(self, response: LLMResult, **_: Any) -> None:
        self.ends.append(response)

    def on_llm_error(self, error: BaseException, *, run_id: UUID, **_: Any) -> None:
        self.errors.append(error)


def test_the_demo_as_a_person_starts_it(demo_command: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_BASE_URL", f"{demo_command}/v1")
    monkeypatch.setenv("OPENAI_API_KEY", "unused")
    llm = ChatOpenAI()
    assert llm.invoke("你好").content == GREETING
    assert "".join(piece.text for piece in llm.stream("你好", stop=["欢迎"])) == STOPPED


def test_invoke(llm: ChatOpenAI) -> None:
    answer = llm.invoke("你好")
    assert answer.content == GREETING
    assert answer.response_metadata["finish_reason"] == "stop"
    usage = answer.usage_metadata
    assert usage
    assert usage["input_tokens"] > 0 < usage["output_tokens"]
    assert usage["total_tokens"] == usage["input_tokens"] + usage["output_tokens"]


def test_invoke_in_english(llm: ChatOpenAI) -> None:
    answer = llm.invoke(ENGLISH)
    assert ENGLISH in answer.text


def test_a_conversation(llm: ChatOpenAI) -> None:
    asked = [SystemMessage("Be brief."), HumanMessage("count to 3"), AIMessage("1 2 3"), HumanMessage("你好")]
    assert llm.invoke(asked).content == GREETING


def test_stream(llm: ChatOpenAI) -> None:
    pieces = list(llm.stream("你好"))
    assert "".join(piece.text for piece in pieces) == GREETING
    assert len([piece for piece in pieces if piece.text]) > 1
    whole = pieces[0]
    for piece in pieces[1:]:
        whole += piece
    assert whole.response_metadata["finish_reason"] == "stop"


def test_a_stream_with_usage(llm: ChatOpenAI) -> None:
    whole = llm.invoke("你好").usage_metadata
    seen = [piece.usage_metadata for piece in llm.stream("你好", stream_usage=True) if piece.usage_metadata]
    assert whole
    assert [usage["total_tokens"] for usage in seen] == [whole["total_tokens"]]


async def test_astream(async_llm: ChatOpenAI) -> None:
    text = ""
    async for piece in async_llm.astream(ENGLISH):
        text += piece.text
    assert text == async_llm.invoke(ENGLISH).text


async def test_ainvoke_and_abatch(async_llm: ChatOpenAI) -> None:
    assert (await async_llm.ainvoke("你好")).content == GREETING
    answers = await async_llm.abatch(["你好", "count to 4"])
    assert [answer.content for answer in answers] == [GREETING, "1 2 3 4"]


def test_batch_keeps_the_order(llm: ChatOpenAI) -> None:
    answers = llm.batch(["count to 3", "你好", "repeat: Ωmega"], config={"max_concurrency": 2})
    assert [answer.content for answer in answers] == ["1 2 3", GREETING, "Ωmega"]


def test_stop_given_to_the_call(llm: ChatOpenAI) -> None:
    assert llm.invoke("你好", stop=["欢迎"]).content == STOPPED
    assert "".join(piece.text for piece in llm.stream("你好", stop=["欢迎"])) == STOPPED


def test_stop_bound_to_the_model(llm: ChatOpenAI) -> None:
    assert llm.bind(stop=["欢迎"]).invoke("你好").content == STOPPED
    assert ChatOpenAI(stop_sequences=["欢迎"]).invoke("你好").content == STOPPED


def test_several_choices(llm: ChatOpenAI) -> None:
    [generations] = llm.generate([[HumanMessage("你好")]], n=2).generations
    assert [generation.text for generation in generations] == [GREETING, GREETING]


def test_logprobs(llm: ChatOpenAI) -> None:
    logprobs = llm.bind(logprobs=True).invoke("你好").response_metadata["logprobs"]["content"]
    assert "".join(token["token"] for token in logprobs) == GREETING


def test_callbacks_hear_tokens_and_usage(llm: ChatOpenAI) -> None:
    heard, usage = Heard(), UsageMetadataCallbackHandler()
    list(llm.stream("你好", config={"callbacks": [heard, usage]}, stream_usage=True))
    assert "".join(heard.tokens) == GREETING
    assert len(heard.ends) == 1
    [counted] = usage.usage_metadata.values()
    assert counted["output_tokens"] > 0


def test_callbacks_hear_failures(llm: ChatOpenAI) -> None:
    heard = Heard()
    with pytest.raises(Exception, match="temperature"):
        llm.invoke("你好", temperature=9, config={"callbacks": [heard]})
    assert len(heard.errors) == 1


@pytest.fixture
def chat() -> ChatPromptTemplate:
    return ChatPromptTemplate.from_messages([("system", "You are a parrot."), ("user", "repeat: {words}")])


def test_a_prompt_piped_into_the_model(llm: ChatOpenAI, chat: ChatPromptTemplate) -> None:
    chain = chat | llm | StrOutputParser()
    assert chain.invoke({"words": "春眠不觉晓"}) == "春眠不觉晓"
    assert "".join(chain.stream({"words": "to be, or not"})) == "to be, or not"
    assert (PromptTemplate.from_template("{greeting}") | llm).invoke({"greeting": "你好"}).content == GREETING


def test_the_log_file_of_a_chain(llm: ChatOpenAI, chat: ChatPromptTemplate, tmp_path: Path) -> None:
    log = tmp_path / "chain.log"
    with FileCallbackHandler(str(log)) as handler:
        (chat | llm).invoke({"words": "hi"}, config={"callbacks": [handler]})
    written = log.read_text(encoding="utf-8")
    assert "Entering new" in written
    assert "Finished chain" in written


async def test_events_of_a_chain(async_llm: ChatOpenAI, chat: ChatPromptTemplate) -> None:
    text = ""
    async for event in (chat | async_llm).astream_events({"words": "你好吗"}, version="v2"):
        if event["event"] == "on_chat_model_stream":
            text += event["data"]["chunk"].text
    assert text == "你好吗"

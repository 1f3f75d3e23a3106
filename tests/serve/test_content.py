"""`store.log_content`: prompts and answers are in the ledger, whole and streamed the same, and else not."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from sqlalchemy import create_engine, text

from gateway.app import Site, application
from gateway.core.events import Finish, Reasoning, Text, ToolArgs, ToolStart
from gateway.ledger.rows import MAX_CONTENT
from gateway.serve.transcript import KEPT, Kept
from gateway.settings import settings_from
from tests.serve.house import House, Visit, container, listening, settings
from tests.serve.test_embeddings import embed

SECRET = "the prompt is quoted nowhere else"
CALL = '<tool_call>{"name": "f", "arguments": {"x": 1}}</tool_call>'


class Answers:
    """A container that says ``said`` whole or in pieces, as it is asked."""

    def __init__(self, said: str) -> None:
        self.said = said

    async def __call__(self, visit: Visit) -> None:
        if "input" in visit.json:
            await embed(visit)
        elif visit.json.get("stream"):
            await visit.say(*(self.said[at : at + 9000] for at in range(0, len(self.said), 9000)))
        else:
            await visit.answer({"prompt": self.said, "finish_reason": "stop"})


@asynccontextmanager
async def kept(folder: Path, said: str, *, keeps: bool = True, **model: Any) -> AsyncIterator[House]:
    async with container(Answers(said)) as behind:
        store = {"url": "sqlite:///books.db", "log_content": keeps, "fsync": "never", "retain_days": 36500}
        config = {**settings(behind.port, **model), "store": store}
        site = Site(folder, loopback=True, store=True)
        async with listening(application(settings_from(config, {}), site)) as port:
            yield House(port, behind)


def ledger(folder: Path) -> list[Any]:
    """The content of each request, once its gateway has ended."""
    engine = create_engine(f"sqlite:///{folder / 'books.db'}")
    with engine.connect() as connection:
        rows = connection.execute(text("SELECT content FROM requests WHERE kind = 'request'")).all()
        found = [json.loads(row[0]) if row[0] is not None else None for row in rows]
    engine.dispose()
    return found


async def ask(at: House, route: str = "chat/completions", **fields: Any) -> None:
    messages = {"messages": [{"role": "user", "content": SECRET}]} if route == "chat/completions" else {}
    async with httpx.AsyncClient(timeout=10) as client:
        answer = await client.post(f"{at.url}/{route}", json={"model": "m", **messages, **fields})
        assert answer.status_code == 200, answer.text


@pytest.mark.parametrize("stream", [False, True])
async def test_what_was_asked_and_answered_is_kept(stream: bool, tmp_path: Path) -> None:
    async with kept(tmp_path, "hello world") as at:
        await ask(at, stream=stream, n=2)
    assert ledger(tmp_path) == [{"sent": [SECRET], "answers": [{"text": "hello world"}] * 2}]


@pytest.mark.parametrize("stream", [False, True])
async def test_thoughts_and_calls_of_tools_are_part_of_an_answer(stream: bool, tmp_path: Path) -> None:
    tools = [{"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}]
    model = {"reasoning": {}, "tools": "hermes", "template": "chatml"}
    async with kept(tmp_path, f"<think>hm</think>yes{CALL}", **model) as at:
        await ask(at, stream=stream, tools=tools)
    [content] = ledger(tmp_path)
    [answer] = content["answers"]
    assert SECRET in content["sent"][0]
    assert (answer["text"], answer["reasoning"]) == ("yes", "hm")
    assert [(call["name"], json.loads(call["arguments"])) for call in answer["calls"]] == [("f", {"x": 1})]


async def test_prompts_of_every_route_are_kept(tmp_path: Path) -> None:
    async with kept(tmp_path, "hello") as at:
        await ask(at, "completions", prompt=["one", "two"])
        await ask(at, "responses", input="three")
        await ask(at, "embeddings", input=["four", "five"])
    assert {str(each["sent"]) for each in ledger(tmp_path)} == {
        "['one', 'two']",
        "['three']",
        "[['four', 'five']]",
    }


@pytest.mark.parametrize("stream", [False, True])
async def test_what_is_too_large_is_a_note_of_its_size(stream: bool, tmp_path: Path) -> None:
    async with kept(tmp_path, "x" * (2 * KEPT)) as at:
        await ask(at, stream=stream)
    [content] = ledger(tmp_path)
    assert list(content) == ["left_out"]


async def test_nothing_of_it_is_anywhere_without_the_key(tmp_path: Path) -> None:
    async with kept(tmp_path, "an answer that is quoted nowhere else", keeps=False) as at:
        await ask(at)
        await ask(at, stream=True)
    assert ledger(tmp_path) == [None, None]
    assert not any(b"quoted nowhere else" in data for data in everything(tmp_path))


def everything(folder: Path) -> list[bytes]:
    """What is in the files of a folder, of which there is at least one."""
    found = [file.read_bytes() for file in folder.rglob("*") if file.is_file()]
    assert found
    return found


def test_what_is_kept_of_one_answer_is_bounded() -> None:
    one = Kept()
    much = "x" * 10_000
    for _ in range(100):
        one.take([Text(much), Reasoning(much), ToolStart(0, "id", "f"), ToolArgs(0, much)])
    one.take([Finish()])
    answer = one.answer()
    size = len(answer["text"]) + len(answer["reasoning"]) + len(answer["calls"][0]["arguments"])
    assert MAX_CONTENT < KEPT <= size < KEPT + 10_000

"""On every route: what does not fit the model is refused before a GPU is called, and who counted is told."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from gateway.allowances import Limits
from gateway.app import build_app
from gateway.core.events import Finish, Text
from gateway.settings import settings_from
from tests.serve.house import (
    Desk,
    House,
    Scripted,
    Visit,
    container,
    deployed,
    listening,
    settings,
    soon,
)
from tests.serve.test_embeddings import embed

FITS, LONG = "hi hi hi", "hi hi hi hi hi hi hi"  # in a context of six tokens

TEXTS: dict[str, tuple[str, str]] = {  # the route, and what it calls the most that may be answered
    "/v1/chat/completions": ("messages", "max_tokens"),
    "/api/v1/chat/completions": ("messages", "max_tokens"),
    "/v1/completions": ("prompt", "max_tokens"),
    "/v1/responses": ("input", "max_output_tokens"),
    "/v1/messages": ("messages", "max_tokens"),
    "/v1/prompt/m": ("prompt", "max_tokens"),
}
VECTORS = ("/v1/embeddings", "/v1/engines/m/embeddings")


def body(route: str, text: str, most: int = 3) -> dict[str, Any]:
    field, limit = TEXTS.get(route, ("input", ""))
    asked: dict[str, Any] = {"model": "m"} if "/m" not in route or route == "/v1/messages" else {}
    asked[field] = [{"role": "user", "content": text}] if field == "messages" else text
    return {**asked, limit: most} if limit else asked


@asynccontextmanager
async def limited(folder: Path, *, usage: bool, counted: bool = True) -> AsyncIterator[House]:
    """A model with a context of six words; ``usage``: its container counts too, and always says 40 and 2."""
    words = {"type": "WordLevel", "vocab": {"[UNK]": 0, "hi": 1}, "unk_token": "[UNK]"}
    whole = {
        "version": "1.0",
        "added_tokens": [],
        "pre_tokenizer": {"type": "WhitespaceSplit"},
        "model": words,
    }
    (folder / "tokenizer.json").write_text(json.dumps(whole))

    async def answer(visit: Visit) -> None:
        if "input" in visit.json:
            await embed(visit)
            return
        said = {"prompt": "one two", "finish_reason": "stop"}
        told = {"usage": {"prompt_tokens": 40, "completion_tokens": 2}}
        await visit.answer({**said, **told} if usage else said)

    async with container(answer) as behind:
        known = {"tokenizer": "tokenizer.json"} if counted else {}
        config = settings(behind.port, context_length=6, **known)
        async with listening(build_app(settings_from(config, {}), folder=folder)) as port:
            yield House(port, behind)


async def ask(at: House, route: str, body: dict[str, Any]) -> httpx.Response:
    async with httpx.AsyncClient(timeout=10) as client:
        return await client.post(f"http://127.0.0.1:{at.port}{route}", json=body)


@pytest.fixture(autouse=True)
def tokenizers() -> None:
    pytest.importorskip("tokenizers", reason="the extra `tokenizers` is not installed")


@pytest.mark.parametrize("route", [*TEXTS, *VECTORS])
async def test_what_does_not_fit_never_reaches_the_gpu(route: str, tmp_path: Path) -> None:
    async with limited(tmp_path, usage=False) as at:
        assert (await ask(at, route, body(route, FITS))).status_code == 200
        assert len(at.container.visits) == 1
        refused = [await ask(at, route, body(route, LONG))]
        if route in TEXTS:
            refused.append(await ask(at, route, body(route, FITS, 4)))
            refused.append(await ask(at, route, {**body(route, LONG), "stream": True}))
        for each in refused:
            assert each.status_code == 400
            assert "context_length_exceeded" in each.text or "prompt is too long" in each.text
        assert len(at.container.visits) == 1


@pytest.mark.parametrize(
    ("usage", "counted", "source"),
    [(True, True, "upstream"), (False, True, "tokenizer"), (False, False, "estimate")],
)
@pytest.mark.parametrize("route", TEXTS)
async def test_who_counted_is_told(
    route: str, usage: bool, counted: bool, source: str, tmp_path: Path
) -> None:
    async with limited(tmp_path, usage=usage, counted=counted) as at:
        answer = await ask(at, route, body(route, FITS))
        assert (answer.status_code, answer.headers["x-gateway-usage"]) == (200, source)
        told = answer.json()["usage"]
        prompt = told.get("prompt_tokens", told.get("input_tokens"))
        assert {"upstream": prompt == 40, "tokenizer": prompt == 3, "estimate": prompt > 0}[source]


@pytest.mark.parametrize("stream", [False, True])
async def test_a_tokenizer_that_breaks_costs_the_count_and_nothing_else(stream: bool) -> None:
    def count(text: str) -> int:
        if text == "hello":
            raise RuntimeError
        return 1

    answers = Scripted("a", [[Text("hello"), Finish("stop")]])
    desk = Desk(deployed(answers, count=count, limits=Limits(concurrent=1)))
    for _ in range(2):
        line = desk.line(stream=stream)
        with pytest.raises(RuntimeError):
            await soon(desk.take(line))
        assert line.status == (200 if stream else 500)  # and not 429: its place is free again
    assert [record.usage for record in desk.records] == [None, None]
    assert desk.counted("modal_gateway_requests_in_flight 0.0")

"""An encoder with random weights behind the contract app behind the gateway, called by the OpenAI SDK."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import openai
import pytest
from openai import AsyncOpenAI

from gateway.app import build_app
from gateway.settings import settings_from
from modal_backend.contract import contract_app
from modal_backend.engines import make_engine
from tests.backend.conftest import Host
from tests.backend.engines.tiny import LENGTH
from tests.serve.house import BOUND, listening

pytestmark = pytest.mark.torch

TEXTS = ["the river", "question answer 你好", "naïve " * 60, "three", "三"]


@pytest.fixture
async def client(host: Host, model_folder: Path) -> AsyncIterator[AsyncOpenAI]:
    engine = make_engine("embed", {"model": str(model_folder)})
    model = {
        "upstream": {"url": host.serve(contract_app(engine))},
        "tokenizer": str(model_folder),
        "embedding_ids": "model",
        "embedding_batch": 2,
        "matryoshka": True,
    }
    settings = settings_from({"auth": {"mode": "none"}, "models": {"tiny": model}}, {})
    async with listening(build_app(settings, loopback=True)) as port:
        url = f"http://127.0.0.1:{port}/v1"
        async with AsyncOpenAI(base_url=url, api_key="unused", max_retries=0, timeout=BOUND) as made:
            yield made
    await engine.close()


async def test_a_batch_is_what_its_texts_are_alone(client: AsyncOpenAI) -> None:
    together = await client.embeddings.create(model="tiny", input=TEXTS)
    counted = 0
    for text, item in zip(TEXTS, together.data, strict=True):
        alone = await client.embeddings.create(model="tiny", input=text)
        counted += alone.usage.prompt_tokens
        assert alone.data[0].embedding == pytest.approx(item.embedding, abs=1e-5)
    assert together.usage.prompt_tokens == together.usage.total_tokens == counted


async def test_fewer_dimensions_are_the_beginning(client: AsyncOpenAI) -> None:
    whole = await client.embeddings.create(model="tiny", input=TEXTS[0])
    cut = await client.embeddings.create(model="tiny", input=TEXTS[0], dimensions=8)
    beginning = whole.data[0].embedding[:8]
    norm = sum(number * number for number in beginning) ** 0.5
    assert cut.data[0].embedding == pytest.approx([number / norm for number in beginning], abs=1e-6)


async def test_the_model_s_own_token_ids(client: AsyncOpenAI, model_folder: Path) -> None:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(model_folder)
    ids = [tokenizer(text, add_special_tokens=False)["input_ids"] for text in TEXTS]
    by_ids = await client.embeddings.create(model="tiny", input=ids)
    by_text = await client.embeddings.create(model="tiny", input=TEXTS)
    assert [item.embedding for item in by_ids.data] == [item.embedding for item in by_text.data]


async def test_too_long_a_text_is_a_400_that_names_it(client: AsyncOpenAI) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        await client.embeddings.create(model="tiny", input=["the ", "the " * 4 * LENGTH])
    assert caught.value.code == "context_length_exceeded"
    assert caught.value.param == "input"

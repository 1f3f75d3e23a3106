"""OpenAIEmbeddings and the official client, as their users have them: ids, base64, batches, async."""

from __future__ import annotations

import base64
import json
import math
from collections.abc import Callable, Iterator
from operator import mul
from typing import Any, TypeAlias

import httpx
import openai
import pytest
from openai import AsyncOpenAI, OpenAI

from tests.clients.conftest import SECRET
from tests.clients.process import free_port, gateway, serving

pytest.importorskip("langchain_openai", reason="langchain-openai is not installed")
pytest.importorskip("tiktoken", reason="tiktoken, which comes with langchain-openai, is not installed")

import tiktoken
from langchain_openai import OpenAIEmbeddings

Made: TypeAlias = Callable[..., OpenAIEmbeddings]

TEXTS = ["the river runs through old stone", "你好，世界", "naïve café 🙂", "three seven twelve"]
RANKS = {bytes([byte]): byte for byte in range(256)} | {b"th": 256, b"the": 257, b" r": 258}


@pytest.fixture
def small_table() -> Iterator[None]:
    """tiktoken without its download: cl100k_base is a table of a few hundred tokens."""
    known = tiktoken.registry.ENCODINGS
    before = known.get("cl100k_base")
    known["cl100k_base"] = tiktoken.Encoding(
        "cl100k_base", pat_str=r"\s?\S+|\s+", mergeable_ranks=RANKS, special_tokens={}
    )
    yield
    del known["cl100k_base"]
    if before is not None:
        known["cl100k_base"] = before


@pytest.fixture(scope="module")
def reading(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Address of a gateway with keys and two models: one knows the small table, the other none."""
    folder, port = tmp_path_factory.mktemp("reading"), free_port()
    lines = [base64.b64encode(token).decode() + f" {rank}" for token, rank in RANKS.items()]
    (folder / "table").write_text("\n".join(lines))
    demo = {"upstream": {"kind": "demo"}, "embedding_batch": 3}
    config = {
        "auth": {"keys": [{"name": "tests", "key": SECRET}]},
        "models": {"with-table": {**demo, "embedding_ids": "table"}, "without": demo},
    }
    (folder / "gateway.yaml").write_text(json.dumps(config))
    command = gateway("serve", "--config", "gateway.yaml", "--port", str(port))
    environ = {"TIKTOKEN_CACHE_DIR": str(folder)}  # where no table is
    with serving(command, port, folder=folder, environ=environ) as url:
        yield f"{url}/v1"


@pytest.fixture
def http() -> Iterator[httpx.Client]:
    """What OpenAIEmbeddings calls with: nobody would close a client of its own."""
    with openai.DefaultHttpxClient() as client:
        yield client


@pytest.fixture
def langchain(http: httpx.Client) -> Made:
    """``langchain(url, model, **options)``."""

    def made(url: str, model: str, **options: Any) -> OpenAIEmbeddings:
        options |= {"api_key": SECRET, "max_retries": 0, "http_client": http}
        return OpenAIEmbeddings(model=model, base_url=url, **options)

    return made


def test_token_ids_give_what_the_texts_give(
    langchain: Made, reading: str, small_table: None
) -> None:
    by_ids = langchain(reading, "with-table").embed_documents(TEXTS)
    by_text = langchain(reading, "with-table", check_embedding_ctx_length=False).embed_documents(TEXTS)
    assert by_ids == by_text
    assert len(by_ids) == len(TEXTS)


def test_texts_longer_than_the_client_sends_at_once(
    langchain: Made, reading: str, small_table: None
) -> None:
    long = langchain(reading, "with-table", embedding_ctx_length=5).embed_query("river " * 20)
    assert math.fsum(number * number for number in long) == pytest.approx(1)  # LangChain's mean of the parts


def test_ids_that_nobody_can_read_are_refused_with_the_setting(
    langchain: Made, reading: str, small_table: None
) -> None:
    with pytest.raises(openai.BadRequestError, match="check_embedding_ctx_length=False"):
        langchain(reading, "without").embed_query("hi")
    assert langchain(reading, "without", check_embedding_ctx_length=False).embed_query("hi")


async def test_async_gives_the_same(langchain: Made, reading: str) -> None:
    embeddings = langchain(reading, "without", check_embedding_ctx_length=False)
    assert await embeddings.aembed_documents(TEXTS) == embeddings.embed_documents(TEXTS)
    assert await embeddings.aembed_query(TEXTS[1]) == embeddings.embed_documents(TEXTS)[1]
    await embeddings.async_client._client.close()


def test_the_nearest_document_is_found(
    demo: str, http: httpx.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_BASE_URL", f"{demo}/v1")
    monkeypatch.setenv("OPENAI_API_KEY", "unused")
    # under OpenAI's default name
    embeddings = OpenAIEmbeddings(check_embedding_ctx_length=False, http_client=http)
    query, documents = embeddings.embed_query("old stones in a river"), embeddings.embed_documents(TEXTS)
    nearness = [sum(map(mul, query, document)) for document in documents]
    assert nearness.index(max(nearness)) == 0


def test_the_official_client_reads_both_forms(demo: str) -> None:
    with OpenAI(base_url=f"{demo}/v1", api_key="unused", max_retries=0) as client:
        usual = client.embeddings.create(model="demo-embed", input=TEXTS)  # base64, which it decodes
        floats = client.embeddings.create(model="demo-embed", input=TEXTS, encoding_format="float")
        assert [item.embedding for item in usual.data] == [item.embedding for item in floats.data]
        assert [item.index for item in usual.data] == list(range(len(TEXTS)))
        assert (usual.object, usual.model) == ("list", "demo-embed")
        assert usual.usage.prompt_tokens == usual.usage.total_tokens > 0
        assert not usual.model_extra and not usual.usage.model_extra
        one = client.embeddings.create(model="demo-embed", input=TEXTS[2])
        assert one.data[0].embedding == usual.data[2].embedding
        with pytest.raises(openai.BadRequestError) as refused:
            client.embeddings.create(model="demo-embed", input=[])
        assert refused.value.param == "input"


async def test_the_official_async_client(reading: str) -> None:
    async with AsyncOpenAI(base_url=reading, api_key=SECRET, max_retries=0) as client:
        texts = [f"text {number}" for number in range(50)]
        answer = await client.embeddings.create(model="without", input=texts)
        first = await client.embeddings.create(model="without", input=texts[49])
        assert answer.data[49].embedding == first.data[0].embedding

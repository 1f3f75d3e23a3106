"""The embedding engine behind the contract app, with a real model on real sockets."""

from __future__ import annotations

import math
import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import torch
import transformers

from modal_backend.contract import contract_app
from modal_backend.engines import make_engine
from tests.backend.conftest import Host
from tests.backend.engines.asking import refused, whole
from tests.backend.engines.tiny import LENGTH

pytestmark = pytest.mark.torch

TEXTS = ["the river", "question answer 你好", "naïve " * 60, "the river", "三"]


@pytest.fixture(scope="module")
async def url(host: Host, model_folder: Path, anyio_backend: str) -> AsyncIterator[str]:
    made = make_engine("embed", {"model": str(model_folder), "batch_tokens": 64})
    yield host.serve(contract_app(made))
    await made.close()


async def test_each_text_has_a_unit_vector_of_its_own(client: httpx.AsyncClient, url: str) -> None:
    answer = await whole(client, url, input=TEXTS)
    vectors = answer["embeddings"]
    assert len(vectors) == len(TEXTS)
    assert all(math.fsum(x * x for x in vector) == pytest.approx(1, abs=1e-5) for vector in vectors)
    assert vectors[0] == pytest.approx(vectors[3], abs=1e-6)
    for text, vector in zip(TEXTS, vectors, strict=True):
        alone = await whole(client, url, input=[text])
        assert alone["embeddings"][0] == pytest.approx(vector, abs=1e-5)


async def test_the_vector_is_the_mean_of_the_states(
    client: httpx.AsyncClient, url: str, model_folder: Path
) -> None:
    model = transformers.AutoModel.from_pretrained(model_folder).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(model_folder)
    answer = await whole(client, url, input=TEXTS)
    counted = 0
    for text, vector in zip(TEXTS, answer["embeddings"], strict=True):
        ids = tokenizer(text, return_tensors="pt")["input_ids"]
        counted += ids.shape[1]
        with torch.no_grad():
            mean = model(input_ids=ids).last_hidden_state[0].mean(0)
        assert (mean / mean.norm()).tolist() == pytest.approx(vector, abs=1e-4)
    assert answer["usage"] == {"prompt_tokens": counted, "completion_tokens": 0}


@pytest.mark.parametrize(("pooling", "at"), [("cls", 0), ("last", -1)])
async def test_other_poolings(model_folder: Path, pooling: str, at: int) -> None:
    made: Any = make_engine("embed", {"model": str(model_folder), "pooling": pooling})
    [vector, _] = (await made.embed(("the river", "a " * 50))).vectors
    model = transformers.AutoModel.from_pretrained(model_folder).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(model_folder)
    ids = tokenizer("the river", return_tensors="pt")["input_ids"]
    with torch.no_grad():
        state = model(input_ids=ids).last_hidden_state[0, at]
    assert (state / state.norm()).tolist() == pytest.approx(vector, abs=1e-4)
    await made.close()


@pytest.fixture
def pooled_folder(model_folder: Path, tmp_path: Path) -> Path:
    """The model as sentence-transformers saves one that takes the first token."""
    for file in model_folder.iterdir():
        (tmp_path / file.name).symlink_to(file)
    (tmp_path / "1_Pooling").mkdir()
    (tmp_path / "1_Pooling" / "config.json").write_text('{"pooling_mode_cls_token": true}')
    return tmp_path


async def test_a_model_s_own_pooling_is_used(model_folder: Path, pooled_folder: Path) -> None:
    found: list[Any] = []
    for arguments in ({"model": str(pooled_folder)}, {"model": str(model_folder), "pooling": "cls"}):
        made: Any = make_engine("embed", arguments)
        found.append((await made.embed(("the river",))).vectors)
        await made.close()
    assert found[0] == found[1]


async def test_too_long_a_text_is_named(client: httpx.AsyncClient, url: str) -> None:
    status, code, message = await refused(client, url, input=["the", "the " * 4 * LENGTH])
    assert (status, code) == (400, "context_length_exceeded")
    assert re.search(r"input\[1\]", message)


async def test_no_texts_and_empty_texts(client: httpx.AsyncClient, url: str) -> None:
    assert (await whole(client, url, input=[]))["embeddings"] == []
    assert len((await whole(client, url, input=[""]))["embeddings"]) == 1


async def test_it_continues_no_prompts(client: httpx.AsyncClient, url: str) -> None:
    status, code, _ = await refused(client, url, prompt="the")
    assert (status, code) == (400, "bad_request")


@pytest.mark.parametrize(
    ("arguments", "part"),
    [({}, "'model'"), ({"colour": 1, "model": "x"}, "'colour'"), ({"pooling": "sum"}, "mean")],
)
def test_a_wrong_argument_is_named(model_folder: Path, arguments: dict[str, Any], part: str) -> None:
    if "pooling" in arguments:
        arguments = {**arguments, "model": str(model_folder)}
    with pytest.raises(ValueError, match=part):
        make_engine("embed", arguments)

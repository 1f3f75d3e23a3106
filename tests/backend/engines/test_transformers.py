"""The transformers engine behind the contract app, with a real model, tokenizer and sockets."""

from __future__ import annotations

import asyncio
import json
import math
from collections import Counter
from pathlib import Path
from typing import Any

import httpx
import pytest
import torch
import transformers

from modal_backend.contract import contract_app
from modal_backend.engine import Done, EngineDead, Request
from modal_backend.engines import make_engine
from modal_backend.engines.transformers_engine import Options, TransformersEngine
from modal_backend.engines.transformers_engine.loading import load
from tests.backend.conftest import Host, Wire
from tests.backend.engines.asking import refused, streamed, whole
from tests.backend.engines.tiny import ASSISTANT, BOS, EOS, LENGTH, USER

pytestmark = pytest.mark.torch

PROMPT = f"{BOS}{USER}the river runs 你好{ASSISTANT}"
PROMPTS = [PROMPT, "question answer", "naïve café " * 9, "三", f"{USER}seven{ASSISTANT}", "the " * 40]
GREEDY: dict[str, Any] = {"temperature": 0, "max_tokens": 40}


@pytest.fixture(scope="session")
def url(host: Host, engine: TransformersEngine) -> str:
    return host.serve(contract_app(engine))


@pytest.fixture(scope="session")
def reference(model_folder: Path) -> tuple[Any, Any]:
    """The library itself: model and tokenizer."""
    model = transformers.AutoModelForCausalLM.from_pretrained(model_folder)
    return model.eval(), transformers.AutoTokenizer.from_pretrained(model_folder)


@pytest.mark.parametrize("prompt", PROMPTS)
async def test_greedy_is_what_the_library_itself_generates(
    client: httpx.AsyncClient, url: str, reference: tuple[Any, Any], prompt: str
) -> None:
    model, tokenizer = reference
    ids = tokenizer(prompt, add_special_tokens=not prompt.startswith(BOS), return_tensors="pt")
    given = ids["input_ids"].shape[1]
    made = model.generate(**ids, max_new_tokens=40, do_sample=False, pad_token_id=0)[0, given:]
    answer = await whole(client, url, prompt=prompt, **GREEDY)
    assert answer["prompt"] == tokenizer.decode(made, skip_special_tokens=True)
    assert answer["usage"] == {"prompt_tokens": given, "completion_tokens": len(made)}
    assert answer["ignored"] == []


@pytest.mark.parametrize("prompt", PROMPTS)
async def test_the_stream_is_the_whole(client: httpx.AsyncClient, url: str, prompt: str) -> None:
    answer = await whole(client, url, prompt=prompt, **GREEDY)
    pieces = await streamed(client, url, prompt=prompt, **GREEDY)
    assert pieces.done
    assert pieces.text == answer["prompt"]
    assert pieces.last["usage"] == answer["usage"]
    assert pieces.last["finish_reason"] == answer["finish_reason"] == "length"


async def test_requests_that_run_together_do_not_touch_each_other(
    client: httpx.AsyncClient, url: str
) -> None:
    kinds: list[dict[str, Any]] = [
        {},
        {"temperature": 0.8, "seed": 1},
        {"temperature": 1.5, "seed": 2, "top_p": 0.9},
        {"temperature": 1, "seed": 3, "top_k": 20, "presence_penalty": 1.0},
        {"seed": 4, "regex": "[a-f]{5,30}"},
    ]
    asked = [
        {"prompt": prompt, **GREEDY, "max_tokens": 10 + 5 * n, **kind}
        for n, prompt in enumerate(PROMPTS)
        for kind in kinds
    ]
    alone = [await whole(client, url, **fields) for fields in asked]
    together = await asyncio.gather(*[whole(client, url, **fields) for fields in asked])
    assert together == alone
    assert len({answer["prompt"] for answer in alone}) > len(PROMPTS)


async def test_a_stop_string_cuts_and_frees_the_slot(
    client: httpx.AsyncClient, url: str, engine: TransformersEngine
) -> None:
    full = (await whole(client, url, prompt=PROMPT, **GREEDY))["prompt"]
    stop = full[20:24]
    for answer in (
        await whole(client, url, prompt=PROMPT, stop=[stop], **GREEDY),
        (await streamed(client, url, prompt=PROMPT, stop=[stop], **GREEDY)).last,
    ):
        assert answer["finish_reason"] == "stop"
        assert answer["usage"]["completion_tokens"] < 40
    cut = await whole(client, url, prompt=PROMPT, stop=[stop], **GREEDY)
    assert cut["prompt"] == full[: full.index(stop)]
    assert (await streamed(client, url, prompt=PROMPT, stop=[stop], **GREEDY)).text == cut["prompt"]


async def test_the_model_s_own_end_and_stop_token_ids_end_the_answer(
    client: httpx.AsyncClient, url: str, reference: tuple[Any, Any]
) -> None:
    _, tokenizer = reference
    end = tokenizer.convert_tokens_to_ids(EOS)
    ended = await whole(client, url, prompt=PROMPT, **GREEDY, logit_bias={str(end): 100})
    assert (ended["prompt"], ended["finish_reason"]) == ("", "stop")
    assert ended["usage"]["completion_tokens"] == 1
    word = tokenizer.convert_tokens_to_ids(USER)
    stopped = await whole(
        client, url, prompt=PROMPT, **GREEDY, logit_bias={str(word): 100}, stop_token_ids=[word]
    )
    assert (stopped["prompt"], stopped["finish_reason"]) == ("", "stop")


async def test_the_prompt_has_one_beginning(client: httpx.AsyncClient, url: str, engine: Any) -> None:
    with_bos = await whole(client, url, prompt=PROMPT, **GREEDY)
    without = await whole(client, url, prompt=PROMPT.removeprefix(BOS), **GREEDY)
    assert with_bos == without
    ids = engine._loaded.tokenizer.encode(PROMPT)
    special = engine._loaded.tokenizer.inner.convert_tokens_to_ids([BOS, USER, ASSISTANT])
    assert [ids.count(one) for one in special] == [1, 1, 1]
    assert ids[0] == special[0]
    assert engine._loaded.tokenizer.encode("") == [special[0]]


async def test_the_same_seed_gives_the_same_and_another_does_not(client: httpx.AsyncClient, url: str) -> None:
    fields: dict[str, Any] = {"prompt": PROMPT, "max_tokens": 30, "temperature": 1}
    first = await whole(client, url, **fields, seed=11)
    assert await whole(client, url, **fields, seed=11) == first
    others = [await whole(client, url, **fields, seed=seed) for seed in (12, 13)]
    unseeded = [await whole(client, url, **fields) for _ in range(2)]
    assert len({answer["prompt"] for answer in (first, *others, *unseeded)}) == 5


@pytest.mark.parametrize(
    "narrowed",
    [
        {"top_k": 1},
        {"top_p": 0.0},
        {"top_p": 1e-6},
        {"min_p": 1.0},
        {"temperature": 1e-6},
        {"top_k": 1, "top_p": 0.5},
    ],
)
async def test_a_limit_at_its_end_is_greedy(
    client: httpx.AsyncClient, url: str, narrowed: dict[str, Any]
) -> None:
    greedy = await whole(client, url, prompt=PROMPT, **GREEDY)
    found = await whole(client, url, prompt=PROMPT, max_tokens=40, **{"temperature": 1.7, **narrowed})
    assert found == greedy


async def test_penalties_end_repetition(client: httpx.AsyncClient, url: str) -> None:
    async def commonest(**fields: Any) -> int:
        favoured: dict[str, Any] = {"prompt": PROMPT, **GREEDY, "logit_bias": {"40": 4}, "logprobs": 0}
        answer = await whole(client, url, **favoured, **fields)
        return max(Counter(tuple(entry["bytes"]) for entry in answer["logprobs"]).values())

    plain = await commonest()
    assert plain > 10
    assert await commonest(frequency_penalty=2) < plain
    assert await commonest(presence_penalty=2) < plain
    assert await commonest(repetition_penalty=20) < plain


async def test_logprobs_are_the_model_s_own(
    client: httpx.AsyncClient, url: str, reference: tuple[Any, Any]
) -> None:
    model, tokenizer = reference
    fields = {"prompt": PROMPT, **GREEDY, "logprobs": 3}
    answer = await whole(client, url, **fields)
    assert (await streamed(client, url, **fields)).logprobs == answer["logprobs"]
    assert len(answer["logprobs"]) == answer["usage"]["completion_tokens"] == 40
    ids = tokenizer(PROMPT, add_special_tokens=False, return_tensors="pt")["input_ids"]
    for entry in answer["logprobs"][:10]:
        with torch.no_grad():
            wanted = model(ids).logits[0, -1].log_softmax(-1)
        values, likeliest = wanted.topk(3)
        assert [top["logprob"] for top in entry["top_logprobs"]] == pytest.approx(values.tolist(), abs=1e-3)
        assert entry["logprob"] == entry["top_logprobs"][0]["logprob"]  # greedy
        ids = torch.cat([ids, likeliest[None, :1]], dim=-1)
    everything = await whole(client, url, prompt=PROMPT, max_tokens=1, logprobs=20, temperature=0)
    tops = everything["logprobs"][0]["top_logprobs"]
    assert len(tops) == 20
    assert 0 < math.fsum(math.exp(top["logprob"]) for top in tops) <= 1 + 1e-6
    bare = await whole(client, url, prompt=PROMPT, max_tokens=2, logprobs=0)
    assert [entry["top_logprobs"] for entry in bare["logprobs"]] == [[], []]


async def test_the_bytes_of_the_logprobs_are_the_text(client: httpx.AsyncClient, url: str) -> None:
    for seed in range(5):
        answer = await whole(client, url, prompt=PROMPT, max_tokens=40, seed=seed, logprobs=0)
        joined = b"".join(bytes(entry["bytes"]) for entry in answer["logprobs"])
        assert joined.decode(errors="replace") == answer["prompt"]


async def test_no_piece_ends_within_a_character(client: httpx.AsyncClient, url: str) -> None:
    # The grammar makes characters of several bytes, and the model's tokens cut them anywhere.
    answer = await streamed(
        client, url, prompt=PROMPT, seed=5, max_tokens=300, regex="(🌊|🚀|水|ß|今日|é){40}"
    )
    assert answer.last["finish_reason"] == "stop"
    assert "\ufffd" not in answer.text
    assert all("\ufffd" not in piece for piece in answer.texts)
    assert len(answer.texts) > 20


async def test_what_a_model_cannot_do_is_listed(client: httpx.AsyncClient, url: str) -> None:
    answer = await whole(client, url, prompt=PROMPT, **GREEDY, lora="x", colour="red")
    assert answer["ignored"] == ["lora", "colour"]


async def test_too_long_is_said_with_its_numbers(client: httpx.AsyncClient, url: str) -> None:
    long = "the " * 4 * LENGTH
    for fields in ({"prompt": long}, {"prompt": PROMPT, "max_tokens": LENGTH}):
        status, code, message = await refused(client, url, **fields)
        assert (status, code) == (400, "context_length_exceeded")
        assert str(LENGTH) in message
    longest = await whole(client, url, prompt="the", temperature=0)
    counted = longest["usage"]
    assert longest["finish_reason"] == "length"
    assert counted["prompt_tokens"] + counted["completion_tokens"] == LENGTH


@pytest.mark.parametrize(
    "fields",
    [
        {"logit_bias": {"100000": 1}},
        {"json_schema": {"type": "no such type"}},
        {"regex": "(unclosed"},
        {"grammar": "start: ("},
    ],
)
async def test_what_cannot_be_is_refused(client: httpx.AsyncClient, url: str, fields: dict[str, Any]) -> None:
    status, code, _ = await refused(client, url, prompt=PROMPT, **fields)
    assert (status, code) == (400, "bad_request")


# --- with a memory that the test steps by hand ---


class Stepped:
    """A memory that makes a step when it is told to, and remembers which slots were in each."""

    def __init__(self, inner: Any) -> None:
        self.count, self.length, self._inner = inner.count, inner.length, inner
        self.taken: list[list[int]] = []
        self.fails: Exception | None = None
        self.third = asyncio.Event()
        """The third prompt was taken in, after ``steps_at_third`` steps."""
        self.steps_at_third = 0
        self._filled = 0
        self._permits = asyncio.Semaphore(0)
        self._loop = asyncio.get_running_loop()
        self._free = False

    def fill(self, slots: Any, prompts: Any) -> Any:
        self._filled += len(slots)
        if self._filled == 3:
            self.steps_at_third = len(self.taken)
            self._loop.call_soon_threadsafe(self.third.set)
        return self._inner.fill(slots, prompts)

    def put(self, slots: Any, ids: Any) -> None:
        self._inner.put(slots, ids)

    def free(self, slot: int) -> None:
        self._inner.free(slot)

    def step(self, slots: Any, longest: int) -> Any:
        if not self._free:
            asyncio.run_coroutine_threadsafe(self._permits.acquire(), self._loop).result(30)
        if self.fails:
            failure, self.fails = self.fails, None
            raise failure
        self.taken.append(list(slots))
        return self._inner.step(slots, longest)

    def allow(self, steps: int) -> None:
        for _ in range(steps):
            self._permits.release()

    def run_free(self) -> None:
        self._free = True
        self.allow(1)


class Watched(TransformersEngine):
    """Tells when a request was closed, and how many steps there had been."""

    def __init__(self, loaded: Any, options: Options, memory: Stepped) -> None:
        super().__init__(loaded, options)
        self.memory = memory
        self.closed = asyncio.Event()
        self.steps_at_close = 0

    async def generate(self, request: Request) -> Any:
        inner = super().generate(request)
        try:
            async for item in inner:
                yield item
        finally:
            await inner.aclose()
            self.steps_at_close = len(self.memory.taken)
            self.closed.set()


async def stepped(folder: Path, batch: int = 2) -> Watched:
    from dataclasses import replace

    options = Options(model=str(folder), max_batch=batch)
    loaded = await asyncio.to_thread(load, options)
    memory = Stepped(loaded.memory)
    return Watched(replace(loaded, memory=memory), options, memory)


async def test_a_client_that_leaves_frees_its_slot_within_two_steps(
    host: Host, wire: type[Wire], model_folder: Path
) -> None:
    engine = await stepped(model_folder)
    url = host.serve(contract_app(engine))
    fields = {"prompt": "the", "max_tokens": 400, "temperature": 0, "logprobs": 0, "stream": True}
    leaving = await wire.post(url, fields)
    engine.memory.allow(2)
    await leaving.until(b"data: ")
    staying = await wire.post(url, fields)
    engine.memory.allow(2)
    await staying.until(b"data: ")
    waiting = await wire.post(url, fields)
    await leaving.leave()
    await asyncio.wait_for(engine.closed.wait(), 30)
    before = engine.steps_at_close
    engine.memory.allow(4)
    await asyncio.wait_for(engine.memory.third.wait(), 30)
    assert engine.memory.steps_at_third - before <= 2
    engine.memory.run_free()
    await staying.leave()
    await waiting.leave()
    await engine.close()


async def test_out_of_memory_fails_the_answer_and_the_engine_lives(
    host: Host, client: httpx.AsyncClient, model_folder: Path
) -> None:
    engine = await stepped(model_folder)
    url = host.serve(contract_app(engine))
    engine.memory.fails = torch.cuda.OutOfMemoryError("CUDA out of memory")
    engine.memory.run_free()
    found = await refused(client, url, prompt="the", max_tokens=9)
    assert found[:2] == (503, "out_of_memory")
    again = await whole(client, url, prompt="the", max_tokens=9, temperature=0)
    assert again["usage"]["completion_tokens"] == 9
    assert (await client.get(f"{url}/health")).status_code == 200
    await engine.close()


async def test_any_other_failure_is_the_engine_s_end(
    host: Host, client: httpx.AsyncClient, model_folder: Path
) -> None:
    engine = await stepped(model_folder)
    url = host.serve(contract_app(engine))
    engine.memory.fails = RuntimeError("CUDA error: device-side assert triggered")
    engine.memory.run_free()
    fields = {"prompt": "the", "max_tokens": 9}
    running = await asyncio.gather(*[refused(client, url, **fields) for _ in range(3)])
    assert {found[:2] for found in running} == {(503, "engine_dead")}
    assert (await refused(client, url, **fields))[:2] == (503, "engine_dead")
    assert (await client.get(f"{url}/health")).status_code == 503
    with pytest.raises(EngineDead):
        engine._decoding.submit(None)  # type: ignore[arg-type]
    await engine.close()


async def test_more_than_the_queue_holds_is_busy(
    host: Host, client: httpx.AsyncClient, wire: type[Wire], model_folder: Path
) -> None:
    options = Options(model=str(model_folder), max_batch=1, max_queue=0)
    engine = TransformersEngine(await asyncio.to_thread(load, options), options)
    found = await refused(client, host.serve(contract_app(engine)), prompt="the", max_tokens=9)
    assert found[:2] == (429, "busy")
    await engine.close()


# --- making one ---


@pytest.fixture
def careful_folder(model_folder: Path, tmp_path: Path) -> Path:
    """The model with sampling defaults of its own."""
    for file in model_folder.iterdir():
        (tmp_path / file.name).symlink_to(file)
    (tmp_path / "generation_config.json").unlink()
    said = json.loads((model_folder / "generation_config.json").read_text())
    (tmp_path / "generation_config.json").write_text(json.dumps({**said, "do_sample": True, "top_k": 1}))
    return tmp_path


async def test_the_model_s_own_defaults_hold_where_the_request_says_nothing(
    careful_folder: Path, engine: TransformersEngine
) -> None:
    careful = make_engine("transformers", {"model": str(careful_folder), "dtype": "float32"})

    async def answer(of: Any, **fields: Any) -> str:
        items = [item async for item in of.generate(Request(prompt=PROMPT, max_tokens=30, **fields))]
        return "".join(item.text for item in items[:-1])

    greedy = await answer(engine, temperature=0)
    assert await answer(careful, seed=1) == greedy
    assert await answer(careful, seed=1, top_k=0) == await answer(engine, seed=1) != greedy
    await careful.close()


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        ({}, "'model'"),
        ({"model": "x", "colour": "red"}, "'colour'"),
        ({"model": "x", "dtype": "nn"}, "bfloat16"),
        ({"model": "x", "quantization": {"method": "magic"}}, "bitsandbytes"),
    ],
)
def test_a_wrong_argument_is_named(model_folder: Path, arguments: dict[str, Any], part: str) -> None:
    if "model" in arguments:
        arguments = {**arguments, "model": str(model_folder)}
    with pytest.raises(ValueError, match=part):
        make_engine("transformers", arguments)


async def test_a_model_whose_cache_does_not_batch_answers_the_same(
    model_folder: Path, engine: TransformersEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    from modal_backend.engines.transformers_engine import loading

    monkeypatch.setattr(loading, "batchable", lambda model: False)
    apart = make_engine("transformers", {"model": str(model_folder), "dtype": "float32"})
    assert type(apart._loaded.memory).__name__ == "Apart"  # type: ignore[attr-defined]

    async def answers(of: Any) -> list[Any]:
        async def one(prompt: str, seed: int) -> Any:
            asked = Request(prompt=prompt, max_tokens=20, seed=seed, temperature=0.7)
            items = [item async for item in of.generate(asked)]
            assert isinstance(items[-1], Done)
            return "".join(item.text for item in items[:-1]), items[-1]

        return await asyncio.gather(*[one(prompt, seed) for seed, prompt in enumerate(PROMPTS)])

    assert await answers(apart) == await answers(engine)
    await apart.close()

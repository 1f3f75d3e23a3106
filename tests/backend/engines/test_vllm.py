"""The vLLM engine behind the contract app, on an imitation that takes what vLLM's record has and no more."""

from __future__ import annotations

import asyncio
import json
import math
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import aclosing
from pathlib import Path
from typing import Any

import httpx
import pytest
import torch
import transformers

from gateway.conformance.fit import Credentials
from gateway.conformance.run import examine
from modal_backend.container import Container
from modal_backend.contract import contract_app
from modal_backend.deployment import DeploymentError, read
from modal_backend.engine import Piece, Request
from modal_backend.fields import APP_HONOURS, FIELDS
from modal_backend.source import load, names
from tests.backend.conftest import Host, Wire
from tests.backend.engines import imitation_vllm as imitation
from tests.backend.engines.asking import refused, streamed, whole
from tests.backend.engines.record_vllm import WANTED, record
from tests.backend.engines.tiny import ASSISTANT, BOS, EOS, USER

pytestmark = pytest.mark.torch

ROOT = Path(__file__).parents[3]
LENGTH = 4096
PROMPT = f"{BOS}{USER}the river runs 你好{ASSISTANT}"
GREEDY: dict[str, Any] = {"temperature": 0, "max_tokens": 40}
PNG = "data:image/png;base64,iVBORw0KGgo="


@pytest.fixture(scope="module", autouse=True)
def _installed() -> Iterator[None]:
    imitation.install()
    yield
    imitation.remove()


Make = Callable[..., Any]


@pytest.fixture
async def make(model_folder: Path, anyio_backend: str) -> AsyncIterator[Make]:
    from modal_backend.engines import make_engine

    made: list[Any] = []

    def one(**arguments: Any) -> Any:
        given = {"model": str(model_folder), "context_length": LENGTH, **arguments}
        made.append(make_engine("vllm", given))
        return made[-1]

    yield one
    for engine in made:
        if permits := engine._llm.script.permits:  # what a failed test left waiting would never end
            for _ in range(LENGTH):
                permits.release()
        await engine.close()


@pytest.fixture
def engine(make: Make) -> Any:
    return make()


@pytest.fixture
def url(host: Host, engine: Any) -> str:
    return host.serve(contract_app(engine))


@pytest.fixture(scope="session")
def tokenizer(model_folder: Path) -> Any:
    return transformers.AutoTokenizer.from_pretrained(model_folder)


def asked(engine: Any) -> tuple[dict[str, Any], Any]:
    """The last prompt and sampling parameters that vLLM was given."""
    prompt, params, _ = engine._llm.seen.asked[-1]
    return prompt, params


async def until(condition: Callable[[], bool], engine: Any) -> None:
    async with asyncio.timeout(30):
        while not condition():
            engine._llm.seen.changed.clear()
            await engine._llm.seen.changed.wait()


# --- what both are held to ---


async def test_it_conforms(url: str) -> None:
    report = await examine(url, Credentials(), 30)
    assert report.good, report


def test_it_was_written_for_what_is_recorded_and_deployed() -> None:
    from modal_backend.engines.vllm_engine.loading import WRITTEN_FOR

    assert imitation.RECORDED["version"] == WRITTEN_FOR
    mine = [made for name in names() if (made := load(name)[0]).engine == "vllm" and made.serve == "web"]
    assert mine
    for deployment in mine:
        assert f"vllm=={WRITTEN_FOR}" in deployment.image.pip


def test_the_imitation_has_no_name_that_is_not_recorded() -> None:
    assert set(imitation.IMITATED) == set(imitation.NAMES) == set(WANTED)
    for wanted, made in imitation.IMITATED.items():
        if members := imitation.NAMES[wanted].get("members"):
            public = {name for name in vars(made) if not name.startswith("_")}
            assert public <= set(members), wanted


# --- parameters ---


def test_every_field_is_honoured_or_known_not_to_be(make: Make) -> None:
    everything = frozenset(FIELDS) - APP_HONOURS
    assert make().about.honours == everything - {"lora", "images"}
    assert make(adapters={"a": "b"}, additional_config={"images": True}).about.honours == everything


@pytest.mark.parametrize(
    ("given", "written"),
    [
        (("max_tokens", 7), ("max_tokens", 7)),
        (("temperature", 0.7), ("temperature", 0.7)),
        (("temperature", 1e-6), ("temperature", 0.0)),
        (("top_p", 0.5), ("top_p", 0.5)),
        (("top_p", 0), ("top_p", 1e-6)),
        (("top_k", 5), ("top_k", 5)),
        (("top_k", -1), ("top_k", -1)),
        (("min_p", 0.1), ("min_p", 0.1)),
        (("presence_penalty", -1.5), ("presence_penalty", -1.5)),
        (("frequency_penalty", 0.5), ("frequency_penalty", 0.5)),
        (("repetition_penalty", 1.2), ("repetition_penalty", 1.2)),
        (("seed", 11), ("seed", 11)),
        (("seed", -1), ("seed", (1 << 63) - 1)),
        (("logit_bias", {"40": 4}), ("logit_bias", {40: 4})),
        (("stop_token_ids", [40]), ("stop_token_ids", [40])),
        (("logprobs", 0), ("logprobs", 0)),
    ],
)
async def test_a_field_reaches_vllm_under_its_name(
    client: httpx.AsyncClient, engine: Any, url: str, given: tuple[str, Any], written: tuple[str, Any]
) -> None:
    answer = await whole(client, url, prompt=PROMPT, **{"max_tokens": 5, given[0]: given[1]})
    params = asked(engine)[1]
    assert getattr(params, written[0]) == written[1]
    assert params.output_kind is imitation.RequestOutputKind.DELTA
    assert answer["ignored"] == []


async def test_what_nobody_says_is_the_model_s_own(client: httpx.AsyncClient, host: Host, make: Make) -> None:
    engine = make(additional_config={"defaults": {"temperature": 0.6, "top_k": 20, "max_tokens": 3}})
    url = host.serve(contract_app(engine))
    await whole(client, url, prompt="the", top_k=5, stop=["\ufffd", "e"])
    params = asked(engine)[1]
    assert (params.temperature, params.top_k, params.top_p, params.max_tokens) == (0.6, 5, 1.0, None)
    assert params.stop is None  # the app's business


@pytest.mark.parametrize(
    ("given", "name"),
    [
        (("json_schema", {"type": "object"}), "json"),
        (("regex", "a+"), "regex"),
        (("grammar", "start: /a/"), "grammar"),
    ],
)
async def test_a_guide_reaches_vllm(
    client: httpx.AsyncClient, url: str, engine: Any, given: tuple[str, Any], name: str
) -> None:
    answer = await whole(client, url, prompt=PROMPT, **{given[0]: given[1]})
    assert getattr(asked(engine)[1].structured_outputs, name) == given[1]
    assert (answer["prompt"], answer["finish_reason"]) == (imitation.GUIDED[name], "stop")
    config = engine._llm.seen.args.structured_outputs_config
    assert (config.backend, config.disable_any_whitespace) == ("guidance", True)


# --- answers ---


@pytest.mark.parametrize("burst", [1, 3, 7])
async def test_the_stream_is_the_whole(
    client: httpx.AsyncClient, url: str, engine: Any, tokenizer: Any, burst: int
) -> None:
    engine._llm.script.burst = burst
    answer = await whole(client, url, prompt=PROMPT, **GREEDY, logprobs=2)
    pieces = await streamed(client, url, prompt=PROMPT, **GREEDY, logprobs=2)
    assert pieces.done
    assert pieces.text == answer["prompt"]
    assert pieces.logprobs == answer["logprobs"]
    assert pieces.last["finish_reason"] == answer["finish_reason"] == "length"
    given = len(tokenizer(PROMPT, add_special_tokens=False)["input_ids"])
    assert answer["usage"]["prompt_tokens"] == given
    assert answer["usage"]["completion_tokens"] == pieces.last["usage"]["completion_tokens"] == 40


async def test_a_stop_string_cuts_and_aborts(client: httpx.AsyncClient, url: str, engine: Any) -> None:
    full = (await whole(client, url, prompt=PROMPT, **GREEDY))["prompt"]
    stop = full[20:24]
    cut = await whole(client, url, prompt=PROMPT, stop=[stop], **GREEDY)
    pieces = await streamed(client, url, prompt=PROMPT, stop=[stop], **GREEDY)
    assert cut["prompt"] == pieces.text == full[: full.index(stop)]
    assert cut["finish_reason"] == pieces.last["finish_reason"] == "stop"
    assert cut["usage"]["completion_tokens"] < 40
    assert not engine._llm.seen.running
    assert len(engine._llm.seen.aborted) >= 2


async def test_ends_are_no_part_of_the_answer(client: httpx.AsyncClient, url: str, tokenizer: Any) -> None:
    end, word = tokenizer.convert_tokens_to_ids([EOS, USER])
    for token, fields in ((end, {}), (word, {"stop_token_ids": [word]})):
        bias = {"logit_bias": {str(token): 100}}
        answer = await whole(client, url, prompt=PROMPT, **GREEDY, **bias, **fields, logprobs=1)
        assert (answer["prompt"], answer["finish_reason"], answer["logprobs"]) == ("", "stop", [])
        assert answer["usage"]["completion_tokens"] == 1


async def test_an_answer_that_ended_is_not_aborted(client: httpx.AsyncClient, url: str, engine: Any) -> None:
    await whole(client, url, prompt=PROMPT, **GREEDY)
    assert engine._llm.seen.aborted == []


async def test_the_prompt_has_one_beginning(
    client: httpx.AsyncClient, url: str, engine: Any, tokenizer: Any
) -> None:
    found = []
    for prompt in (PROMPT, PROMPT.removeprefix(BOS)):
        await whole(client, url, prompt=prompt, **GREEDY)
        found.append(asked(engine)[0]["prompt_token_ids"])
    assert found[0] == found[1]
    ids = tokenizer.convert_tokens_to_ids([BOS, USER, ASSISTANT])
    assert [found[0].count(one) for one in ids] == [1, 1, 1]
    assert engine._llm.seen.args.tokenizer_mode == "hf"  # others read no special tokens in a text


async def test_logprobs_are_in_the_contract_s_shape(client: httpx.AsyncClient, url: str) -> None:
    answer = await whole(client, url, prompt=PROMPT, **GREEDY, logprobs=3)
    assert len(answer["logprobs"]) == 40
    for entry in answer["logprobs"]:
        top = [one["logprob"] for one in entry["top_logprobs"]]
        assert top == sorted(top, reverse=True) == [-0.5, -1.5, -2.5]
        assert entry["logprob"] in (-0.5, -9.0)
    joined = b"".join(bytes(entry["bytes"]) for entry in answer["logprobs"])
    assert joined.decode(errors="replace") == answer["prompt"]
    bare = await whole(client, url, prompt=PROMPT, max_tokens=2, logprobs=0)
    assert [entry["top_logprobs"] for entry in bare["logprobs"]] == [[], []]
    assert all(math.isfinite(entry["logprob"]) for entry in bare["logprobs"])


async def test_cached_tokens_are_counted(client: httpx.AsyncClient, url: str) -> None:
    counted = [(await whole(client, url, prompt="the " * 60, max_tokens=1))["usage"] for _ in range(2)]
    assert counted[0]["cached_tokens"] == 0
    assert 0 < counted[1]["cached_tokens"] <= counted[1]["prompt_tokens"]


# --- adapters and images ---


async def test_an_adapter_is_named_loaded_once_and_used(
    client: httpx.AsyncClient, host: Host, make: Make, tmp_path: Path
) -> None:
    for name in ("law", "poems"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "adapter_config.json").write_text("{}")
    (tmp_path / "notes").mkdir()
    engine = make(adapters=str(tmp_path))
    assert engine._llm.seen.args.enable_lora is True
    url = host.serve(contract_app(engine))
    for _ in range(2):
        await whole(client, url, prompt="the", max_tokens=2, lora="poems")
    lora = engine._llm.seen.asked[-1][2]
    assert (lora.lora_name, lora.lora_int_id, lora.lora_path) == ("poems", 2, str(tmp_path / "poems"))
    assert engine._llm.seen.loaded == ["poems"]
    found = await refused(client, url, prompt="the", lora="notes")
    assert found == (400, "bad_request", "there is no adapter 'notes'; there are: law, poems")


async def test_an_adapter_that_cannot_be_loaded_fails_its_request_alone(
    client: httpx.AsyncClient, host: Host, make: Make
) -> None:
    url = host.serve(contract_app(make(adapters={"bad": "broken"})))
    assert (await refused(client, url, prompt="the", lora="bad"))[:2] == (500, "internal_error")
    assert (await whole(client, url, prompt="the", max_tokens=2))["finish_reason"] == "length"


async def test_without_adapters_and_images_both_are_ignored_aloud(
    client: httpx.AsyncClient, url: str
) -> None:
    answer = await whole(client, url, prompt="the", max_tokens=2, lora="x", images=[PNG], colour="red")
    assert answer["ignored"] == ["lora", "images", "colour"]


async def test_images_reach_a_model_that_sees(client: httpx.AsyncClient, host: Host, make: Make) -> None:
    engine = make(additional_config={"images": True})
    url = host.serve(contract_app(engine))
    await whole(client, url, prompt="the", max_tokens=2, images=[PNG, PNG])
    assert asked(engine)[0]["multi_modal_data"] == {"image": ["data:image/png of 12"] * 2}
    found = await refused(client, url, prompt="the", images=[PNG, "data:,x"])
    assert found == (400, "bad_request", "`images[1]` is no image that can be read")
    found = await refused(client, url, prompt="the", images=[PNG] * 5)  # which only vLLM can count
    assert found[:2] == (400, "context_length_exceeded")


# --- failures ---


async def test_too_long_is_said_with_its_numbers(client: httpx.AsyncClient, url: str) -> None:
    for fields in ({"prompt": "the " * 4 * LENGTH}, {"prompt": PROMPT, "max_tokens": LENGTH}):
        status, code, message = await refused(client, url, **fields)
        assert (status, code) == (400, "context_length_exceeded")
        assert str(LENGTH) in message


@pytest.mark.parametrize(
    "fields",
    [
        {"logit_bias": {"100000": 1}},
        {"json_schema": {"type": "no such type"}},
        {"grammar": "start: ("},
    ],
)
async def test_what_cannot_be_is_refused(client: httpx.AsyncClient, url: str, fields: dict[str, Any]) -> None:
    assert (await refused(client, url, prompt=PROMPT, **fields))[:2] == (400, "bad_request")


async def test_more_than_it_takes_is_busy(
    client: httpx.AsyncClient, host: Host, wire: type[Wire], make: Make
) -> None:
    engine = make(max_requests=1)
    engine._llm.script.permits = asyncio.Semaphore(1)
    url = host.serve(contract_app(engine))
    first = await wire.post(url, {"prompt": PROMPT, "stream": True, **GREEDY, "logprobs": 0})
    await first.until(b"data: ")
    assert (await refused(client, url, prompt="the"))[:2] == (429, "busy")
    await first.leave()
    await until(lambda: not engine._llm.seen.running, engine)
    for _ in range(1000):  # until it is counted, too
        if not engine._running:
            break
        await asyncio.sleep(0)
    engine._llm.script.permits = None
    assert (await whole(client, url, prompt="the", max_tokens=1))["finish_reason"] == "length"


@pytest.mark.parametrize("stream", [True, False])
async def test_a_client_that_leaves_aborts_its_request(
    wire: type[Wire], url: str, engine: Any, stream: bool
) -> None:
    engine._llm.script.permits = asyncio.Semaphore(2)
    leaving = await wire.post(url, {"prompt": PROMPT, "stream": stream, **GREEDY, "logprobs": 0})
    if stream:
        await leaving.until(b"data: ")
    else:
        await until(lambda: bool(engine._llm.seen.running), engine)
    [name] = engine._llm.seen.running
    await leaving.leave()
    await until(lambda: name in engine._llm.seen.aborted, engine)
    assert not engine._llm.seen.running


async def test_a_request_cancelled_while_it_is_taken_in_is_aborted(engine: Any) -> None:
    answer = engine.generate(Request(prompt="the"))
    async with asyncio.TaskGroup() as group:
        task = group.create_task(anext(answer))
        await until(lambda: bool(engine._llm.seen.running), engine)
        task.cancel()
    await answer.aclose()
    assert (engine._running, engine._llm.seen.running) == (0, set())


async def test_out_of_memory_fails_the_request_alone(
    client: httpx.AsyncClient, url: str, engine: Any
) -> None:
    engine._llm.script.fails = torch.OutOfMemoryError("CUDA out of memory")
    assert (await refused(client, url, prompt="the"))[:2] == (503, "out_of_memory")
    assert (await whole(client, url, prompt="the", max_tokens=2))["finish_reason"] == "length"


async def test_what_fails_after_the_first_output_is_nobodys_bad_request(engine: Any) -> None:
    async with aclosing(engine.generate(Request(prompt="the"))) as answer:
        assert isinstance(await anext(answer), Piece)
        engine._llm.script.fails = ValueError("too many values to unpack")
        with pytest.raises(ValueError, match="unpack"):
            async for _ in answer:
                pass
    assert (engine._running, engine._llm.seen.running) == (0, set())


@pytest.mark.parametrize("reason", ["abort", "error"])
async def test_what_vllm_broke_off_is_no_answer(
    client: httpx.AsyncClient, url: str, engine: Any, reason: str
) -> None:
    engine._llm.script.reason = reason
    assert (await refused(client, url, prompt="the"))[:2] == (500, "internal_error")
    late = await streamed(client, url, prompt="the")
    assert (late.done, late.last["error"]["code"]) == (False, "internal_error")


async def test_a_dead_engine_fails_all_and_says_so(client: httpx.AsyncClient, url: str, engine: Any) -> None:
    engine._llm.script.fails = imitation.EngineDeadError()
    assert (await refused(client, url, prompt="the"))[:2] == (503, "engine_dead")
    assert (await refused(client, url, prompt="the"))[:2] == (503, "engine_dead")
    health = await client.get(f"{url}/health")
    assert (health.status_code, health.json()["error"]["code"]) == (503, "engine_dead")


async def test_an_engine_that_dies_unseen_is_found_out(
    client: httpx.AsyncClient, url: str, engine: Any
) -> None:
    engine._llm.script.dead = True
    assert (await client.get(f"{url}/health")).status_code == 503


async def test_closing_is_no_fault(engine: Any) -> None:
    await engine.close()
    assert engine._llm.seen.shut_down
    assert engine.fault() is None


DYING = """
import sys
from tests.backend.engines import imitation_vllm
imitation_vllm.install()
from modal_backend import __main__, engines
make = engines.ENGINES["vllm"]

def dying(arguments):
    made = make(arguments)
    made._llm.script.fails = imitation_vllm.EngineDeadError()
    return made

engines.ENGINES["vllm"] = dying
__main__.main(["--engine", "vllm", "--model", sys.argv[1]])
"""


def test_a_dead_engine_ends_the_process(model_folder: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(
        [sys.executable, "-c", DYING, str(model_folder)], env=environment, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    ) as process:  # fmt: skip
        try:
            assert process.stdout is not None
            url = json.loads(process.stdout.readline())["url"]
            answer = httpx.post(url, json={"prompt": "p"}, trust_env=False, timeout=60)
            assert (answer.status_code, answer.json()["error"]["code"]) == (503, "engine_dead")
            process.communicate(timeout=60)
            assert process.returncode == 70
        finally:
            process.kill()


# --- arguments ---


def test_the_arguments_become_vllm_s(make: Make, model_folder: Path) -> None:
    args = make(
        revision="abc", max_num_seqs=8, structured_outputs_config={"backend": "xgrammar"}
    )._llm.seen.args
    assert (args.model, args.revision, args.max_model_len) == (str(model_folder), "abc", LENGTH)
    assert (args.max_num_seqs, args.structured_outputs_config.backend) == (8, "xgrammar")
    assert (args.tensor_parallel_size, args.enable_lora) == (1, False)
    assert args.enable_prefix_caching is None  # on, wherever the model can


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        ({"model": None}, "'model'"),
        ({"tool_call_parser": "hermes"}, "'tool_call_parser'.*vllm serve"),
        ({"tokenizer_mode": "mistral"}, "hf, slow, not 'mistral'"),
        ({"adapters": "."}, "no folder in . has an adapter_config.json"),
        ({"additional_config": {"broken": True}}, "vLLM did not start: Engine core initialization failed"),
    ],
)
def test_a_wrong_argument_is_named(
    model_folder: Path, arguments: dict[str, Any], part: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from modal_backend.engines import make_engine

    monkeypatch.chdir(tmp_path)
    given = {"model": str(model_folder), **arguments}
    with pytest.raises(ValueError, match=part):
        make_engine("vllm", {name: value for name, value in given.items() if value is not None})


async def test_a_container_loads_and_warms_it(model_folder: Path) -> None:
    container = Container(read("mine", {"model": str(model_folder), "engine": "vllm", "context_length": 512}))
    container.prepare()
    container.load()
    await container.warm_up()
    assert container.engine.about.name == "vllm"
    await container.close()


def test_where_vllm_is_missing_the_container_says_so(tmp_path: Path) -> None:
    script = (
        "from modal_backend.container import Container\n"
        "from modal_backend.deployment import read\n"
        "Container(read('m', {'model': 'a/b', 'engine': 'vllm'})).load()\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, check=False, capture_output=True, text=True, timeout=120
    )
    if done.returncode == 0:
        pytest.skip("vllm is installed here")
    assert f"{DeploymentError.__name__}: there is no module vllm here" in done.stderr


# --- the record ---

SOURCE = """
from dataclasses import dataclass
from .inner import Moved

@dataclass
class Base:
    first: int = 1

@dataclass
class Made(Base):
    second: str = Moved.second
    _own: int = 0

class Used:
    def __init__(self) -> None:
        self.held = 1
    @property
    def shown(self) -> int: ...
    async def called(self, one, two=2, *, three=None) -> None: ...
"""


def test_the_record_is_read_from_source(tmp_path: Path) -> None:
    package = tmp_path / "vllm"
    package.mkdir()
    (package / "_version.py").write_text("__version__ = version = '1.2'\n__commit_id__ = 'gabc'\n")
    (package / "__init__.py").write_text(SOURCE)
    (package / "inner.py").write_text("class Moved(Exception):\n    pass\n")
    wanted = {"vllm:Made": (), "vllm:Moved": (), "vllm:Used": ("held", "shown", "called")}
    called = {"parameters": {"one": None, "two": "2", "three": "None"}, "keyword_only": ["three"]}
    assert record(tmp_path, wanted) == {
        "version": "1.2",
        "commit": "abc",
        "names": {
            "vllm:Made": {"defined_in": "vllm", "parameters": {"first": "1", "second": "Moved.second"}},
            "vllm:Moved": {"defined_in": "vllm.inner", "parameters": {}},
            "vllm:Used": {
                "defined_in": "vllm",
                "members": {"held": "attribute", "shown": "property", "called": called},
            },
        },
    }
    with pytest.raises(LookupError, match="vllm:Used has no gone"):
        record(tmp_path, {"vllm:Used": ("gone",)})

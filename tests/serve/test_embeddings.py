"""``/v1/embeddings`` from the client to the container and back: parts, slots, failures, token ids."""

import asyncio
import base64
import json
import random
import struct
from array import array
from collections.abc import AsyncGenerator, Callable, Sequence
from pathlib import Path
from typing import Any

import httpx
import pytest

from gateway.allowances import Limits
from gateway.app import build_app
from gateway.auth import Keys
from gateway.core.call import Call, EmbedCall, Traits
from gateway.core.errors import GatewayError, NoContainer, UpstreamError
from gateway.core.events import Batch, Finish, Usage, Vectors
from gateway.record import Record
from gateway.routing.routes import Deployment, Routes
from gateway.routing.visit import Bounds
from gateway.serve.embeddings import AT_ONCE, Embeddings
from gateway.serve.service import Service
from gateway.settings import Auth, ConfigError, Server, settings_from
from gateway.telemetry.metrics import Metrics
from gateway.token_ids import CACHED, SPECIAL, Cl100k
from gateway.world import World
from tests.serve.house import (
    BOUND,
    House,
    Line,
    Scripted,
    Visit,
    container,
    deployed,
    faster,
    house,
    listening,
    settings,
    soon,
    unbounded,
)
from tests.serve.test_leaving import Hanging
from tests.serve.test_surface import KEY, KEYED, call, error

PATHS = ["/v1/embeddings", "/embeddings", "/v1/engines/m/embeddings", "/engines/m/embeddings"]
ROOM = Bounds(64, 64, 60.0)


def vector(text: str) -> list[float]:
    """Another one for every text, of numbers that 32 bits hold."""
    return [float(len(text)), *struct.unpack("<2H", struct.pack("<I", hash(text) & 0xFFFFFFFF))]


async def embed(visit: Visit) -> None:
    """A container of the contract."""
    texts = visit.json["input"]
    usage = {"prompt_tokens": len(texts), "completion_tokens": 0}
    await visit.answer({"embeddings": [vector(text) for text in texts], "usage": usage})


async def post(at: House, path: str = "/v1/embeddings", **fields: Any) -> httpx.Response:
    return await call(at, "POST", path, json={"model": "m", **fields})


def vectors(response: httpx.Response) -> list[list[float]]:
    """Those of a good answer, by their index."""
    assert response.status_code == 200, response.text
    body = response.json()
    assert body["object"] == "list"
    assert [item["index"] for item in body["data"]] == list(range(len(body["data"])))
    assert all(item["object"] == "embedding" for item in body["data"])
    return [item["embedding"] for item in body["data"]]


# --- the surface ---


async def test_every_address_answers_a_post_and_nothing_else() -> None:
    async with house(embed) as at:
        for path in PATHS:
            assert vectors(await post(at, path, input="a")) == [vector("a")]
            response = await call(at, "GET", path)
            assert (response.status_code, response.headers["allow"]) == (405, "POST")


async def test_an_answer_is_openai_s_with_our_headers() -> None:
    async with house(embed) as at:
        response = await post(at, input=["a", "bb"])
        assert vectors(response) == [vector("a"), vector("bb")]
        assert response.json()["model"] == "m"
        assert response.json()["usage"] == {"prompt_tokens": 2, "total_tokens": 2}
        assert response.headers["x-gateway-usage"] == "upstream"
        assert response.headers["x-gateway-upstream-state"] == "unknown"
        [visit] = at.container.visits
        assert visit.json == {"input": ["a", "bb"]}
        assert visit.headers["x-request-id"] == response.headers["x-request-id"]


async def test_the_address_may_name_the_model_with_slashes() -> None:
    async with house(embed, aliases=["org/name"]) as at:
        named = await call(at, "POST", "/v1/engines/org/name/embeddings", json={"input": "a"})
        assert vectors(named) == [vector("a")]
        assert named.json()["model"] == "org/name"
        both = await call(at, "POST", "/engines/org/name/embeddings", json={"input": "a", "model": "m"})
        assert error(both)["param"] == "model"


async def test_a_key_is_wanted() -> None:
    async with house(embed, KEYED) as at:
        refused = await post(at, input="a")
        assert (refused.status_code, error(refused)["code"]) == (401, "invalid_api_key")
        options = {"json": {"model": "m", "input": "a"}, "headers": {"authorization": f"Bearer {KEY}"}}
        assert vectors(await call(at, "POST", "/v1/embeddings", **options)) == [vector("a")]


async def test_what_is_wrong_is_refused_before_anything_is_called() -> None:
    async with house(embed, {"server": {"max_body": 2000}}) as at:
        for fields, param in [
            ({"input": []}, "input"),
            ({"input": ["a", ""]}, "input[1]"),
            ({"input": "a", "dimensions": 2}, "dimensions"),
            ({"input": "a", "encoding_format": "hex"}, "encoding_format"),
            ({}, "input"),
        ]:
            response = await post(at, **fields)
            assert (response.status_code, error(response)["param"]) == (400, param)
        assert error(await post(at, model="n", input="a"))["code"] == "model_not_found"
        assert (await post(at, input="a" * 3000)).status_code == 413
        form = await call(at, "POST", "/v1/embeddings", content=b"{}", headers={"content-type": "text/plain"})
        assert form.status_code == 415
        assert at.container.visits == []


async def test_unknown_fields_are_named() -> None:
    async with house(embed) as at:
        response = await post(at, input="a", odd=1)
        assert response.headers["x-gateway-ignored"] == "odd"


async def test_base64_and_floats_are_the_same_numbers() -> None:
    async with house(embed) as at:
        floats = vectors(await post(at, input=["a", "bb"], encoding_format="float"))
        coded = vectors(await post(at, input=["a", "bb"], encoding_format="base64"))
        for numbers, text in zip(floats, coded, strict=True):
            assert base64.b64decode(str(text)) == struct.pack(f"<{len(numbers)}f", *numbers)


async def test_an_answer_that_takes_long_shows_life_before_it_comes() -> None:
    ready = asyncio.Event()

    async def slow(visit: Visit) -> None:
        await ready.wait()
        await embed(visit)

    async with container(slow) as behind:
        app = build_app(settings_from(settings(behind.port), {}), loopback=True)
        body = json.dumps({"model": "m", "input": "a"}).encode()
        line = Line("/v1/embeddings", body)
        async with asyncio.TaskGroup() as group:
            with faster(100) as bound:
                asking = group.create_task(app(line.scope, line.receive, line.send))
                await soon(line.until(b"  "), bound)
                ready.set()
                await soon(asking, bound)
        assert line.status == 200
        assert json.loads(line.body)["data"][0]["embedding"] == vector("a")


# --- parts ---


async def test_a_batch_is_what_its_texts_are_alone() -> None:
    texts = [f"text {number}" for number in range(11)]
    async with house(embed, embedding_batch=4) as at:
        together = await post(at, input=texts)
        assert sorted(len(visit.json["input"]) for visit in at.container.visits) == [3, 4, 4]
        alone = [vectors(await post(at, input=text))[0] for text in texts]
        assert vectors(together) == alone
        assert together.json()["usage"]["prompt_tokens"] == len(texts)


async def test_the_order_is_the_client_s_in_whatever_order_the_parts_end() -> None:
    texts = [str(number) for number in range(AT_ONCE)]
    waiting: list[Callable[[], None]] = []

    async def last_first(visit: Visit) -> None:
        turn = asyncio.Event()
        waiting.append(turn.set)
        if len(waiting) == len(texts):
            waiting[-1]()
        await soon(turn.wait())
        await embed(visit)
        if waiting:
            waiting.pop()
        if waiting:
            waiting[-1]()

    async with house(last_first, embedding_batch=1) as at:
        assert vectors(await post(at, input=texts)) == [vector(text) for text in texts]


async def test_the_parts_of_one_request_are_under_way_a_few_at_a_time() -> None:
    running = most = 0
    full = asyncio.Event()

    async def counted(visit: Visit) -> None:
        nonlocal running, most
        running += 1
        most = max(most, running)
        if running == AT_ONCE:
            full.set()
        await soon(full.wait())
        running -= 1  # before the answer: the next part may come while it is written
        await embed(visit)

    texts = [str(number) for number in range(4 * AT_ONCE)]
    async with house(counted, embedding_batch=1) as at:
        assert vectors(await post(at, input=texts)) == [vector(text) for text in texts]
    assert most == AT_ONCE


async def test_a_request_of_many_parts_never_overflows_a_queue_by_itself() -> None:
    texts = [str(number) for number in range(20)]
    async with house(embed, embedding_batch=1, upstream={"max_concurrency": 2, "max_queue": 0}) as at:
        assert vectors(await post(at, input=texts)) == [vector(text) for text in texts]


async def test_a_part_that_fails_ends_the_request_and_the_other_parts() -> None:
    closed = asyncio.Semaphore(0)
    arrived = asyncio.Barrier(3)

    async def one_fails(visit: Visit) -> None:
        await soon(arrived.wait())
        if visit.json["input"] == ["1"]:
            failed = {"error": {"message": "no", "code": "bad_request"}}
            await visit.answer(failed, status="400 Bad Request")
        else:
            await visit.until_closed()
            closed.release()

    async with house(one_fails, embedding_batch=1) as at:
        response = await post(at, input=["0", "1", "2"])
        assert (response.status_code, error(response)["code"]) == (400, "upstream_bad_request")
        assert response.headers["x-gateway-upstream-state"] == "unknown"
        for _ in range(2):
            await soon(closed.acquire())


async def test_a_client_that_leaves_ends_every_part() -> None:
    closed = asyncio.Semaphore(0)
    arrived = asyncio.Semaphore(0)

    async def never(visit: Visit) -> None:
        arrived.release()
        await visit.until_closed()
        closed.release()

    async with house(never, embedding_batch=1) as at:
        async with asyncio.TaskGroup() as group:
            asking = group.create_task(post(at, input=["0", "1", "2"]))
            for _ in range(3):
                await soon(arrived.acquire())
            asking.cancel()
        for _ in range(3):
            await soon(closed.acquire())


# --- what is tried again, in this process ---

Answer = Callable[[EmbedCall], Batch | GatewayError]


def batch(call: EmbedCall) -> Batch:
    made = tuple(array("f", vector(text)) for text in call.texts)
    return [Vectors(made), Finish(usage=Usage(len(call.texts), 0))]


class Embedder(Scripted):
    """An upstream in this process that takes a while, never the same, and answers as it is told."""

    def __init__(self, name: str, answer: Answer = batch) -> None:
        super().__init__(name)
        self._answer = answer
        self._random = random.Random(7)

    @property
    def asked_for(self) -> list[str]:
        return [text for call in self.calls if isinstance(call, EmbedCall) for text in call.texts]

    async def events(self, call: Call) -> AsyncGenerator[Batch, None]:
        assert isinstance(call, EmbedCall)
        self.calls.append(call)
        for _ in range(self._random.randrange(20)):
            await asyncio.sleep(0)
        answer = self._answer(call)
        if isinstance(answer, GatewayError):
            raise answer
        yield answer


class Desk:
    """The endpoint over these models; ``records`` are what it observed."""

    def __init__(self, *models: Deployment) -> None:
        self.records: list[Record] = []
        self.metrics = Metrics()
        world = World(time=lambda: 0.0, monotonic=lambda: 0.0, new_id=lambda: "0" * 24)
        self._endpoint = Embeddings(
            Service(
                limits=Server(),
                keys=Keys(Auth(mode="none")),
                routes=Routes(models),
                world=world,
                began=self.metrics.began,
                observe=(self.metrics.observe, self.records.append),
                books=unbounded(world),
            )
        )

    async def ask(self, texts: Sequence[str], **fields: Any) -> Line:
        line = Line("/v1/embeddings", json.dumps({"model": "m", "input": texts, **fields}).encode())
        await self.take(line)
        return line

    async def take(self, line: Line) -> None:
        await soon(self._endpoint(line.scope, line.receive, line.send))


def in_parts(*upstreams: Scripted, name: str = "m", **fields: Any) -> Deployment:
    """A model that takes two texts a call."""
    spec = {"embedding_batch": 2, **fields.pop("spec", {})}
    return deployed(*upstreams, name=name, bounds=ROOM, spec=spec, **fields)


def failing(text: str, retry: str = "elsewhere") -> Answer:
    """Fails for the part that holds this text."""

    def answer(call: EmbedCall) -> Batch | GatewayError:
        wrong = UpstreamError("broken", retry=retry)  # type: ignore[arg-type]
        return wrong if text in call.texts else batch(call)

    return answer


TEXTS = [str(number) for number in range(31)]


def got(line: Line) -> list[list[float]]:
    assert line.status == 200, line.body
    return [item["embedding"] for item in json.loads(line.body)["data"]]


async def test_many_parts_come_back_in_order_and_are_one_record() -> None:
    upstream = Embedder("a")
    desk = Desk(in_parts(upstream))
    assert got(await desk.ask(TEXTS, user="u")) == [vector(text) for text in TEXTS]
    assert sorted(upstream.asked_for) == sorted(TEXTS)
    [record] = desk.records
    assert (record.route, record.asked, record.model, record.upstream) == ("embeddings", "m", "m", "a")
    assert (record.status, record.calls, record.user, record.finish) == (200, 1, "u", None)
    assert record.usage == Usage(len(TEXTS), 0)


async def test_another_upstream_of_the_model_is_asked_for_what_is_missing() -> None:
    first, second = Embedder("a", failing("30")), Embedder("b")
    desk = Desk(in_parts(first, second))
    assert got(await desk.ask(TEXTS)) == [vector(text) for text in TEXTS]
    assert "30" in second.asked_for
    assert len(second.asked_for) < len(TEXTS)
    [record] = desk.records
    assert (record.upstream, record.calls, record.usage) == ("b", 2, Usage(len(TEXTS), 0))


async def test_another_model_is_asked_for_everything() -> None:
    first, second = Embedder("a", failing("30")), Embedder("b")
    desk = Desk(in_parts(first, fallback=("n",)), in_parts(second, name="n", spec={"embedding_batch": 5}))
    assert got(await desk.ask(TEXTS)) == [vector(text) for text in TEXTS]
    assert sorted(second.asked_for) == sorted(TEXTS)


async def test_what_one_model_gave_is_never_completed_by_another() -> None:
    first, unfit, fit = Embedder("a", failing("30")), Embedder("b"), Embedder("c")
    unfit.traits = Traits("prompt", embeds=False)
    desk = Desk(in_parts(first, fallback=("n",)), in_parts(unfit, fit, name="n"))
    assert got(await desk.ask(TEXTS)) == [vector(text) for text in TEXTS]
    assert unfit.calls == []
    assert sorted(fit.asked_for) == sorted(TEXTS)


async def test_parts_that_came_are_counted_though_no_other_model_can_take_the_request() -> None:
    first, small = Embedder("a", failing("30")), Embedder("b")
    full = in_parts(small, name="n", limits=Limits(tokens_per_minute=1))
    desk = Desk(in_parts(first, fallback=("n",)), full)
    assert (await desk.ask(TEXTS)).status == 429
    [record] = desk.records
    assert (record.model, record.upstream, small.calls) == ("m", "a", [])
    assert record.usage is not None
    assert record.usage.prompt_tokens >= 2 * (len(TEXTS) // 2 - AT_ONCE)  # all but what was under way


async def test_whoever_leaves_when_a_part_fails_gets_no_other_call() -> None:
    gone = asyncio.Event()
    failing, spare = Scripted("a", [gone.wait, UpstreamError("no", retry="elsewhere")]), Embedder("b")
    desk = Desk(in_parts(failing, spare, balance="round_robin"))
    line = Hanging("/v1/embeddings", json.dumps({"model": "m", "input": TEXTS}).encode())
    line.gone = gone
    await desk.take(line)
    [record] = desk.records
    assert (record.client_left, record.calls, spare.calls, line.said) == (True, 1, [], [])


async def test_what_may_not_be_tried_again_is_not() -> None:
    first, second = Embedder("a", failing("3", "never")), Embedder("b")
    desk = Desk(in_parts(first, second))
    line = await desk.ask(TEXTS)
    assert (line.status, line.error["code"]) == (502, "upstream_error")
    assert second.calls == []
    [record] = desk.records
    assert (record.status, record.code, record.calls) == (502, "upstream_error", 1)


async def test_a_cold_upstream_is_waited_for_by_all_parts_and_asked_by_one() -> None:
    refused = 0

    def cold(call: EmbedCall) -> Batch | GatewayError:
        nonlocal refused
        if refused < AT_ONCE:  # all that were under way when it went to sleep
            refused += 1
            return NoContainer("none")
        return batch(call)

    desk = Desk(in_parts(Embedder("a", cold)))
    with faster(50):
        assert got(await desk.ask(TEXTS)) == [vector(text) for text in TEXTS]
    [record] = desk.records
    assert record.calls == 1


async def test_who_will_not_wait_is_told_at_once_that_there_is_no_container() -> None:
    async with house(lambda visit: visit.answer(b"", status="503 Service Unavailable")) as at:
        asked = {"json": {"model": "m", "input": ["a"]}, "headers": {"x-gateway-cold": "fail"}}
        response = await call(at, "POST", "/v1/embeddings", **asked)
        assert (response.status_code, error(response)["code"]) == (503, "upstream_cold")
        assert int(response.headers["retry-after"]) > 0


async def test_tokens_are_counted_where_the_upstream_does_not() -> None:
    def silent(call: EmbedCall) -> Batch:
        [made, _] = batch(call)
        return [made, Finish()]

    estimated = Desk(in_parts(Embedder("a", silent)))
    await estimated.ask(["a" * 40, "b" * 8, "c"])
    assert estimated.records[0].usage == Usage(13, 0, "estimate")
    counted = Desk(in_parts(Embedder("a", silent), count=len))
    await counted.ask(["a" * 40, "b" * 8, "c"])
    assert counted.records[0].usage == Usage(49, 0, "tokenizer")


async def test_a_text_that_is_too_long_is_named_before_anything_is_called() -> None:
    upstream = Embedder("a")
    line = await Desk(in_parts(upstream, count=len, spec={"context_length": 3})).ask(["a", "bbbb"])
    assert (line.status, line.error["code"], line.error["param"]) == (
        400, "context_length_exceeded", "input[1]",
    )  # fmt: skip
    assert upstream.calls == []


async def test_a_kind_that_makes_no_embeddings_says_so() -> None:
    config = {"kind": "modal", "app": "a", "function": "f"}
    settings = settings_from({"auth": {"mode": "none"}, "models": {"m": {"upstream": config}}}, {})
    line = Line("/v1/embeddings", b'{"model": "m", "input": "a"}')
    await soon(build_app(settings, loopback=True)(line.scope, line.receive, line.send))
    assert (line.status, line.error["param"]) == (400, "model")
    assert "kind: prompt" in line.error["message"]


async def test_the_demo_kind_gives_unit_vectors_that_never_change() -> None:
    config = {"auth": {"mode": "none"}, "models": {"m": {"upstream": {"kind": "demo"}}}}
    app = build_app(settings_from(config, {}), loopback=True)
    found = []
    for _ in range(2):
        line = Line("/v1/embeddings", b'{"model": "m", "input": ["a", "b", "a"]}')
        await soon(app(line.scope, line.receive, line.send))
        found.append(got(line))
    assert found[0] == found[1]
    first, other, again = found[0]
    assert first == again != other
    assert sum(number * number for number in first) == pytest.approx(1, abs=1e-6)


# --- servers that speak OpenAI's API ---


async def openai_server(visit: Visit) -> None:
    assert visit.path == "/v1/embeddings"
    cut = visit.json.get("dimensions")
    data = [
        {"object": "embedding", "index": index, "embedding": vector(text)[:cut]}
        for index, text in enumerate(visit.json["input"])
    ]
    usage = {"prompt_tokens": 4, "total_tokens": 4}
    await visit.answer({"object": "list", "data": data[::-1], "model": "there", "usage": usage})


def speaking_openai(port: int, end: str = "", **model: Any) -> Any:
    upstream = {
        "kind": "openai",
        "url": f"http://127.0.0.1:{port}/v1{end}",
        "model": "there",
        "api_key": "sk-1",
    }
    config = {"auth": {"mode": "none"}, "models": {"m": {"upstream": upstream, **model}}}
    return build_app(settings_from(config, {}), loopback=True)


async def ask_app(app: Any, **fields: Any) -> Line:
    line = Line("/v1/embeddings", json.dumps({"model": "m", **fields}).encode())
    await soon(app(line.scope, line.receive, line.send))
    return line


@pytest.mark.parametrize("end", ["", "/", "/embeddings", "/chat/completions"])
async def test_a_server_of_openai_s_api_is_asked_its_way(end: str) -> None:
    async with container(openai_server) as behind:
        line = await ask_app(speaking_openai(behind.port, end), input=["a", "bb"], user="u", dimensions=2)
        assert got(line) == [vector("a")[:2], vector("bb")[:2]]
        assert json.loads(line.body)["usage"] == {"prompt_tokens": 4, "total_tokens": 4}
        [visit] = behind.visits
        assert visit.json == {"model": "there", "input": ["a", "bb"], "user": "u", "dimensions": 2}
        assert visit.headers["authorization"] == "Bearer sk-1"


async def test_dimensions_are_made_here_where_the_config_says_so() -> None:
    async with container(openai_server) as behind:
        app = speaking_openai(behind.port, matryoshka=True)
        [cut] = got(await ask_app(app, input="a", dimensions=2))
        whole = vector("a")[:2]
        norm = sum(number * number for number in whole) ** 0.5
        assert cut == pytest.approx([number / norm for number in whole])
        assert "dimensions" not in behind.visits[0].json
        line = await ask_app(app, input="a", dimensions=9)
        assert (line.status, line.error["param"]) == (400, "dimensions")


async def test_an_endpoint_that_only_continues_prompts_is_told_apart() -> None:
    async def takes_prompts(visit: Visit) -> None:
        missing = {"detail": [{"type": "missing", "loc": ["body", "prompt"], "msg": "Field required"}]}
        await visit.answer(missing, status="422 Unprocessable Entity")

    async with house(takes_prompts) as at:
        refused = error(await post(at, input="a"))
        assert refused["code"] == "upstream_refused"
        assert "for `input`" in refused["message"]
    async with house(lambda visit: visit.answer({"prompt": "hi"})) as at:
        refused = error(await post(at, input="a"))
        assert (refused["code"], "makes embeddings" in refused["message"]) == ("upstream_bad_response", True)


# --- token ids ---


def table_file(folder: Path) -> Path:
    """A small table in tiktoken's form: every byte, and two words."""
    tokens = [bytes([byte]) for byte in range(256)] + [b"hello", b" world"]
    lines = [base64.b64encode(token) + b" %d" % rank for rank, token in enumerate(tokens)]
    file = folder / "cl100k_base.tiktoken"
    file.write_bytes(b"\n".join(lines) + b"\n")
    return file


async def test_ids_are_read_by_the_table_that_the_config_names(tmp_path: Path) -> None:
    ids = [[256, 257], list("你好".encode()), [next(iter(SPECIAL))], [0xE4]]
    async with house(embed, embedding_ids=str(table_file(tmp_path))) as at:
        assert vectors(await post(at, input=ids[0])) == [vector("hello world")]
        assert (await post(at, input=ids)).status_code == 200
        assert at.container.visits[1].json == {"input": ["hello world", "你好", "<|endoftext|>", "\ufffd"]}
        refused = error(await post(at, input=[[256], [300]]))
        assert (refused["param"], "300" in refused["message"]) == ("input", True)


async def test_without_a_table_the_client_is_told_what_to_set(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TIKTOKEN_CACHE_DIR", str(tmp_path))
    async with house(embed) as at:
        refused = error(await post(at, input=[256, 257]))
        assert (refused["param"], refused["code"]) == ("input", "unsupported_content")
        assert "check_embedding_ctx_length=False" in refused["message"]
        assert at.container.visits == []


async def test_a_table_that_was_found_and_is_not_the_real_one_is_not_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    table_file(tmp_path).rename(tmp_path / CACHED)
    monkeypatch.setenv("TIKTOKEN_CACHE_DIR", str(tmp_path))
    with pytest.raises(GatewayError, match="not on this machine"):
        Cl100k()([256])


async def test_ids_of_the_model_s_own_tokenizer(tmp_path: Path) -> None:
    tokenizers = pytest.importorskip("tokenizers", reason="tokenizers is not installed")
    words = {word: number for number, word in enumerate(["<unk>", "hello", "world"])}
    made = tokenizers.Tokenizer(tokenizers.models.WordLevel(words, unk_token="<unk>"))
    made.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    made.save(str(tmp_path / "tokenizer.json"))
    async with house(embed, tokenizer=str(tmp_path), embedding_ids="model") as at:
        assert vectors(await post(at, input=[[1, 2], [2]])) == [vector("hello world"), vector("world")]
        assert error(await post(at, input=[3]))["param"] == "input"


@pytest.mark.parametrize(
    ("keys", "part"),
    [
        ({"embedding_ids": "model"}, "models.m.embedding_ids: model needs models.m.tokenizer"),
        ({"embedding_ids": "nowhere.tiktoken"}, "models.m.embedding_ids: there is no file"),
    ],
)
def test_a_wrong_entry_is_named(keys: dict[str, Any], part: str) -> None:
    with pytest.raises(ConfigError, match=part):
        build_app(settings_from(settings(1, **keys), {}), loopback=True)


@pytest.mark.parametrize("line", [b"", b"no", b"!! 1", b"YQ== x"])
def test_a_file_that_is_no_table_is_named(line: bytes, tmp_path: Path) -> None:
    (tmp_path / "t").write_bytes(line)
    with pytest.raises(ConfigError, match="embedding_ids"):
        build_app(settings_from(settings(1, embedding_ids=str(tmp_path / "t")), {}), loopback=True)


async def test_it_is_served_like_any_other_endpoint_to_a_browser() -> None:
    config = {**settings(1), "server": {"cors_origins": ["https://app.example"]}}
    async with (
        listening(build_app(settings_from(config, {}), loopback=True)) as port,
        httpx.AsyncClient() as c,
    ):
        asked = {"origin": "https://app.example", "access-control-request-method": "POST"}
        answer = await c.options(f"http://127.0.0.1:{port}/v1/embeddings", headers=asked, timeout=BOUND)
        assert answer.headers["access-control-allow-origin"] == "https://app.example"

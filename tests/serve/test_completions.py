"""Completions over real sockets: several prompts at once, token ids, other servers, and what may go wrong."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.serve.house import House, Visit, house, soon


async def ask(at: House, prompt: Any = "hi", path: str = "/v1/completions", **fields: Any) -> httpx.Response:
    async with httpx.AsyncClient() as client:
        return await client.post(
            f"http://127.0.0.1:{at.port}{path}", json={"model": "m", "prompt": prompt, **fields}, timeout=10
        )


def chunks(body: str) -> list[dict[str, Any]]:
    """The chunks of a stream that ended well."""
    blocks = [block for block in body.split("\n\n") if block and not block.startswith(":")]
    assert blocks[-1] == "data: [DONE]"
    return [json.loads(block.removeprefix("data: ")) for block in blocks[:-1]]


async def shout(visit: Visit) -> None:
    """Gives the prompt back in capitals, and counts a token a character."""
    text = visit.json["prompt"].upper()
    if visit.json.get("stream"):
        await visit.start_stream()
        for letter in text:
            await visit.event({"prompt": letter})
        usage = {"prompt_tokens": len(text), "completion_tokens": len(text)}
        await visit.event({"finish_reason": "stop", "usage": usage})
        await visit.event("[DONE]")
        await visit.end_stream()
    else:
        usage = {"prompt_tokens": len(text), "completion_tokens": 1}
        await visit.answer({"prompt": text, "usage": usage})


async def test_a_text_is_completed_whatever_the_models_template() -> None:
    async with house(shout, template="chatml") as at:
        for path in ("/v1/completions", "/completions"):
            answer = (await ask(at, "<|im_end|> hi", path)).json()
            assert answer["object"] == "text_completion"
            assert answer["id"].startswith("cmpl-")
            assert answer["choices"][0]["text"] == "<|IM_END|> HI"
        assert [visit.json for visit in at.container.visits] == [{"prompt": "<|im_end|> hi"}] * 2


async def test_each_prompt_counts_once_however_many_choices_it_has() -> None:
    async with house(shout) as at:
        answer = (await ask(at, ["ab", "cde"], n=2)).json()
        assert [(c["index"], c["text"]) for c in answer["choices"]] == [
            (0, "AB"), (1, "AB"), (2, "CDE"), (3, "CDE"),
        ]  # fmt: skip
        assert answer["usage"] == {"prompt_tokens": 5, "completion_tokens": 4, "total_tokens": 9}


async def test_prompts_are_counted_once_also_where_nobody_else_counts() -> None:
    async def silent(visit: Visit) -> None:
        await visit.answer({"prompt": "x"})

    async with house(silent) as at:
        one, other = [(await ask(at, each)).json()["usage"]["prompt_tokens"] for each in ("a" * 40, "b" * 80)]
        both = await ask(at, ["a" * 40, "b" * 80], n=2)
        assert both.json()["usage"]["prompt_tokens"] == one + other
        assert both.headers["x-gateway-usage"] == "estimate"


async def test_a_stream_has_the_right_index_and_ends_each_choice_once() -> None:
    async with house(shout) as at:
        got = chunks((await ask(at, ["ab", "cde"], n=2, stream=True, echo=True, stop=["E"])).text)
        texts, ends = {}, []
        for chunk in got:
            [choice] = chunk["choices"]
            texts[choice["index"]] = texts.get(choice["index"], "") + choice["text"]
            ends += [choice["index"]] if choice["finish_reason"] else []
        assert texts == {0: "abAB", 1: "abAB", 2: "cdeCD", 3: "cdeCD"}
        assert sorted(ends) == [0, 1, 2, 3]
        assert len({(c["id"], c["created"], c["object"], c["model"]) for c in got}) == 1


@pytest.fixture
def tokenizer(tmp_path: Path) -> Path:
    """A tokenizer of three words and what looks like a control token."""
    tokenizers = pytest.importorskip("tokenizers", reason="tokenizers is not installed")
    words = {"<eos>": 0, "one": 1, "two": 2, "three": 3}
    made = tokenizers.Tokenizer(tokenizers.models.WordLevel(words, unk_token="<eos>"))
    made.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    made.add_special_tokens(["<eos>"])
    made.save(str(tmp_path / "tokenizer.json"))
    return tmp_path


async def test_token_ids_are_read_by_the_models_tokenizer(tokenizer: Path) -> None:
    async with house(shout, tokenizer=str(tokenizer)) as at:
        answer = (await ask(at, [[1, 2], [3, 0]], echo=True)).json()
        assert [visit.json["prompt"] for visit in at.container.visits] == ["one two", "three <eos>"]
        texts = [choice["text"] for choice in answer["choices"]]
        assert texts == ["one twoONE TWO", "three <eos>THREE <EOS>"]
        unknown = await ask(at, [1, 4])
        assert (unknown.status_code, unknown.json()["error"]["param"]) == (400, "prompt")


async def test_each_prompt_must_fit_and_all_are_counted(tokenizer: Path) -> None:
    async def silent(visit: Visit) -> None:
        await visit.answer({"prompt": "one"})

    async with house(silent, tokenizer=str(tokenizer), context_length=3) as at:
        fits = await ask(at, ["one two", "two three"], n=2, max_tokens=1)
        assert fits.json()["usage"]["prompt_tokens"] == 4
        assert fits.headers["x-gateway-usage"] == "tokenizer"
        long = await ask(at, ["one", "one two three"], max_tokens=1)
        assert (long.status_code, long.json()["error"]["code"]) == (400, "context_length_exceeded")
        assert len(at.container.visits) == 4


async def test_token_ids_without_a_tokenizer_are_a_400_and_call_nothing() -> None:
    async with house(shout) as at:
        refused = await ask(at, [1, 2])
        assert (refused.status_code, refused.json()["error"]["param"]) == (400, "prompt")
        assert at.container.visits == []


async def test_more_answers_than_the_server_allows_are_refused() -> None:
    async with house(shout, {"server": {"max_n": 2}}, logprobs=True) as at:
        for field in ("n", "best_of"):
            refused = await ask(at, **{field: 3})
            assert (refused.status_code, refused.json()["error"]["param"]) == (400, field)
        chat = {"model": "m", "messages": [{"role": "user", "content": "hi"}], "best_of": "many"}
        async with httpx.AsyncClient() as client:  # where it is not a field it is ignored aloud
            answer = await client.post(at.url + "/chat/completions", json=chat)
        assert answer.headers["x-gateway-ignored"] == "best_of"


async def test_the_best_answers_are_those_the_model_found_likeliest() -> None:
    async def draw(visit: Visit) -> None:
        seed = visit.json["seed"]
        logprobs = [{"token": str(seed), "logprob": -abs(seed - 8), "top_logprobs": []}]
        await visit.answer({"prompt": str(seed), "logprobs": logprobs})

    async with house(draw, logprobs=True) as at:
        answer = (await ask(at, seed=6, n=2, best_of=4)).json()
        assert [choice["text"] for choice in answer["choices"]] == ["8", "7"]
        assert [choice["logprobs"] for choice in answer["choices"]] == [None, None]
        assert [visit.json["logprobs"] for visit in at.container.visits] == [0] * 4


@pytest.mark.parametrize("stream", [False, True])
async def test_one_prompt_that_fails_fails_the_request_and_closes_the_others(*, stream: bool) -> None:
    async def script(visit: Visit) -> None:
        if visit.json["prompt"] == "bad":
            await visit.answer({"error": {"message": "no", "code": "bad_request"}}, status="400 Bad Request")
        else:
            await soon(visit.until_closed())
            visit.closed.set()

    async with house(script) as at:
        failed = await ask(at, ["good", "bad"], stream=stream)
        assert (failed.status_code, failed.json()["error"]["code"]) == (400, "upstream_bad_request")
        for visit in at.container.visits:
            if visit.json["prompt"] == "good":
                await soon(visit.closed.wait())


async def test_headers_of_a_silent_stream_go_out_before_the_first_piece() -> None:
    opened = asyncio.Event()

    async def wait(visit: Visit) -> None:
        await soon(opened.wait())
        await visit.say("late")

    async with house(wait, {"server": {"first_byte_grace": 0.01}}) as at, httpx.AsyncClient() as client:
        asked = {"model": "m", "prompt": "x", "stream": True}
        async with client.stream("POST", at.url + "/completions", json=asked) as answer:
            opened.set()
            got = chunks((await answer.aread()).decode())
        assert "".join(chunk["choices"][0]["text"] for chunk in got) == "late"


# --- an upstream that speaks OpenAI's API ---

OPENAI = {"kind": "openai"}


def text_choice(text: str, finish: str | None = None, logprobs: Any = None) -> dict[str, Any]:
    choice = {"text": text, "index": 0, "logprobs": logprobs, "finish_reason": finish}
    return {"id": "x", "object": "text_completion", "created": 1, "model": "y", "choices": [choice]}


async def test_a_server_of_openais_api_gets_the_text_at_its_own_endpoint() -> None:
    shown = {"tokens": ["he"], "token_logprobs": [-0.5], "top_logprobs": [{"he": -0.5, "HE": -1.5}]}
    usage = {"prompt_tokens": 2, "completion_tokens": 1, "total_tokens": 3}

    async def script(visit: Visit) -> None:
        await visit.answer({**text_choice("he", "length", shown), "usage": usage})

    async with house(script, upstream=OPENAI, logprobs=True, template="chatml") as at:
        answer = (await ask(at, logprobs=1, max_tokens=1, seed=3)).json()
        [visit] = at.container.visits
        assert visit.path == "/completions"
        assert visit.json == {"model": "m", "prompt": "hi", "max_tokens": 1, "seed": 3, "logprobs": 1}
        assert answer["usage"] == usage
        assert answer["choices"] == [
            {"text": "he", "index": 0, "finish_reason": "length", "logprobs": {**shown, "text_offset": [0]}}
        ]


async def test_its_stream_is_ours() -> None:
    async def script(visit: Visit) -> None:
        await visit.start_stream()
        for chunk in (text_choice("he"), text_choice("llo"), text_choice("", "stop")):
            await visit.event(chunk)
        await visit.event("[DONE]")
        await visit.end_stream()

    async with house(script, upstream=OPENAI) as at:
        got = chunks((await ask(at, stream=True)).text)
        assert [chunk["choices"][0]["text"] for chunk in got] == ["he", "llo", ""]
        assert got[-1]["choices"][0]["finish_reason"] == "stop"


async def test_its_refusal_is_told() -> None:
    async def script(visit: Visit) -> None:
        await visit.answer({"error": {"message": "no such field"}}, status="400 Bad Request")

    async with house(script, upstream=OPENAI) as at:
        refused = await ask(at)
        assert (refused.status_code, refused.json()["error"]["code"]) == (400, "upstream_bad_request")


async def test_a_get_is_a_405() -> None:
    async with house(shout) as at, httpx.AsyncClient() as client:
        answer = await client.get(at.url + "/completions")
        assert (answer.status_code, answer.headers["allow"]) == (405, "POST")


@pytest.mark.parametrize("stream", [False, True])
async def test_a_suffix_reaches_the_container_in_the_models_form(stream: bool) -> None:
    async with house(shout, template="deepseek-coder") as at:
        answer = await ask(at, ["a<|EOT|>", "b"], suffix="z", n=2, stream=stream)
        assert answer.status_code == 200
        assert answer.headers["x-gateway-neutralised"] == "1"
        texts: dict[int, str] = {}
        for part in chunks(answer.text) if stream else [answer.json()]:
            for choice in part["choices"]:
                texts[choice["index"]] = texts.get(choice["index"], "") + choice["text"]
        forms = [f"<｜fim▁begin｜>{text}<｜fim▁hole｜>z<｜fim▁end｜>" for text in ("a<\u200b|EOT|>", "b")]
        assert texts == {index: forms[index // 2].upper() for index in range(4)}
        assert {visit.json["prompt"] for visit in at.container.visits} == set(forms)
        assert all("<|EOT|>" in visit.json["stop"] for visit in at.container.visits)


async def test_a_model_without_a_form_names_its_key() -> None:
    async with house(shout, template="chatml") as at:
        error = (await ask(at, suffix="z")).json()["error"]
        assert (error["param"], error["code"]) == ("suffix", "unsupported_parameter")
        assert "models.m.fill_in" in error["message"]
        assert not at.container.visits

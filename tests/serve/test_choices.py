"""``n``, ``logprobs`` and ``seed`` mean the same at every address, whole and streamed.

The container answers with the seed that it was given, letter by letter, each letter with its logprob.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import httpx
import pytest

from tests.serve.house import House, Visit, house

SEED, N = 40, 3


def entry(letter: str) -> dict[str, Any]:
    top = [{"token": letter, "logprob": -0.25, "bytes": None}, {"token": "x", "logprob": -2.0, "bytes": None}]
    return {"token": letter, "logprob": -0.25, "bytes": None, "top_logprobs": top}


async def tells_its_seed(visit: Visit) -> None:
    asked = visit.json
    text = str(asked.get("seed"))
    shown = [entry(letter) for letter in text] if "logprobs" in asked else None
    usage = {"prompt_tokens": 3, "completion_tokens": len(text)}
    if not asked.get("stream"):
        await visit.answer({"prompt": text, "usage": usage, **({"logprobs": shown} if shown else {})})
        return
    await visit.start_stream()
    for at, letter in enumerate(text):
        await visit.event({"prompt": letter, **({"logprobs": [shown[at]]} if shown else {})})
    await visit.event({"finish_reason": "stop", "usage": usage})
    await visit.event("[DONE]")
    await visit.end_stream()


@dataclass(frozen=True)
class Told:
    """One choice: its text, and its tokens with their logprobs and the alternatives' names."""

    text: str
    tokens: tuple[tuple[str, float, tuple[str, ...]], ...] = ()


Read = Callable[[Any], dict[int, Told]]


def of_entries(entries: Any) -> tuple[tuple[str, float, tuple[str, ...]], ...]:
    return tuple(
        (each["token"], each["logprob"], tuple(top["token"] for top in each["top_logprobs"]))
        for each in entries or ()
    )


def of_chat(answer: Any) -> dict[int, Told]:
    return {
        choice["index"]: Told(
            choice["message"]["content"], of_entries((choice["logprobs"] or {}).get("content"))
        )
        for choice in answer["choices"]
    }


def of_chunks(events: Any) -> dict[int, Told]:
    told: dict[int, Told] = {}
    for choice in (choice for event in events for choice in event["choices"]):
        before = told.get(choice["index"], Told(""))
        tokens = of_entries((choice["logprobs"] or {}).get("content"))
        text = before.text + (choice["delta"].get("content") or "")
        told[choice["index"]] = Told(text, before.tokens + tokens)
    return told


def of_lists(shown: Any) -> tuple[tuple[str, float, tuple[str, ...]], ...]:
    rows = zip(shown["tokens"], shown["token_logprobs"], shown["top_logprobs"], strict=True) if shown else ()
    return tuple((token, logprob, tuple(top)) for token, logprob, top in rows)


def of_completion(*events: Any) -> dict[int, Told]:
    told: dict[int, Told] = {}
    for choice in (choice for event in events for choice in event["choices"]):
        before = told.get(choice["index"], Told(""))
        tokens = before.tokens + of_lists(choice["logprobs"])
        told[choice["index"]] = Told(before.text + choice["text"], tokens)
    return told


def of_response(answer: Any) -> dict[int, Told]:
    [part] = [part for item in answer["output"] for part in item["content"]]
    return {0: Told(part["text"], of_entries(part["logprobs"]))}


def of_response_events(events: Any) -> dict[int, Told]:
    deltas = [event for event in events if event["type"] == "response.output_text.delta"]
    text = "".join(event["delta"] for event in deltas)
    tokens = tuple(
        (each["token"], each["logprob"], tuple(top["token"] for top in each["top_logprobs"]))
        for event in deltas
        for each in event["logprobs"]
    )
    assert of_response(events[-1]["response"]) == {0: Told(text, tokens)}
    return {0: Told(text, tokens)}


def of_contract(*events: Any) -> dict[int, Told]:
    text = "".join(event.get("prompt", "") for event in events)
    return {0: Told(text, tuple(row for event in events for row in of_entries(event.get("logprobs"))))}


@dataclass(frozen=True)
class Address:
    """Where something is asked, what it is, and how two alternatives of each token are asked for."""

    path: str
    asked: dict[str, Any]
    logprobs: dict[str, Any]
    whole: Read
    streamed: Read
    many: bool = True  # it has n


CHAT = {"messages": [{"role": "user", "content": "hi"}]}
ALTERNATIVES = {"logprobs": True, "top_logprobs": 2}
ADDRESSES = [
    Address("/v1/chat/completions", CHAT, ALTERNATIVES, of_chat, of_chunks),
    Address("/v1/chat/completions", {"messages": "hi"}, ALTERNATIVES, of_chat, of_chunks),
    Address("/api/v1/chat/completions", {"messages": "hi"}, ALTERNATIVES, of_chat, of_chunks),
    Address(
        "/v1/completions",
        {"prompt": "hi"},
        {"logprobs": 2},
        of_completion,
        lambda events: of_completion(*events),
    ),
    Address("/v1/responses", {"input": "hi"}, {"top_logprobs": 2}, of_response, of_response_events, False),
    Address(
        "/v1/prompt/m",
        {"prompt": "hi"},
        {"logprobs": 2},
        of_contract,
        lambda events: of_contract(*events),
        False,
    ),
]
everywhere = pytest.mark.parametrize(
    "address", ADDRESSES, ids=lambda each: f"{each.path}-{next(iter(each.asked.values())).__class__.__name__}"
)
ways = pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])


async def post(at: House, address: Address, **fields: Any) -> httpx.Response:
    body = {"model": "m", **address.asked, **fields}
    async with httpx.AsyncClient() as client:
        return await client.post(f"http://127.0.0.1:{at.port}{address.path}", json=body, timeout=10)


async def told(at: House, address: Address, stream: bool, **fields: Any) -> dict[int, Told]:
    """The choices of the answer, by their index."""
    answer = await post(at, address, stream=stream, **fields)
    assert answer.status_code == 200, answer.text
    if not stream:
        return address.whole(answer.json())
    data = [line.removeprefix("data: ") for line in answer.text.splitlines() if line.startswith("data: ")]
    return address.streamed([json.loads(each) for each in data if each != "[DONE]"])


def tokens_of(text: str) -> tuple[tuple[str, float, tuple[str, ...]], ...]:
    return tuple((letter, -0.25, (letter, "x")) for letter in text)


@everywhere
@ways
async def test_a_seed_reaches_the_container_and_no_seed_stays_none(address: Address, stream: bool) -> None:
    async with house(tells_its_seed) as at:
        assert await told(at, address, stream, seed=SEED) == {0: Told(str(SEED))}
        assert await told(at, address, stream) == {0: Told("None")}
        assert ["seed" in visit.json for visit in at.container.visits] == [True, False]


@everywhere
@ways
async def test_logprobs_come_with_their_alternatives(address: Address, stream: bool) -> None:
    async with house(tells_its_seed, logprobs=True) as at:
        found = await told(at, address, stream, seed=SEED, **address.logprobs)
        assert found == {0: Told(str(SEED), tokens_of(str(SEED)))}
        assert at.container.visits[0].json["logprobs"] == 2


@pytest.mark.parametrize("address", [each for each in ADDRESSES if each.many], ids=lambda each: each.path)
@ways
async def test_each_of_n_choices_has_its_own_seed_and_logprobs(address: Address, stream: bool) -> None:
    async with house(tells_its_seed, logprobs=True) as at:
        found = await told(at, address, stream, n=N, seed=SEED, **address.logprobs)
        texts = [str(SEED + index) for index in range(N)]
        assert found == {index: Told(text, tokens_of(text)) for index, text in enumerate(texts)}
        assert sorted(visit.json["seed"] for visit in at.container.visits) == [SEED + i for i in range(N)]
        assert not any("n" in visit.json for visit in at.container.visits)


async def test_a_response_is_one_answer_and_the_contract_leaves_n_to_the_container() -> None:
    responses, contract = ADDRESSES[-2:]
    async with house(tells_its_seed) as at:
        refused = await post(at, responses, n=2)
        assert (refused.status_code, refused.json()["error"]["param"]) == (400, "n")
        assert (await post(at, contract, n=2)).status_code == 200
        assert at.container.visits[0].json["n"] == 2


@everywhere
async def test_a_model_without_logprobs_says_so(address: Address) -> None:
    async with house(tells_its_seed) as at:
        refused = await post(at, address, **address.logprobs)
        assert refused.status_code == 400
        assert refused.json()["error"]["param"] in address.logprobs
        assert not at.container.visits

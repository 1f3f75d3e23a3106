"""Embedding requests, the parts they become, and the answer: what holds for every text and every vector."""

import base64
import json
import math
import struct
from array import array
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.core.call import EmbedCall, Traits
from gateway.core.decode.failure import Place
from gateway.core.decode.vectors import Key, VectorDecoder
from gateway.core.embeddings import (
    MAX_IDS,
    MAX_INPUTS,
    Collected,
    EmbeddingRequest,
    parse_embeddings,
    plan_embeddings,
    unit,
)
from gateway.core.errors import BadRequest, ContextTooLong, GatewayError, UpstreamError
from gateway.core.events import Finish, Usage, Vectors
from gateway.core.spec import ModelSpec
from gateway.templates import load

NUMBER = st.floats(allow_nan=False, allow_infinity=False, width=32)
PROMPT, CHAT = Traits("prompt"), Traits("chat")


def spec(**fields: Any) -> ModelSpec:
    return ModelSpec("m", load("plain"), **fields)


def asked(**fields: Any) -> EmbeddingRequest:
    return parse_embeddings(json.dumps({"input": "x", **fields}).encode())


def planned(
    texts: list[str], request: EmbeddingRequest, traits: Traits, **facts: Any
) -> tuple[EmbedCall, ...]:
    return plan_embeddings(request, texts, spec(**facts), traits, ("req_1", "me"))


def answered(vectors: list[list[float]], request: EmbeddingRequest, **facts: Any) -> Any:
    collected = Collected(request, spec(**facts))
    collected.feed(0, [Vectors(tuple(array("f", vector) for vector in vectors)), Finish()])
    return json.loads(collected.answer("m", Usage(1, 0)))


def decoded(body: Any, key: Key = "embeddings", wanted: int = 1) -> list[Any]:
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    return VectorDecoder(key, wanted, Place("models.m.upstream", text="input")).whole(data)


# --- what is asked ---


@pytest.mark.parametrize(
    ("given_input", "inputs"),
    [
        ("a", ("a",)),
        (["a", " "], ("a", " ")),
        ([1, 2], ((1, 2),)),
        ([[1], [2, 3]], ((1,), (2, 3))),
    ],
)
def test_an_input_is_a_text_or_ids_or_a_list_of_either(given_input: Any, inputs: Any) -> None:
    assert asked(input=given_input).inputs() == inputs


@pytest.mark.parametrize(
    ("given_input", "param"),
    [
        ("", "input"),
        ([], "input"),
        (None, "input"),
        (3, "input"),
        ({"text": "a"}, "input"),
        (["a", ""], "input[1]"),
        (["a", 1], "input[1]"),
        (["a", [1]], "input[1]"),
        ([[1], []], "input[1]"),
        ([[1], "a"], "input[1]"),
        ([[1], [True]], "input[1]"),
        ([1, "a"], "input"),
        ([1, -1], "input"),
        ([1.5], "input[0]"),
        ([[1], 2], "input[1]"),
        (["a"] * (MAX_INPUTS + 1), "input"),
        ([1] * (MAX_IDS + 1), "input"),
        ([[1] * MAX_IDS, [1]], "input"),
    ],
    ids=lambda value: repr(value)[:20],
)
def test_anything_else_is_refused_by_its_place(given_input: Any, param: str) -> None:
    with pytest.raises(BadRequest) as caught:
        asked(input=given_input).inputs()
    assert caught.value.param == param


def test_as_many_texts_as_openai_takes_are_taken() -> None:
    assert len(asked(input=["a"] * MAX_INPUTS).inputs()) == MAX_INPUTS


@pytest.mark.parametrize(
    ("body", "param", "code"),
    [
        (b"{", None, "invalid_json"),
        (b'{"input": "a", "x": NaN}', None, "invalid_json"),
        (b"[]", None, None),
        (b"{}", "input", "missing_required_parameter"),
        (b'{"input": "a", "encoding_format": "hex"}', "encoding_format", "invalid_value"),
        (b'{"input": "a", "dimensions": 0}', "dimensions", "invalid_value"),
        (b'{"input": "a", "dimensions": "8"}', "dimensions", "invalid_value"),
        (b'{"input": "a", "user": 1}', "user", "invalid_value"),
        (json.dumps({"input": "a"} | {f"x{i}": 1 for i in range(65)}).encode(), None, None),
    ],
)
def test_a_wrong_body_is_refused_by_its_field(body: bytes, param: str | None, code: str | None) -> None:
    with pytest.raises(BadRequest) as caught:
        parse_embeddings(body)
    assert (caught.value.param, caught.value.code) == (param, code)


# --- what is asked of the upstream ---


@given(st.lists(st.text(min_size=1, max_size=3), min_size=1, max_size=40), st.integers(1, 50))
def test_the_parts_are_the_texts_in_their_order(texts: list[str], size: int) -> None:
    calls = planned(texts, asked(), PROMPT, embedding_batch=size)
    assert [text for call in calls for text in call.texts] == texts
    assert all(0 < len(call.texts) <= size for call in calls)


def test_a_server_of_openai_s_api_gets_dimensions_and_user() -> None:
    request = asked(dimensions=8, user="u", odd=1, other=None)
    [call] = planned(["a"], request, CHAT)
    assert call.fields == {"dimensions": 8, "user": "u"}
    assert call.notes.ignored == ("odd",)


def test_unknown_fields_are_passed_on_where_the_config_says_so() -> None:
    request = asked(odd=1, more=2)
    [some] = planned(["a"], request, Traits("prompt", forward=frozenset({"odd"})))
    assert (some.fields, some.notes.ignored) == ({"odd": 1}, ("more",))
    [every] = planned(["a"], request, Traits("prompt", forward="all"))
    assert (every.fields, every.notes.ignored) == ({"odd": 1, "more": 2}, ())


def test_dimensions_over_a_prompt_need_a_model_that_may_be_cut() -> None:
    with pytest.raises(BadRequest) as caught:
        planned(["a"], asked(dimensions=8), PROMPT)
    assert (caught.value.param, caught.value.code) == ("dimensions", "unsupported_parameter")
    [call] = planned(["a"], asked(dimensions=8), PROMPT, matryoshka=True)
    assert call.fields == {}


def test_a_model_that_is_cut_here_is_asked_for_whole_vectors() -> None:
    [call] = planned(["a"], asked(dimensions=8), CHAT, matryoshka=True)
    assert call.fields == {}


# --- what is answered ---


@given(st.lists(NUMBER, min_size=1, max_size=20))
def test_base64_holds_the_same_numbers_as_floats_to_the_bit(numbers: list[float]) -> None:
    [floats] = answered([numbers], asked())["data"]
    [coded] = answered([numbers], asked(encoding_format="base64"))["data"]
    raw = base64.b64decode(coded["embedding"])
    assert raw == b"".join(map(little_endian, floats["embedding"]))
    assert floats["embedding"] == numbers


def little_endian(number: float) -> bytes:
    return struct.pack("<f", number)


@given(st.permutations(range(5)))
def test_parts_may_come_in_any_order(order: list[int]) -> None:
    collected = Collected(asked(), spec())
    for part in order:
        vectors = tuple(array("f", [part, at]) for at in range(2))
        collected.feed(part, [Vectors(vectors), Finish()])
    data = json.loads(collected.answer("m", Usage(7, 0)))
    assert [item["index"] for item in data["data"]] == list(range(10))
    assert [item["embedding"] for item in data["data"]] == [
        [part, at] for part in range(5) for at in range(2)
    ]
    assert data["usage"] == {"prompt_tokens": 7, "total_tokens": 7}


@given(st.lists(NUMBER, min_size=1, max_size=9), st.integers(1, 9))
def test_a_cut_vector_is_the_beginning_with_length_one(numbers: list[float], asked_for: int) -> None:
    request = asked(dimensions=asked_for)
    if asked_for > len(numbers):
        with pytest.raises(BadRequest):
            answered([numbers], request, matryoshka=True)
        return
    [item] = answered([numbers], request, matryoshka=True)["data"]
    got, beginning = item["embedding"], numbers[:asked_for]
    assert len(got) == asked_for
    if asked_for == len(numbers) or not any(beginning):
        assert got == beginning
        return
    norm = math.hypot(*beginning)
    assert got == pytest.approx([number / norm for number in beginning], abs=1e-6)


def test_a_server_that_takes_no_notice_of_dimensions_is_not_believed() -> None:
    with pytest.raises(UpstreamError) as caught:
        answered([[1.0, 2.0]], asked(dimensions=1))
    assert caught.value.code == "upstream_bad_response"


def test_vectors_of_different_lengths_are_not_one_answer() -> None:
    collected = Collected(asked(), spec())
    collected.feed(0, [Vectors((array("f", [1]),)), Finish()])
    with pytest.raises(UpstreamError):
        collected.feed(1, [Vectors((array("f", [1, 2]),)), Finish()])


def test_zeros_have_no_direction() -> None:
    assert unit(array("f", [0, 0])).tolist() == [0, 0]


# --- what upstreams say ---


def test_the_contract_s_answer() -> None:
    body = {"embeddings": [[1, 2.5]], "usage": {"prompt_tokens": 3, "completion_tokens": 0}, "ignored": ["x"]}
    [vectors, finish] = decoded(body)
    assert vectors == Vectors((array("f", [1, 2.5]),))
    assert finish == Finish(usage=Usage(3, 0), ignored=("x",))


def test_openai_s_answer_in_any_order_and_in_both_forms() -> None:
    coded = base64.b64encode(little_endian(0.1) + little_endian(2)).decode()
    data = [{"index": 1, "embedding": [3, 4]}, {"index": 0, "embedding": coded}]
    body = {"object": "list", "data": data, "usage": {"prompt_tokens": 3, "total_tokens": 3}}
    [vectors, finish] = decoded(body, "data", 2)
    assert vectors == Vectors((array("f", [0.1, 2]), array("f", [3, 4])))
    assert finish == Finish(usage=Usage(3, 0))


def test_without_an_index_the_order_counts() -> None:
    [vectors, finish] = decoded({"data": [{"embedding": [1]}, {"embedding": [2]}]}, "data", 2)
    assert vectors == Vectors((array("f", [1]), array("f", [2])))
    assert finish.usage is None


@pytest.mark.parametrize("body", [b"", b"{", [], {}, {"prompt": "hi"}, {"embeddings": {}}], ids=repr)
def test_what_holds_no_vectors_is_an_error(body: Any) -> None:
    with pytest.raises(UpstreamError) as caught:
        decoded(body)
    assert caught.value.code == "upstream_bad_response"


@pytest.mark.parametrize(
    "made",
    [[], [[1], [2]], [[]], ["AAA="], [None], [[None]], [["1"]], [[[1]]], [[1e300]], [{"a": 1}]],
    ids=repr,
)
def test_what_is_not_one_vector_for_a_text_is_an_error(made: Any) -> None:
    with pytest.raises(UpstreamError) as caught:
        decoded({"embeddings": made})
    assert caught.value.code == "upstream_bad_response"


@pytest.mark.parametrize(
    "data",
    [
        [[1], [2]],
        [{"index": 0, "embedding": [1]}, {"index": 0, "embedding": [2]}],
        [{"index": 0, "embedding": [1]}, {"index": 2, "embedding": [2]}],
        [{"index": 0, "embedding": [1]}, {"embedding": [2]}],
        [{"index": 0, "embedding": [1]}, {"index": 1, "embedding": [2, 3]}],
        [{"index": 0, "embedding": [1]}, {"index": 1}],
    ],
    ids=repr,
)
def test_vectors_out_of_place_are_an_error(data: Any) -> None:
    with pytest.raises(UpstreamError) as caught:
        decoded({"data": data}, "data", 2)
    assert caught.value.code == "upstream_bad_response"


def test_errors_inside_an_answer_are_what_they_say() -> None:
    with pytest.raises(ContextTooLong) as caught:
        decoded({"error": {"message": "too long", "code": "context_length_exceeded"}})
    assert caught.value.param == "input"


KEYS = st.sampled_from(["embeddings", "data", "index", "embedding", "usage"])
LEAVES = st.none() | st.booleans() | st.floats() | st.text()


@given(st.recursive(LEAVES, lambda inner: st.lists(inner) | st.dictionaries(KEYS, inner)))
def test_no_json_makes_it_fail_otherwise(value: Any) -> None:
    for key in ("embeddings", "data"):
        with suppress(GatewayError):
            decoded(value, key)  # type: ignore[arg-type]

"""Every field of the contract: what it may be, and the error that names it when it is not."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modal_backend import fields
from modal_backend.engine import BadRequest, Request
from modal_backend.fields import APP_HONOURS, FIELDS, ToContinue, ToEmbed, read

EVERYTHING = frozenset(FIELDS)

GOOD: list[tuple[str, Any, Any]] = [
    ("max_tokens", 1, 1),
    ("temperature", 0, 0.0),
    ("temperature", 2, 2.0),
    ("top_p", 1, 1.0),
    ("top_k", -1, -1),
    ("min_p", 0.05, 0.05),
    ("presence_penalty", -2, -2.0),
    ("frequency_penalty", 2, 2.0),
    ("repetition_penalty", 1.1, 1.1),
    ("seed", -(1 << 63), -(1 << 63)),
    ("logit_bias", {"5": -100, "7": 0.5}, {5: -100.0, 7: 0.5}),
    ("stop", ["a", "", "b"], ("a", "b")),
    ("stop", "a", ("a",)),
    ("stop", [], ()),
    ("stop_token_ids", [2, 0], (2, 0)),
    ("logprobs", 0, 0),
    ("logprobs", 20, 20),
    ("json_schema", {"type": "object"}, {"type": "object"}),
    ("regex", "a+", "a+"),
    ("grammar", "root ::= 'a'", "root ::= 'a'"),
    ("images", ["data:image/png;base64,AA=="], ("data:image/png;base64,AA==",)),
    ("lora", "mine", "mine"),
    ("request_id", "r-1", "r-1"),
]

BAD: list[tuple[str, Any]] = [
    ("max_tokens", 0),
    ("max_tokens", 1.0),
    ("max_tokens", True),
    ("max_tokens", "5"),
    ("max_tokens", 1 << 40),
    ("temperature", 2.01),
    ("temperature", "hot"),
    ("temperature", False),
    ("top_p", -0.1),
    ("top_k", -2),
    ("min_p", 1.5),
    ("presence_penalty", 3),
    ("frequency_penalty", -3),
    ("repetition_penalty", 0),
    ("seed", 1 << 63),
    ("logit_bias", []),
    ("logit_bias", {"a": 1}),
    ("logit_bias", {"5": 101}),
    ("stop", 5),
    ("stop", [5]),
    ("stop", ["x"] * (fields.MAX_STOPS + 1)),
    ("stop", ["x" * (fields.MAX_STOP_LENGTH + 1)]),
    ("stop_token_ids", [-1]),
    ("logprobs", True),
    ("logprobs", 21),
    ("json_schema", "{}"),
    ("regex", 5),
    ("grammar", []),
    ("images", ["https://example.com/a.png"]),
    ("images", "data:,"),
    ("lora", "x" * (fields.MAX_NAME + 1)),
    ("stream", 1),
    ("stream", "true"),
    ("echo", 0),
    ("request_id", 5),
]


def asked(honours: frozenset[str] = EVERYTHING, **given: Any) -> ToContinue:
    found = read(json.dumps({"prompt": "p", **given}).encode(), honours)
    assert isinstance(found, ToContinue)
    return found


def refusal(body: bytes) -> str:
    with pytest.raises(BadRequest) as raised:
        read(body, EVERYTHING)
    return str(raised.value)


@pytest.mark.parametrize(("name", "value", "wanted"), GOOD)
def test_a_good_value_reaches_the_engine(name: str, value: Any, wanted: Any) -> None:
    found = asked(**{name: value})
    assert getattr(found.request, name) == wanted
    assert found.ignored == ()


@pytest.mark.parametrize(("name", "value"), BAD)
def test_a_bad_value_is_refused_by_the_name_of_its_field(name: str, value: Any) -> None:
    message = refusal(json.dumps({"prompt": "p", name: value}).encode())
    assert f"`{name}" in message


@pytest.mark.parametrize(("name", "value"), BAD)
def test_a_bad_value_is_refused_even_if_the_engine_would_not_use_it(name: str, value: Any) -> None:
    with pytest.raises(BadRequest):
        asked(honours=frozenset(), **{name: value})


def test_the_tables_speak_of_every_field() -> None:
    assert {name for name, _, _ in GOOD} | {"prompt", "input", "stream", "echo"} == set(FIELDS)
    assert {name for name, _ in BAD} | {"prompt", "input"} == set(FIELDS)


@pytest.mark.parametrize("name", sorted(FIELDS))
def test_null_means_absent(name: str) -> None:
    if name == "prompt":
        assert "`prompt` is required" in refusal(b'{"prompt": null}')
    else:
        assert asked(**{name: None}) == asked()


def test_only_what_was_said_is_set() -> None:
    assert asked().request == Request(prompt="p")


def test_unknown_fields_and_those_the_engine_does_not_honour_are_ignored_aloud() -> None:
    given_fields = {"seed": 1, "temperature": 0.5, "best_of": 3, "名": "x", "stop": ["a"], "echo": True}
    found = asked(honours=frozenset({"seed"}), **given_fields)
    assert found.ignored == ("temperature", "best_of", "名")
    assert found.request == Request(prompt="p", seed=1, stop=("a",))


def test_the_list_of_ignored_fields_is_bounded() -> None:
    found = asked(**{f"{'x' * 500}{number}": 1 for number in range(500)})
    assert len(found.ignored) == fields.MAX_IGNORED
    assert {len(name) for name in found.ignored} == {fields.MAX_IGNORED_NAME}


def test_at_most_one_way_of_guiding() -> None:
    message = refusal(b'{"prompt": "p", "regex": "a", "json_schema": {}}')
    assert message == "give at most one of `json_schema`, `regex`, `grammar`, not `json_schema`, `regex`"


def test_input_is_to_be_embedded() -> None:
    found = read(b'{"input": ["a", ""], "request_id": "r", "temperature": 1}', EVERYTHING)
    assert found == ToEmbed(("a", ""), ignored=("temperature",))


@pytest.mark.parametrize(
    ("body", "part"),
    [
        (b'{"prompt": "a", "input": ["b"]}', "either `prompt` or `input`"),
        (b"{}", "`prompt` is required"),
        (b'{"prompt": 5}', "`prompt` must be a string, not a number"),
        (b'{"prompt": ["a"]}', "`prompt` must be a string, not an array"),
        (b'{"input": "a"}', "`input` must be an array, not a string"),
        (b'{"input": [1]}', "`input[0]` must be a string"),
        (b"[]", "must be a JSON object, not an array"),
        (b"null", "must be a JSON object, not null"),
        (b"", "line 1 column 1 (character 0)"),
        (b'{"prompt": "a",\n}', "line 2 column 1 (character 16)"),
        (b'{"prompt": "a"} x', "line 1 column 17 (character 16)"),
        (b'{"prompt": "a", "top_p": NaN}', "NaN is not a JSON value"),
        (b'{"prompt": "a", "top_p": 1e999}', "too large"),
        (b'{"prompt": "a", "seed": ' + b"9" * 5000 + b"}", "a number is too long"),
        (b'{"prompt": "\xff"}', "byte 12 cannot be decoded"),
        (b'{"prompt": "a\\ud800"}', "half a surrogate pair at character 1"),
        (b"[" * 200_000, "nested too deeply"),
    ],
)
def test_a_body_that_cannot_be_read_is_told_where(body: bytes, part: str) -> None:
    assert part in refusal(body)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)


some_names = st.sampled_from(sorted(FIELDS)) | st.text(max_size=8)


@given(given_fields=st.dictionaries(some_names, json_values, max_size=8))
def test_any_object_is_read_or_refused(given_fields: dict[str, Any]) -> None:
    body = json.dumps(given_fields).encode()
    try:
        found = read(body, frozenset({"seed", "logprobs"}))
    except BadRequest as refused:
        assert str(refused)
    else:
        assert isinstance(found, ToContinue | ToEmbed)
        embeds = isinstance(found, ToEmbed)
        used = {"input", "request_id"} if embeds else APP_HONOURS | {"seed", "logprobs"}
        assert not used & set(found.ignored)


@given(body=st.binary(max_size=64))
def test_any_bytes_are_read_or_refused(body: bytes) -> None:
    try:
        assert isinstance(read(body, EVERYTHING), ToContinue | ToEmbed)
    except BadRequest as refused:
        assert str(refused)

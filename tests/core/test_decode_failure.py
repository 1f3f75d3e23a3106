"""Errors that servers report: the right class, and nothing said that should not be."""

import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.core.decode.failure import MAX_SAID, Place, Said, failure, quoted, reported
from gateway.core.errors import ContextTooLong

PLACE = Place("models.m.upstream", secrets=("ws-secret",))

# FastChat 0.2.36, constants.py ErrorCode -> (status, code, what may be tried)
FASTCHAT = {
    40001: (400, "upstream_bad_request", "never"),
    40101: (502, "upstream_auth", "elsewhere"),
    40102: (502, "upstream_auth", "elsewhere"),
    40103: (502, "upstream_auth", "elsewhere"),
    40301: (502, "upstream_not_found", "elsewhere"),
    40302: (400, "upstream_bad_request", "never"),
    40303: (400, "context_length_exceeded", "never"),
    42901: (429, "upstream_rate_limited", "elsewhere"),
    42902: (429, "upstream_rate_limited", "elsewhere"),
    42903: (429, "upstream_rate_limited", "elsewhere"),
    50001: (502, "upstream_error", "elsewhere"),
    50002: (503, "out_of_memory", "elsewhere"),
    50003: (502, "upstream_error", "elsewhere"),
    50004: (502, "upstream_error", "elsewhere"),
    50005: (503, "upstream_unavailable", "elsewhere"),
    50006: (504, "upstream_timeout", "elsewhere"),
}


@pytest.mark.parametrize("code", FASTCHAT)
def test_fastchats_codes_mean_more_than_its_status(code: int) -> None:
    said = reported({"object": "error", "message": "words", "code": code})
    assert said is not None
    error = failure(said, PLACE, 400)
    assert (error.status, error.code, error.retry) == FASTCHAT[code]
    in_stream = reported({"text": "words", "error_code": code})
    assert in_stream is not None
    assert failure(in_stream, PLACE).code == error.code


@pytest.mark.parametrize(
    ("code", "status", "wanted"),
    [
        ("bad_request", 400, (400, "upstream_bad_request")),
        ("context_length_exceeded", 400, (400, "context_length_exceeded")),
        ("busy", 429, (429, "upstream_rate_limited")),
        ("out_of_memory", 503, (503, "out_of_memory")),
        ("engine_dead", 503, (503, "engine_dead")),
        ("invalid_api_key", 401, (502, "upstream_auth")),
        ("model_not_found", 404, (502, "upstream_not_found")),
        (None, 400, (400, "upstream_bad_request")),
        (None, 401, (502, "upstream_auth")),
        (None, 403, (502, "upstream_auth")),
        (None, 404, (502, "upstream_not_found")),
        (None, 405, (502, "upstream_refused")),
        (None, 413, (400, "upstream_bad_request")),
        (None, 418, (502, "upstream_refused")),
        (None, 422, (502, "upstream_refused")),
        (None, 429, (429, "upstream_rate_limited")),
        (None, 500, (502, "upstream_error")),
        (None, 503, (503, "upstream_unavailable")),
        (None, 504, (504, "upstream_timeout")),
        (None, None, (502, "upstream_error")),
        (429, None, (429, "upstream_rate_limited")),
        (7, None, (502, "upstream_error")),
    ],
)
def test_the_code_decides_and_then_the_status(code: Any, status: int | None, wanted: tuple[int, str]) -> None:
    for said in (Said("words", code, status), Said("words", code)):
        error = failure(said, PLACE, status)
        assert (error.status, error.code) == wanted
    assert failure(Said("words", code, status), PLACE).code == wanted[1]


@pytest.mark.parametrize(
    "data",
    [
        None, 1, "x", [], {}, {"error": None}, {"error": ""}, {"error": {}}, {"error_code": 0},
        {"error_code": "x"}, {"object": "chat.completion"}, {"detail": "x"},
    ],
)  # fmt: skip
def test_what_is_no_error(data: Any) -> None:
    assert reported(data) is None


@pytest.mark.parametrize(
    "words",
    [
        "This model's maximum context length is 4096 tokens. However, you requested 5000 tokens",
        "Input validation error: `inputs` tokens + `max_new_tokens` must be <= 2048 (context window)",
        "the request exceeds the available context size",
        "prompt is too long: 5000 tokens > 4096 maximum",
    ],
)
def test_a_prompt_that_is_too_long_is_said_in_words_that_clients_know(words: str) -> None:
    for said in (Said(words), Said(words, "BadRequestError"), Said("", "context_length_exceeded")):
        error = failure(said, PLACE, 400)
        assert isinstance(error, ContextTooLong)
        assert "maximum context length" in error.message
        assert "context_length_exceeded" in error.message
        assert error.code == "context_length_exceeded"


# --- what is passed on of a server's words ---


def test_a_short_message_is_passed_on() -> None:
    assert quoted("no room left", PLACE) == " It said: no room left"
    assert quoted("", PLACE) == quoted(" \n ", PLACE) == ""


def test_secrets_are_not() -> None:
    assert "ws-secret" not in quoted("bad key ws-secret", PLACE)
    for code in (None, "invalid_api_key"):
        assert "sk-other" not in failure(Said("Incorrect API key: sk-other", code), PLACE, 401).message


@pytest.mark.parametrize(
    "words",
    [
        "[{'type': 'missing', 'loc': ('body',), 'msg': 'Field required', 'input': {'prompt': 'the secret'}}]",
        '[{"type": "x", "msg": "y", "input": "the secret"}]',
        "1 validation error for X\nx\n  bad [type=int_parsing, input_value='the secret', input_type=str]",
    ],
)
def test_echoed_input_is_not(words: str) -> None:
    assert "the secret" not in quoted(words, PLACE)


def test_fastchats_validation_errors_are_not_because_they_hold_paths_and_input() -> None:
    error = failure(Said("/opt/x/server.py 1 line body {'messages': 'the secret'}", 40001), PLACE, 400)
    assert "server.py" not in error.message
    assert "the secret" not in error.message


@given(st.text(max_size=2000))
def test_what_is_passed_on_is_one_short_printable_line(words: str) -> None:
    text = quoted(words, PLACE)
    assert len(text) <= MAX_SAID + 20
    assert text.isprintable()
    assert not re.search(r"\s{2}", text)


def test_no_message_is_too_long_to_be_looked_at() -> None:
    assert len(quoted("x" * 10_000_000, PLACE)) <= MAX_SAID + 20

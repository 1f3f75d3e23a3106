"""A record as a line: nothing that anybody chose can forge one, and a person can read it."""

import json
import re
import unicodedata
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.record import Record
from gateway.telemetry.lines import MAX_SHOWN, as_json, as_text, printable, word
from gateway.telemetry.requests import PIECE
from tests.ledger.books import NOON, record

NASTY = st.one_of(
    st.text(),
    st.text(alphabet='\r\n\x1b\x9b[31m\x00\x07"\\{}, \u2028\u202e\ud800'),
    st.text(max_size=40).map(lambda text: text * 30),
)
CHOSEN = ("key", "asked", "user", "client_request_id", "team", "finish")
"""What clients, upstreams and those who make keys have a say in."""


def chosen(texts: dict[str, str]) -> Record:
    return record("req_1", **texts)


@given(st.fixed_dictionaries(dict.fromkeys(CHOSEN, NASTY)))
def test_whatever_is_chosen_there_is_one_line_and_it_is_json(texts: dict[str, str]) -> None:
    line = as_json(chosen(texts))
    assert len(line) <= PIECE
    assert line.endswith(b"\n") and line.count(b"\n") == 1 and b"\r" not in line and b"\x1b" not in line
    said = json.loads(line)
    assert {name: said[name] for name in ("id", "event", "status", "model")} == {
        "id": "req_1", "event": "request", "status": 200, "model": "m",
    }  # fmt: skip
    for name in set(CHOSEN) & set(said):
        assert len(said[name]) <= MAX_SHOWN and said[name].isprintable()


@given(st.fixed_dictionaries(dict.fromkeys(CHOSEN, NASTY)))
def test_whatever_is_chosen_a_terminal_is_sent_one_line_of_plain_text(texts: dict[str, str]) -> None:
    line = as_text(chosen(texts)).decode()
    assert line.endswith("\n") and line[:-1].isprintable() and len(line.encode()) <= PIECE
    assert not any(unicodedata.category(each) in ("Cc", "Cf", "Cs", "Zl", "Zp") for each in line[:-1])


@given(NASTY)
def test_a_name_is_one_word_or_stands_in_quotes(text: str) -> None:
    shown = word(text)
    assert len(shown) <= MAX_SHOWN + 2
    assert re.fullmatch(r'[\w./:@+#-]+|".*"', shown)


@pytest.mark.parametrize("text", ["x", "\r\n", "\x1b[2J", '"', "小", "\ud800"])
def test_a_megabyte_is_cut(text: str) -> None:
    long = chosen(dict.fromkeys(CHOSEN, text * (1 << 20)))
    assert json.loads(as_json(long))["id"] == "req_1"
    assert len(as_json(long)) <= PIECE and len(as_text(long)) <= PIECE


def test_what_can_be_printed_stays_as_it_is() -> None:
    for name in ("anna", "小王", "Team A", "naïve", "ключ"):
        assert printable(name) == name


def test_a_line_of_json_has_stable_names() -> None:
    full = record(
        "req_1", team="a", user="u", client_request_id="c", code="stop_reason", queued=0.25, booted=1.5,
        calls=2, client_left=True, ignored=("seed",), state="cold",
    )  # fmt: skip
    assert orjson.loads(as_json(full)) == {
        "time": "2026-11-01T12:00:01.500Z", "level": "warning", "event": "request", "id": "req_1",
        "route": "chat", "key": "anna", "team": "a", "asked": "gpt-4", "model": "m", "upstream": "u",
        "state": "cold", "status": 200, "code": "stop_reason", "stream": True, "queue_ms": 250.0,
        "boot_ms": 1500.0, "first_event_ms": 250.0, "total_ms": 1500.0, "calls": 2, "prompt_tokens": 10,
        "completion_tokens": 5, "token_source": "upstream", "finish": "stop", "client_left": True,
        "gpu_ms": 2000.0, "cost": 0.001, "ignored": ["seed"], "client_request_id": "c", "user": "u",
    }  # fmt: skip


def test_what_does_not_apply_is_left_out() -> None:
    refused = record("req_1", status=401, code="invalid_api_key", usage=None, finish=None, first_event=None,
                     gpu=None, cost=None)  # fmt: skip
    said = orjson.loads(as_json(refused))
    without = {"queue_ms", "boot_ms", "first_event_ms", "prompt_tokens", "finish", "gpu_ms", "cost"}
    assert not without & set(said)
    assert None not in said.values()


@pytest.mark.parametrize(
    ("fields", "level"),
    [
        ({}, "info"),
        ({"status": 400, "code": "invalid_value"}, "info"),
        ({"status": 499}, "info"),
        ({"status": 503, "code": "upstream_unavailable"}, "warning"),
        ({"code": "upstream_idle"}, "warning"),
    ],
)
def test_failures_of_ours_and_of_upstreams_warn(fields: dict[str, Any], level: str) -> None:
    assert orjson.loads(as_json(record("req_1", **fields)))["level"] == level


def columns(**fields: Any) -> str:
    line = as_text(record("req_1", NOON, **fields)).decode().rstrip()
    assert re.match(r"\d\d:\d\d:\d\d  ", line)
    return line[10:]


def test_a_line_of_text_has_columns_and_then_what_is_out_of_the_ordinary() -> None:
    plain = {"gpu": None, "cost": None}
    usual = columns(**plain)
    assert usual == "200    1.500s    0.250        10+5  gpt-4 > m                 anna        req_1"
    nothing = {**plain, "usage": None, "first_event": None}
    missing = columns(status=404, code="model_not_found", model="other", **nothing)
    assert missing.index("gpt-4") == usual.index("gpt-4")
    assert missing.endswith("req_1  code=model_not_found")
    slow = columns(asked="m", code="upstream_idle", state="cold", queued=0.5, booted=21.0, calls=2)
    assert "(in mid-stream)  state=cold  queue=0.500s  boot=21.000s  calls=2  gpu=2.000s  $0.001000" in slow


def test_colour_is_a_matter_of_the_status() -> None:
    for status, code in ((200, "32"), (404, "33"), (503, "31")):
        line = as_text(record("req_1", status=status), color=True).decode()
        assert f"\x1b[{code}m{status}\x1b[0m" in line
    assert "\x1b" not in as_text(record("req_1")).decode()


def test_unknown_models_are_named_as_they_were_asked_for() -> None:
    assert '"no such" ' in columns(asked="no such", model="other")

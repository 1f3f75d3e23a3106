"""A line is whole or it is not there; sums are those of the rows."""

from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.core.events import Usage
from gateway.ledger import rows
from gateway.ledger.rows import (
    BEGIN,
    COLUMNS,
    DAY,
    END,
    HOUR,
    Idle,
    line,
    of_idle,
    of_intent,
    of_record,
    parsed,
)  # fmt: skip
from gateway.store.tables import SUMS, requests
from tests.ledger.books import NOON, intent, record


def named(row: rows.Row) -> dict[str, Any]:
    return dict(zip(COLUMNS, row, strict=True))


def test_a_row_has_the_columns_of_its_table() -> None:
    assert tuple(column.name for column in requests.columns) == COLUMNS


def test_a_record_becomes_a_row_of_whole_numbers() -> None:
    row = named(of_record(record("r", queued=0.5, booted=2.25, user="u1"), None))
    assert (row["time"], row["first_event_ms"], row["duration_ms"]) == (int(NOON * 1000), 250, 1500)
    assert (row["queue_ms"], row["boot_ms"], row["end_user"]) == (500, 2250, "u1")
    assert (row["prompt_tokens"], row["completion_tokens"], row["tokens_source"]) == (10, 5, "upstream")
    assert row["lost"] is False and row["kind"] == "request"


def test_an_intent_is_the_row_of_a_request_that_never_ended() -> None:
    begun, ended = named(of_intent(intent("r"))), named(of_record(record("r"), None))
    same = ("id", "kind", "time", "key_id", "key_name", "team", "asked", "model", "upstream", "route")
    assert {name: begun[name] for name in same} == {name: ended[name] for name in same}
    assert begun["lost"] is True and begun["status"] == 0
    assert begun["prompt_tokens"] is None and begun["cost"] is None


@pytest.mark.parametrize(
    ("said", "kept"),
    [("a\0b", "a\ufffdb"), ("x" * 5000, "x" * 256), ("\ud800", "?"), ("模型", "模型"), (None, None)],
    ids=["a NUL", "very long", "half a character", "Chinese", "nothing"],
)
def test_what_a_client_says_always_fits(said: str | None, kept: str | None) -> None:
    row = of_record(record("r", user=said, client_request_id=said), None)
    found = parsed(line(END, row)[:-1])
    assert found is not None
    assert named(found[1])["end_user"] == named(found[1])["client_request_id"] == kept


def test_counts_that_cannot_be_are_bounded() -> None:
    row = named(of_record(record("r", usage=Usage(10**30, -1), cost=2**70), None))
    assert (row["prompt_tokens"], row["completion_tokens"], row["cost"]) == (10**15, 0, 10**15)


def test_content_is_bounded() -> None:
    kept = named(of_record(record("r"), {"answer": "ja"}))["content"]
    large = named(of_record(record("r"), {"answer": "x" * rows.MAX_CONTENT}))["content"]
    strange = named(of_record(record("r"), {"answer": object()}))["content"]
    assert kept == {"answer": "ja"}
    assert list(large) == list(strange) == ["left_out"]


@given(st.integers(0, 10_000), st.integers(0, 7))
def test_a_damaged_line_is_no_line(at: int, bit: int) -> None:
    text = line(BEGIN, of_intent(intent("r")))[:-1]
    damaged = bytearray(text)
    damaged[at % len(text)] ^= 1 << bit
    assert parsed(text) is not None
    assert parsed(bytes(damaged)) is None or bytes(damaged).lower() == text.lower()
    assert parsed(text[: at % len(text)]) is None


def test_a_row_of_another_version_is_read_by_its_names() -> None:
    columns = ["lost", "id", "from_the_future"]
    row = named(rows.renamed([True, "r", 1], columns))
    assert (row["id"], row["lost"], row["cost"]) == ("r", True, None)


ROWS = st.builds(
    lambda at, key, team, status, code, tokens: of_record(
        record("r", at, key_id=key, team=team, status=status, code=code, usage=tokens and Usage(tokens, 1)),
        None,
    ),
    st.integers(0, 10**6),
    st.sampled_from("ab"),
    st.sampled_from([None, "t"]),
    st.sampled_from([200, 400, 499, 503]),
    st.sampled_from([None, "bad"]),
    st.sampled_from([None, 3]),
)
IDLE = st.builds(
    lambda at: of_idle(Idle("i", at, "a", "anna", None, "m", "u", 7, "estimated", 9)), st.integers(0, 10**6)
)


@given(st.lists(st.one_of(ROWS, IDLE)))
def test_hours_and_days_add_up_to_the_same(given: list[rows.Row]) -> None:
    def whole(width: int) -> list[int]:
        found = rows.sums(given, width)
        assert all(bucket[0] % width == 0 for bucket in found)
        return [sum(total[at] for total in found.values()) for at in range(1, len(SUMS) + 1)]

    assert whole(HOUR) == whole(DAY)
    assert whole(DAY)[0] == sum(row[rows.KIND] == "request" for row in given)
    assert whole(DAY)[1] == sum(map(rows.failed, given))


@given(st.lists(st.one_of(ROWS, IDLE)))
def test_days_are_the_same_from_hours_as_from_rows(given: list[rows.Row]) -> None:
    days = rows.sums(given, DAY)
    found = rows.wider(rows.sums(given, HOUR), DAY)
    assert {bucket: total[1:] for bucket, total in found.items()} == {
        bucket: total[1:] for bucket, total in days.items()
    }


@pytest.mark.parametrize(
    ("other", "wrong"),
    [
        ({}, False),
        ({"status": 499}, False),
        ({"status": 429}, True),
        ({"client_left": True}, False),
        ({"client_left": True, "code": "upstream_timeout"}, True),
        ({"code": "upstream_timeout"}, True),
    ],
    ids=["answered", "left", "refused", "left while it came", "left what broke off", "broke off"],
)
def test_what_counts_as_an_error(other: dict[str, Any], wrong: bool) -> None:
    assert rows.failed(of_record(record("r", **other), None)) is wrong


def test_the_head_of_a_file_names_its_columns() -> None:
    found = parsed(rows.head()[:-1])
    assert found == (rows.HEAD, list(COLUMNS))
    assert orjson.loads(rows.head()[9:]) == list(COLUMNS)

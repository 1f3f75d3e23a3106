"""A client's trace: what is read of it, and what an upstream is told where no spans are made."""

import pytest

from gateway.telemetry.trace import Parent, parent, passed_on
from tests.serve.house import Visit, house
from tests.serve.test_surface import call

GIVEN = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
ABOVE = Parent("4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7", "01")
ASK = {"model": "m", "messages": [{"role": "user", "content": "hi"}]}


def head(value: str, state: str = "") -> dict[bytes, bytes]:
    return {b"traceparent": value.encode("latin-1"), b"tracestate": state.encode("latin-1")}


def test_a_place_in_a_trace_is_read() -> None:
    assert parent(head(GIVEN)) == ABOVE
    assert parent(head(GIVEN, "a=1,b=2")) == ABOVE._replace(state="a=1,b=2")
    assert parent(head(GIVEN.replace("00-", "cc-", 1) + "-more")) == ABOVE  # a version of later


@pytest.mark.parametrize(
    "value",
    [
        "",
        "x",
        GIVEN.upper(),
        GIVEN + "-more",
        GIVEN.replace("00-", "ff-", 1),
        GIVEN.replace("4bf92f3577b34da6a3ce929d0e0e4736", "0" * 32),
        GIVEN.replace("00f067aa0ba902b7", "0" * 16),
        GIVEN + "\r\nx: y",
        GIVEN * 1000,
    ],
)
def test_what_cannot_be_read_is_as_if_it_were_not_there(value: str) -> None:
    assert parent(head(value)) is None
    assert passed_on(head(value)) is None


def test_a_state_that_cannot_be_passed_on_is_left_out() -> None:
    for state in ("a=" + "x" * 600, "a=\x1b", "a=ä"):
        assert parent(head(GIVEN, state)) == ABOVE


async def answer(visit: Visit) -> None:
    await visit.say("hello")


async def test_without_spans_a_container_stands_where_its_client_does() -> None:
    async with house(answer) as at:
        sent = {"traceparent": GIVEN, "tracestate": "a=1"}
        assert (await call(at, "POST", "/v1/chat/completions", json=ASK, headers=sent)).status_code == 200
        assert (await call(at, "POST", "/v1/chat/completions", json=ASK)).status_code == 200
        wrong = {"traceparent": "00-wrong", "tracestate": "a=1"}
        assert (await call(at, "POST", "/v1/chat/completions", json=ASK, headers=wrong)).status_code == 200
        first, *others = (visit.headers for visit in at.container.visits)
        assert (first["traceparent"], first["tracestate"]) == (GIVEN, "a=1")
        assert not any({"traceparent", "tracestate"} & set(each) for each in others)

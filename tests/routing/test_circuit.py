"""When an upstream that keeps failing is passed over, for how long, and what lets it back."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.core.errors import (
    BadRequest,
    ContextTooLong,
    GatewayError,
    NoContainer,
    Overloaded,
    Saturated,
    UpstreamBadRequest,
    UpstreamBusy,
    UpstreamError,
    UpstreamTimeout,
)
from gateway.routing.circuit import FAILURES, HOPELESS, LONGEST, SHORTEST, Circuit

BROKEN = UpstreamError("broken", retry="elsewhere")


def failing(circuit: Circuit, now: float, error: GatewayError = BROKEN) -> None:
    circuit.called(now)
    circuit.failed(error, now)


def opened(now: float = 0.0) -> Circuit:
    circuit = Circuit()
    for _ in range(FAILURES):
        failing(circuit, now)
    return circuit


def test_it_opens_after_so_many_failures_in_a_row() -> None:
    circuit = Circuit()
    for _ in range(FAILURES - 1):
        failing(circuit, 0.0)
        assert circuit.closed(0.0)
    failing(circuit, 0.0)
    assert not circuit.closed(0.0)
    assert not circuit.closed(SHORTEST - 0.01)


def test_a_success_in_between_starts_the_count_anew() -> None:
    circuit = Circuit()
    for _ in range(10):
        for _ in range(FAILURES - 1):
            failing(circuit, 0.0)
        circuit.called(0.0)
        circuit.succeeded()
        assert circuit.closed(0.0)


def test_one_call_tries_it_and_its_success_closes_it() -> None:
    circuit = opened()
    assert circuit.closed(SHORTEST)
    circuit.called(SHORTEST)
    assert not circuit.closed(SHORTEST)
    circuit.succeeded()
    assert circuit.closed(SHORTEST)
    failing(circuit, SHORTEST)
    assert circuit.closed(SHORTEST)  # the count began anew


def test_each_failed_trial_doubles_the_time_up_to_the_longest() -> None:
    circuit, now = opened(), 0.0
    for wait in (5.0, 10.0, 20.0, 40.0, 60.0, 60.0, 60.0):
        assert SHORTEST <= wait <= LONGEST
        assert not circuit.closed(now + wait - 0.01)
        assert circuit.closed(now + wait)
        now += wait
        failing(circuit, now)


def test_failures_of_calls_that_were_under_way_do_not_double_it() -> None:
    circuit = opened()
    for _ in range(20):
        circuit.failed(BROKEN, 1.0)
    assert circuit.closed(SHORTEST)


def test_a_trial_whose_client_left_makes_room_for_another() -> None:
    circuit = opened()
    assert circuit.called(SHORTEST)
    assert not circuit.closed(SHORTEST)
    circuit.left()
    assert circuit.closed(SHORTEST)


def test_only_the_first_call_after_the_time_is_the_trial() -> None:
    circuit = opened()
    assert not circuit.called(1.0)
    assert circuit.called(SHORTEST)
    assert not circuit.called(SHORTEST)


@pytest.mark.parametrize("code", sorted(HOPELESS))
def test_what_the_next_call_will_meet_too_opens_it_at_once(code: str) -> None:
    circuit = Circuit()
    failing(circuit, 0.0, UpstreamError("x", code=code, retry="elsewhere"))
    assert not circuit.closed(0.0)


INNOCENT = (
    BadRequest("x"),
    ContextTooLong("x"),
    UpstreamBadRequest("x"),
    Overloaded("x", retry="elsewhere"),
    UpstreamBusy("x", retry="elsewhere"),
    Saturated("x", retry="elsewhere"),
    NoContainer("x", retry="elsewhere"),
    UpstreamTimeout("x", retry="never"),  # the request's own length
)


@pytest.mark.parametrize("error", INNOCENT, ids=lambda error: f"{type(error).__name__}-{error.retry}")
def test_what_says_nothing_about_the_upstream_does_not_count(error: GatewayError) -> None:
    circuit = Circuit()
    for _ in range(10 * FAILURES):
        failing(circuit, 0.0, error)
    assert circuit.closed(SHORTEST)  # one that is busy is passed over for a moment


@pytest.mark.parametrize("error", INNOCENT[:3], ids=lambda error: type(error).__name__)
def test_a_trial_that_is_told_what_is_wrong_with_its_request_closes_it(error: GatewayError) -> None:
    circuit = opened()
    failing(circuit, SHORTEST, error)
    assert circuit.closed(SHORTEST)
    for _ in range(FAILURES - 1):
        failing(circuit, SHORTEST)
        assert circuit.closed(SHORTEST)  # the count began anew


@given(st.lists(st.tuples(st.floats(0, 30), st.sampled_from(["call", "fail", "succeed", "leave"]))))
def test_it_is_never_shut_for_longer_than_the_longest(steps: list[tuple[float, str]]) -> None:
    circuit, now = Circuit(), 0.0
    trying = False
    for after, step in steps:
        now += after
        if step == "call":
            was = circuit.closed(now)
            trying = circuit.called(now) or trying
            assert was or not circuit.called(now)
        elif step == "fail":
            circuit.failed(BROKEN, now)
            trying = False
        elif step == "succeed":
            circuit.succeeded()
            trying = False
            assert circuit.closed(now)
        elif trying:
            circuit.left()
            trying = False
        if not trying:
            assert circuit.closed(now + LONGEST)


def test_one_that_takes_no_more_calls_is_passed_over_as_long_as_it_says() -> None:
    circuit = Circuit()
    circuit.failed(UpstreamBusy("full", headers={"retry-after": "7"}, retry="elsewhere"), 100.0)
    assert not circuit.closed(106.9)
    assert circuit.closed(107.0)

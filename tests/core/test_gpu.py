"""GPU time: every nanosecond of a container is somebody's, once."""

from __future__ import annotations

from itertools import pairwise
from math import ceil
from typing import TypeAlias

from hypothesis import given
from hypothesis import strategies as st

from gateway.core.gpu import COUNTED, SECOND, Meter, Payer, Tail

ANN = Payer("k1", "ann", "red", "m")
BOB = Payer("k2", "bob", None, "m")


def meter(inputs: int = 2, most: int = 3, window: int = 10 * SECOND) -> Meter:
    return Meter(inputs, most, window)


def test_a_call_alone_owes_its_time() -> None:
    one = meter()
    one.enter("a", ANN, 5)
    assert one.leave("a", 12) == (7, "estimated")


def test_calls_on_one_container_share_it() -> None:
    one = meter()
    one.enter("a", ANN, 0)
    one.enter("b", BOB, 100)
    assert one.leave("a", 200) == (150, "estimated")
    assert one.leave("b", 300) == (150, "estimated")


def test_what_does_not_divide_is_the_oldest_ones() -> None:
    one = meter(inputs=3)
    for name in "abc":
        one.enter(name, ANN, 0)
    assert [one.leave(name, 10)[0] for name in "abc"] == [4, 3, 3]


def test_more_calls_than_one_container_takes_need_another_up_to_the_most() -> None:
    one = meter(inputs=1, most=2)
    for name in "abcd":
        one.enter(name, ANN, 0)
    assert [one.leave(name, 100)[0] for name in "abcd"] == [50, 50, 50, 50]


def test_a_count_of_the_platforms_goes_before_the_guess_and_does_not_hold_for_ever() -> None:
    one = meter()
    one.counted(5, 0)
    one.enter("a", ANN, 0)
    assert one.leave("a", 10) == (50, "reported")
    one.enter("b", ANN, 10)
    assert one.leave("b", COUNTED + 10) == ((COUNTED - 10) * 5 + 10, "estimated")


def test_a_count_of_none_while_calls_run_is_not_believed() -> None:
    one = meter()
    one.enter("a", ANN, 0)
    one.counted(0, 0)
    assert one.leave("a", 10) == (10, "estimated")


def test_the_idle_tail_is_shared_by_what_each_kept_busy() -> None:
    one = meter(window=90)
    one.enter("a", ANN, 0)
    one.leave("a", 20)
    one.enter("b", BOB, 20)
    one.leave("b", 30)
    assert one.closed(119) == []
    assert one.closed(500) == [Tail(90, "estimated", ((ANN, 60), (BOB, 30)))]
    assert one.closed(501) == []


def test_a_call_that_comes_in_time_ends_the_tail() -> None:
    one = meter(window=90)
    one.enter("a", ANN, 0)
    one.leave("a", 20)
    one.enter("b", BOB, 50)
    assert one.closed(60) == [Tail(30, "estimated", ((ANN, 30),))]


def test_a_tail_that_still_runs_can_be_closed_at_the_end() -> None:
    one = meter(window=90)
    one.enter("a", ANN, 0)
    one.leave("a", 20)
    assert one.closed(25, all=True) == [Tail(5, "estimated", ((ANN, 5),))]


def test_containers_that_the_platform_sees_stop_cost_nothing_more() -> None:
    one = meter(window=90)
    one.enter("a", ANN, 0)
    one.leave("a", 20)
    one.counted(0, 40)
    assert one.closed(200) == [Tail(20, "estimated", ((ANN, 20),))]


def test_a_clock_that_goes_back_takes_nothing_away() -> None:
    one = meter()
    one.enter("a", ANN, 100)
    assert one.leave("a", 50) == (0, "estimated")


def test_a_call_that_reached_no_container_owes_nothing_and_nothing_idles_after_it() -> None:
    one = meter(window=90)
    for at in (0, 20):
        one.enter("a", ANN, at)
        assert one.leave("a", at + 10, reached=False)[0] == 0
        assert one.running(at + 10) == 0
    assert one.closed(1000) == []


def test_a_call_that_reached_no_container_ends_what_idled_and_nothing_goes_on_after_it() -> None:
    one = meter(window=90)
    one.enter("a", ANN, 0)
    one.leave("a", 20)
    one.enter("b", BOB, 50)
    one.leave("b", 60, reached=False)
    assert one.closed(1000) == [Tail(30, "estimated", ((ANN, 30),))]


def test_the_share_of_a_call_that_reached_no_container_is_nobodys() -> None:
    one = meter(window=90)
    one.enter("a", ANN, 0)
    one.enter("b", BOB, 100)
    assert one.leave("b", 200, reached=False)[0] == 0
    assert one.leave("a", 300) == (250, "estimated")
    assert one.closed(1000) == [Tail(90, "estimated", ((ANN, 90),))]


def test_several_workers_share_out_together_what_the_platform_counts_once() -> None:
    workers = [Meter(2, 3, 9 * SECOND, 2) for _ in range(2)]
    owed = 0
    for worker in workers:
        worker.counted(1, 0)
        worker.enter("a", ANN, 0)
    for worker in workers:
        gpu, source = worker.leave("a", 71)
        owed += gpu
        assert source == "estimated"  # the platform does not say whose they are
    [one], [other] = (worker.closed(71 + 10 * SECOND) for worker in workers)
    assert owed == 70
    assert one == other and owed + one.gpu + other.gpu == 71 + 9 * SECOND - 1  # two halves of a nanosecond


def test_what_does_not_divide_among_workers_is_carried_on() -> None:
    one = Meter(2, 3, SECOND, 3)
    one.counted(1, 0)
    owed = 0
    for at in range(0, 90, 2):
        one.enter("a", ANN, at)
        owed += one.leave("a", at + 1)[0]
    idle = sum(tail.gpu for tail in one.closed(89, all=True))
    assert owed + idle == 89 // 3


def test_what_several_workers_guess_is_their_own() -> None:
    one = Meter(2, 3, SECOND, 3)
    one.enter("a", ANN, 0)
    assert one.leave("a", 10) == (10, "estimated")


Moment: TypeAlias = tuple[int, tuple[str, ...]]
"""When, and the calls that run from then on, the oldest first."""

STEPS = st.lists(
    st.tuples(
        st.integers(0, 40 * SECOND),
        st.sampled_from(["enter", "leave", "miss", "count", "look"]),
        st.integers(0, 9),
    ),
    max_size=60,
)


@given(STEPS, st.integers(1, 4), st.integers(1, 4), st.integers(1, 30 * SECOND))
def test_the_sum_of_all_shares_is_the_integral_of_the_containers(
    steps: list[tuple[int, str, int]], inputs: int, most: int, window: int
) -> None:
    one, now, running, owed = Meter(inputs, most, window), 0, list[str](), 0
    history: list[Moment] = [(0, ())]
    counts: list[tuple[int, int]] = []
    missed: set[str] = set()  # calls that reached no container
    tails: list[Tail] = []
    for number, (pause, what, which) in enumerate(steps):
        now += pause
        if what == "enter":
            one.enter(f"c{number}", (ANN, BOB)[which % 2], now)
            running.append(f"c{number}")
        elif what in ("leave", "miss") and running:
            call = running.pop(which % len(running))
            missed |= {call} if what == "miss" else set()
            owed += one.leave(call, now, reached=what == "leave")[0]
        elif what == "count":
            one.counted(which % 4, now)
            counts.append((now, which % 4))
        tails += one.closed(now)
        history.append((now, tuple(running)))
    for call in running:
        owed += one.leave(call, now)[0]
    tails += one.closed(now, all=True)
    assert all(tail.gpu == sum(gpu for _, gpu in tail.shares) for tail in tails)
    assert all(payer in (ANN, BOB) for tail in tails for payer, _ in tail.shares)
    assert owed + sum(tail.gpu for tail in tails) == integral(history, missed, counts, (inputs, most, window))


@given(
    st.lists(st.tuples(st.integers(0, 20), st.sampled_from(["enter", "leave"])), max_size=20),
    st.integers(1, 3),
    st.integers(1, 10),
)
def test_what_runs_at_each_moment_adds_up_to_what_is_shared_out(
    steps: list[tuple[int, str]], inputs: int, window: int
) -> None:
    one, now, calls, owed, ran = Meter(inputs, 3, window * SECOND), 0, list[int](), 0, 0.0
    for number, (pause, what) in enumerate([*steps, *[(0, "leave")] * len(steps), (window, "end")]):
        ran += sum(one.running(at * SECOND + SECOND // 2) for at in range(now, now + pause))
        now += pause
        if what == "enter":
            one.enter(number, ANN, now * SECOND)
            calls.append(number)
        elif calls:
            owed += one.leave(calls.pop(), now * SECOND)[0]
        owed += sum(tail.gpu for tail in one.closed(now * SECOND))
    assert one.running(now * SECOND) == 0
    assert ran * SECOND == owed


def test_what_the_platform_counts_runs_whether_it_is_busy_or_not_while_the_count_holds() -> None:
    one, part = meter(), Meter(2, 3, 9 * SECOND, 2)
    one.counted(3, 0)
    part.counted(3, 0)
    assert (one.running(COUNTED), part.running(5)) == (3, 1.5)
    assert one.running(COUNTED + 1) == 0
    one.enter("a", ANN, COUNTED)
    one.counted(0, COUNTED)  # seen before it came
    assert one.running(COUNTED + 1) == 1


def integral(
    history: list[Moment], missed: set[str], counts: list[tuple[int, int]], shape: tuple[int, int, int]
) -> int:
    """The containers over time by the definition, added up from one moment of change to the next.

    What would be the share of a call that reached none is left out.
    """
    inputs, most, window = shape
    total, ended, last, reached, idled = 0, None, 0, False, False
    for (start, calls), (stop, _) in pairwise(history):
        if calls:
            reached = bool(set(calls) - missed) or (reached and not idled)
            ended, last, idled = stop if reached else None, min(most, ceil(len(calls) / inputs)), False
        idled = idled or (not calls and stop > start)
        ends = (ended or 0) + window
        edges = sorted({start, stop, *(edge for edge in marks(counts, start, ends) if start < edge < stop)})
        for low, high in pairwise(edges):
            known = reported(counts, low)
            if calls:
                total += shares((high - low) * (known or min(most, ceil(len(calls) / inputs))), calls, missed)
            elif ended is not None and low < ends:
                total += (high - low) * (last if known is None else known)
    return total


def shares(taken: int, calls: tuple[str, ...], missed: set[str]) -> int:
    """What of it is somebody's; what does not divide is the oldest one's."""
    part, rest = divmod(taken, len(calls))
    return sum(part + rest * (call == calls[0]) for call in calls if call not in missed)


def marks(counts: list[tuple[int, int]], now: int, ends: int) -> list[int]:
    return [ends, *[at + COUNTED for at, _ in counts if at <= now][-1:]]


def reported(counts: list[tuple[int, int]], at: int) -> int | None:
    told = [count for when, count in counts if when <= at]
    fresh = [when for when, _ in counts if when <= at]
    return told[-1] if told and at < fresh[-1] + COUNTED else None

"""Laws of the pool: no container takes too much, none boots in vain, every request ends once."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.core import modal
from gateway.simulate.faults import NOTHING, Wish
from gateway.simulate.options import Boot, Mode, Options
from gateway.simulate.pool import MAX_BOOT_FAILURES, REFUSALS, Event, Pool, What

ENDS = REFUSALS | {What.cut, What.timed_out, What.given_up}


def lowest(shortest: float, longest: float) -> float:
    return shortest


@dataclass
class Watched:
    """A pool, and what must follow from what it says."""

    options: Options
    now: float = 0.0
    ends: Counter[str] = field(default_factory=Counter)
    open: set[str] = field(default_factory=set)
    inside: dict[int, set[str]] = field(default_factory=dict)  # container -> inputs, once it is ready

    def __post_init__(self) -> None:
        self.pool = Pool(self.options, lowest)

    def submit(self, id: str, wish: Wish = NOTHING) -> list[Event]:
        self.open.add(id)
        return self.see(self.pool.submit(self.now, id, wish))

    def end(self, id: str) -> list[Event]:
        said = self.pool.advance(self.now)
        self.see(said)
        if id in self.open:
            self._ended(id)
            for inputs in self.inside.values():
                inputs.discard(id)
        return said + self.see(self.pool.end(self.now, id))

    def advance(self, seconds: float) -> list[Event]:
        self.now += seconds
        return self.see(self.pool.advance(self.now))

    def crash(self, id: str) -> list[Event]:
        return self.see(self.pool.crash(self.now, id))

    def see(self, events: list[Event]) -> list[Event]:
        for event in events:
            self._see(event)
        self._check()
        return events

    def _see(self, event: Event) -> None:
        match event.what:
            case What.ready:
                self.inside[event.container] = set()
            case What.started:
                self.inside[event.container].add(event.input)
                assert len(self.inside[event.container]) <= self.options.max_inputs
            case What.crashed:
                del self.inside[event.container]
            case What.idle | What.zero:
                assert self.inside.pop(event.container) == set()
        if event.what in ENDS:
            self._ended(event.input)
            for inputs in self.inside.values():
                inputs.discard(event.input)

    def _ended(self, id: str) -> None:
        self.ends[id] += 1
        self.open.discard(id)

    def _check(self) -> None:
        assert sorted(self.pool.loads) == sorted(map(len, self.inside.values()))
        assert self.pool.booting + self.pool.ready <= self.options.max_containers
        assert self.pool.queued + self.pool.running == len(self.open)
        due = self.pool.due()
        assert due is None or due > self.now
        if self.pool.queued:  # a full house, or one that is being opened
            assert min(self.pool.loads, default=self.options.max_inputs) == self.options.max_inputs
            assert self.pool.booting or self.pool.ready == self.options.max_containers


OPTIONS = st.builds(
    Options,
    mode=st.sampled_from(Mode),
    boot=st.sampled_from([Boot(0, 0), Boot(2, 2), Boot(1, 3)]),
    idle=st.sampled_from([0.0, 1.0, 5.0]),
    max_inputs=st.integers(1, 3),
    max_containers=st.integers(1, 3),
    function_timeout=st.sampled_from([1.0, 4.0, 1000.0]),
)
WISHES = st.builds(
    Wish,
    boot=st.sampled_from([None, 0.0, 1.5]),
    fault=st.sampled_from([None, None, "boot-fails", "boot-never"]),
)
STEPS = st.lists(
    st.tuples(
        st.sampled_from(["submit", "submit", "end", "began", "crash", "advance"]),
        st.integers(0, 30),
        st.sampled_from([0.0, 0.5, 1.0, 7.0]),
        WISHES,
    ),
    max_size=40,
)


@given(OPTIONS, STEPS)
def test_every_request_ends_once_whatever_happens(
    options: Options, steps: list[tuple[str, int, float, Wish]]
) -> None:
    watched = Watched(options)
    made: list[str] = []
    for what, number, seconds, wish in steps:
        watched.advance(seconds)
        one = made[number % len(made)] if made else "none"
        match what:
            case "submit":
                made.append(f"i{len(made)}")
                watched.submit(made[-1], wish)
            case "end":
                watched.end(one)
            case "began":
                watched.pool.began(one)
            case "crash":
                watched.crash(one)
    for _ in range(len(made) + 1):
        for one in sorted(watched.open):
            watched.end(one)
    watched.advance(10_000)
    assert watched.ends == Counter(made)
    assert watched.pool.ready == watched.pool.booting == 0
    assert watched.pool.due() is None


@given(OPTIONS.filter(lambda options: options.queues), st.integers(1, 12))
def test_no_more_containers_boot_than_what_waits_needs(options: Options, requests: int) -> None:
    watched = Watched(options)
    for number in range(requests):
        before = watched.pool.booting * options.max_inputs
        said = watched.submit(str(number))
        booted = sum(event.what is What.booting for event in said)
        assert booted == 0 or (booted == 1 and before <= watched.pool.queued + watched.pool.running)
    assert watched.pool.boots <= -(-requests // options.max_inputs)


def whats(events: list[Event]) -> list[What]:
    return [event.what for event in events]


def test_a_crowd_on_a_cold_function_starts_one_container() -> None:
    watched = Watched(Options(boot=Boot(20, 20), max_inputs=500))
    for number in range(200):
        watched.submit(str(number))
    assert (watched.pool.boots, watched.pool.queued, watched.pool.due()) == (1, 200, 20)
    assert whats(watched.advance(20)) == [What.ready, *[What.started] * 200]


def test_an_idle_container_stays_its_time_and_not_longer() -> None:
    watched = Watched(Options(boot=Boot(0, 0), idle=60))
    watched.submit("a")
    watched.advance(100)
    watched.end("a")
    assert whats(watched.advance(59)) == []
    assert whats(watched.advance(1)) == [What.zero]


def test_a_server_refuses_what_it_cannot_take_and_boots_once() -> None:
    watched = Watched(Options(Mode.server, Boot(20, 20), max_inputs=1))
    assert whats(watched.submit("a")) == [What.not_ready, What.booting]
    assert whats(watched.submit("b")) == [What.not_ready]
    watched.advance(20)
    assert whats(watched.submit("c")) == [What.started]
    assert whats(watched.submit("d")) == [What.busy]


def test_a_function_is_timed_from_its_start_not_from_its_request() -> None:
    watched = Watched(Options(boot=Boot(20, 20), function_timeout=5))
    watched.submit("a")
    watched.advance(20)
    assert whats(watched.advance(4.9)) == []
    assert whats(watched.advance(0.1)) == [What.timed_out]


def test_a_crash_takes_what_was_answered_and_starts_the_rest_anew() -> None:
    watched = Watched(Options(boot=Boot(0, 0)))
    for one in "abc":
        watched.submit(one)
    watched.pool.began("b")
    said = watched.crash("b")
    assert [(event.what, event.input) for event in said if event.input] == [
        (What.requeued, "c"),
        (What.cut, "b"),
        (What.requeued, "a"),
        (What.started, "a"),
        (What.started, "c"),
    ]


@pytest.mark.parametrize("fault", ["boot-fails", "boot-never"])
def test_a_boot_that_fails_is_tried_again_a_few_times(fault: str) -> None:
    watched = Watched(Options(boot=Boot(1, 1)))
    watched.submit("a", Wish(fault=fault))
    said = whats(watched.advance(100))
    assert said.count(What.boot_failed) == (1 if fault == "boot-fails" else MAX_BOOT_FAILURES)
    assert (What.given_up in said) == (fault == "boot-never")


def test_the_queue_is_bounded() -> None:
    watched = Watched(Options(boot=Boot(20, 20)))
    for number in range(modal.MAX_PENDING):
        watched.pool.submit(0, str(number), NOTHING)
    assert whats(watched.pool.submit(0, "one more", NOTHING)) == [What.full]

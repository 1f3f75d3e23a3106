"""States as a pure function of what happened: no clock, no socket, every moment written down."""

from collections.abc import Iterable, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.routing.lifecycle import REMEMBERED, SHORTEST_BOOT, Lifecycle

WINDOW = 60.0
EVENTS = (
    "sent", "answered", "refused", "stopped", "ended", "started", "counted", "gone", "kept", "left",
)  # fmt: skip


def told(events: Iterable[tuple[float, str]], *, sleeps: bool) -> Lifecycle:
    life = Lifecycle(WINDOW, sleeps=sleeps)
    for at, event in events:
        happen(life, at, event)
    return life


def happen(life: Lifecycle, at: float, event: str) -> None:
    match event:
        case "stopped":
            life.stopped()
        case "counted" | "gone":
            life.counted(int(event == "counted"), at)
        case "kept" | "left":
            life.kept(event == "kept", at)
        case _:
            getattr(life, event)(at)


def story(text: str) -> list[tuple[float, str]]:
    """``0 sent, 3 refused`` as pairs."""
    return [(float(at), event) for at, event in (part.split() for part in text.split(",") if part.strip())]


IDLE = "0 sent, 0.2 answered, 5 ended"  # cold from 65 on, as far as one can guess

TABLE = (
    # what happened, whether idle containers are stopped, when it is asked, the state
    ("", True, 0, "unknown"),
    ("0 sent", True, 0.5, "unknown"),
    ("0 sent", True, 2, "booting"),
    ("0 sent", False, 2, "unknown"),
    ("0 sent, 0.2 answered", True, 0.2, "warm"),
    ("0 sent, 0.2 answered, 5 ended", True, 64, "warm"),
    ("0 sent, 0.2 answered, 5 ended", True, 66, "cold"),
    ("0 sent, 0.2 answered, 5 ended", False, 9999, "warm"),
    ("0 sent, 0.2 answered", True, 9999, "warm"),
    ("0 sent, 0.2 answered, 5 ended, 66 sent", True, 66, "booting"),
    ("0 sent, 0.2 answered, 5 ended, 66 sent, 86 answered", True, 86, "warm"),
    ("0 sent, 0.2 answered, 5 ended, 66 sent, 70 ended", True, 71, "booting"),
    ("0 sent, 0.2 answered, 5 ended, 66 sent, 70 ended", True, 131, "cold"),
    ("0 sent, 0 refused, 0 ended", False, 1, "booting"),
    ("0 sent, 0 refused, 0 ended", False, 61, "cold"),
    ("0 sent, 0 refused, 0 ended, 1 sent, 1.1 answered", False, 2, "warm"),
    ("0 sent, 0.2 answered, 1 ended, 2 sent, 2 refused", True, 2, "booting"),
    ("0 sent, 0.1 stopped, 0.1 ended", True, 9999, "stopped"),
    ("0 sent, 0.1 stopped, 0.1 ended, 1 sent, 1.2 answered", True, 2, "warm"),
    ("0 sent, 3 ended", True, 3, "unknown"),
    ("0 sent, 3 ended, 9 sent", True, 9.5, "unknown"),
    # what a platform counts, and what is kept; only an answer makes it warm
    (f"{IDLE}, 60 counted", True, 130, "warm"),
    (f"{IDLE}, 60 counted", True, 136, "cold"),
    (f"{IDLE}, 60 counted, 90 gone", True, 91, "cold"),
    (f"{IDLE}, 70 gone, 80 counted", True, 80, "booting"),
    (f"{IDLE}, 60 kept", True, 9999, "warm"),
    (f"{IDLE}, 60 kept, 500 left", True, 560, "warm"),
    (f"{IDLE}, 60 kept, 500 left", True, 561, "cold"),
    (f"{IDLE}, 70 kept", True, 71, "booting"),
    (f"{IDLE}, 70 left", True, 71, "cold"),
    ("0 kept", True, 1, "unknown"),
    ("0 counted", True, 1, "unknown"),
    ("0 sent, 0.1 started, 0.1 ended", True, 1, "unknown"),  # it was there
    ("0 sent, 5 started, 5 ended", True, 6, "booting"),
    (f"{IDLE}, 70 sent, 70.1 started, 70.1 ended", True, 100, "booting"),
    (f"{IDLE}, 70 sent, 70.1 started, 70.1 ended", True, 131, "unknown"),  # nobody asked it
    (f"{IDLE}, 70 sent, 70.1 started, 70.1 ended, 71 sent", True, 200, "booting"),  # somebody does
    (f"{IDLE}, 70 sent, 70.1 started, 70.1 ended, 71 sent, 90 answered", True, 90, "warm"),
    ("0 sent, 0.2 answered, 1 sent, 1.1 started", True, 2, "warm"),
)


@pytest.mark.parametrize(("happened", "sleeps", "at", "state"), TABLE)
def test_the_state_after_what_happened(happened: str, sleeps: bool, at: float, state: str) -> None:
    assert told(story(happened), sleeps=sleeps).state(at) == state


BOOTS = (
    # what happened, the boots that were seen
    ("0 sent, 0.2 answered", []),
    ("0 sent, 0.2 answered, 5 ended, 66 sent, 86 answered", [20]),
    ("0 sent, 0.2 answered, 5 ended, 66 sent, 66.5 answered", []),  # too soon: it had not been stopped
    ("0 sent, 0.2 answered, 5 ended, 66 sent, 70 sent, 86 answered, 87 answered", [20]),
    ("0 sent, 0.2 answered, 5 ended, 66 sent, 70 ended, 75 sent, 90 answered", [24]),
    ("0 sent, 0 refused, 0 ended, 1 sent, 1 refused, 1 ended, 2 sent, 5 answered", [5]),
    ("0 sent, 0.2 answered, 1 ended, 2 sent, 30 answered", []),  # a slow answer of a warm one
    ("0 sent, 0.2 answered, 1 sent, 90 answered", []),
    ("0 sent, 0.1 stopped, 0.1 ended, 20 sent, 50 answered", []),
    ("0 sent, 0 refused, 0 ended, 100 sent, 110 answered", [10]),  # given up in between
    # a container that was started without a call
    (f"{IDLE}, 70 sent, 75 started, 75 ended, 80 sent, 100 answered", [30]),
    (f"{IDLE}, 70 sent, 75 started, 75 ended, 110 sent, 110.2 answered", []),  # it may have waited
    (f"{IDLE}, 70 sent, 75 started, 75 ended, 76 sent, 170 answered", [100]),
    (f"{IDLE}, 70 sent, 75 started, 75 ended, 137 sent, 137.2 answered", []),
)


@pytest.mark.parametrize(("happened", "boots"), BOOTS)
def test_a_boot_is_timed_from_the_call_that_asked_for_it(happened: str, boots: Sequence[float]) -> None:
    seen = told(story(happened), sleeps=True).boots
    assert (seen.count, seen.total) == (len(boots), pytest.approx(sum(boots)))


SEQUENCES = st.lists(st.tuples(st.floats(0, 100), st.sampled_from(EVENTS)), max_size=40)


@given(SEQUENCES, st.booleans(), st.floats(0, 1000))
def test_an_upstream_with_a_call_under_way_is_never_cold(
    steps: list[tuple[float, str]], sleeps: bool, later: float
) -> None:
    life, now, running = Lifecycle(WINDOW, sleeps=sleeps), 0.0, 0
    for after, event in steps:
        now += after
        if event == "ended" and not running:
            continue
        happen(life, now, event)
        running += {"sent": 1, "ended": -1}.get(event, 0)
        if running:
            assert life.state(now) != "cold"
            assert life.state(now + later) != "cold"
        if event == "answered":
            assert life.state(now) in ("warm", "cold")
            assert not running or life.state(now) == "warm"


@given(SEQUENCES)
def test_a_boot_lies_between_a_call_and_an_answer_and_is_no_shorter_than_boots_are(
    steps: list[tuple[float, str]],
) -> None:
    life, now, running, sent = Lifecycle(WINDOW, sleeps=True), 0.0, 0, 0.0
    known = first = 0
    for after, event in steps:
        now += after
        if event == "ended" and not running:
            continue
        before, total = life.boots.count, life.boots.total
        was = life.state(now)
        happen(life, now, event)
        running += {"sent": 1, "ended": -1}.get(event, 0)
        if event in ("sent", "refused", "started") and not first:
            first, sent = 1, now
        boots = life.boots
        if boots.count != before:
            known += 1
            assert (event, was, boots.count) == ("answered", "booting", known)
            assert boots.total - total + 1e-6 >= SHORTEST_BOOT
            assert boots.total - total <= now - sent + 1e-6
            assert life.state(now) == "warm" or not running


@given(st.lists(st.floats(1, 1000), min_size=1, max_size=3 * REMEMBERED))
def test_the_percentiles_are_boots_that_were_seen_among_the_last(boots: list[float]) -> None:
    life, now = Lifecycle(WINDOW, sleeps=True), 0.0
    for boot in boots:
        life.sent(now)
        life.refused(now)
        life.answered(now + boot)
        now += boot
        life.ended(now)
        now += WINDOW + 1
    seen, recent = life.boots, sorted(boots[-REMEMBERED:])
    assert seen.count == len(boots)
    assert seen.p50 is not None
    assert seen.p90 is not None
    assert seen.p50 <= seen.p90
    assert min(abs(seen.p50 - each) for each in recent) < 1e-6
    assert sum(each <= seen.p50 + 1e-6 for each in recent) >= len(recent) / 2
    assert sum(each <= seen.p90 + 1e-6 for each in recent) >= len(recent) * 0.9


def test_how_long_a_boot_will_take_is_what_boots_took_less_what_has_passed() -> None:
    life = Lifecycle(WINDOW, sleeps=True)
    assert life.until_warm(0.0) is None
    for began in (0.0, 1000.0, 2000.0):
        life.sent(began)
        life.refused(began)
        life.answered(began + 20)
        life.ended(began + 20)
    assert life.until_warm(3000.0) == 20
    life.sent(3000.0)
    assert [life.until_warm(3000.0 + passed) for passed in (0, 5, 19, 50)] == [20, 15, 1, 0]

"""What is tried, in which order, and what it costs: every policy over small scenarios, then at random."""

from collections import Counter
from collections.abc import Mapping
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.auth import ANYONE, Caller
from gateway.core.errors import GatewayError, NoContainer, UpstreamBadRequest, UpstreamError
from gateway.routing.attempts import Attempts, Candidate, Cold
from gateway.routing.budget import RetryBudget
from gateway.routing.routes import Routes
from tests.serve.house import HELLO, Desk, Scripted, deployed

ERRORS: Mapping[str, GatewayError] = {
    "boots": NoContainer("cold", retry="elsewhere"),  # takes a call that waits
    "never boots": NoContainer("cold", retry="elsewhere"),
    "broken": UpstreamError("elsewhere", retry="elsewhere"),
    "shaky": UpstreamError("once", retry="once"),
    "refuses": UpstreamBadRequest("never", retry="never"),
}


def routes(own: int = 1, other: int = 1) -> Routes:
    """Model ``m`` with upstreams a, b, c; its fallback ``x`` with x, x2, x3; that of both ``y``."""
    return Routes(
        [
            deployed(*map(Scripted, "abc"[:own]), balance="round_robin", fallback=("x", "y")),
            deployed(*map(Scripted, ("x", "x2", "x3")[:other]), name="x", balance="round_robin"),
            deployed(Scripted("y"), name="y"),
        ]
    )


def shown(candidate: Candidate) -> str:
    """``a`` would wait there, ``a?`` would not, ``a?!`` would not and has a container started."""
    return candidate.upstream.name + "?" * (not candidate.patient) + "!" * candidate.wakes


def tried(among: Routes, cold: Cold, fates: Mapping[str, str], caller: Caller = ANYONE) -> list[str]:
    """The candidates of a request; ``fates`` of upstreams that do not answer at once."""
    attempts = Attempts(among, among.deployments["m"], caller, cold, 0.0)
    candidates = [shown(attempts.current)]
    while (fate := fates.get(attempts.current.upstream.name)) is not None:
        if fate == "boots" and attempts.current.patient:
            break
        if next(attempts.after(ERRORS[fate]), None) is None:
            candidates.append("-")
            break
        candidates.append(shown(attempts.current))
    return candidates


TABLE: tuple[tuple[Cold, int, dict[str, str], str], ...] = (
    # the policy, upstreams of the model, what becomes of calls to them, what is tried; "-": the client hears
    ("wait", 1, {}, "a"),
    ("wait", 1, {"a": "boots"}, "a"),
    ("wait", 1, {"a": "never boots"}, "a x"),
    ("wait", 1, {"a": "never boots", "x": "broken"}, "a x y"),
    ("wait", 1, {"a": "never boots", "x": "shaky"}, "a x x y"),
    ("wait", 1, {"a": "refuses"}, "a -"),
    ("wait", 1, {"a": "shaky"}, "a a x"),
    ("wait", 1, {"a": "broken"}, "a x"),
    ("wait", 1, {"a": "broken", "x": "broken", "y": "broken"}, "a x y -"),
    ("wait", 2, {}, "a?"),
    ("wait", 2, {"a": "boots"}, "a? b?"),
    ("wait", 2, {"a": "boots", "b": "boots"}, "a? b? a"),
    ("wait", 2, {"a": "boots", "b": "broken"}, "a? b? a"),
    ("wait", 2, {"a": "broken", "b": "boots"}, "a? b? b"),
    ("wait", 2, {"a": "broken", "b": "broken"}, "a? b? x"),
    ("wait", 2, {"a": "never boots", "b": "never boots"}, "a? b? a x"),
    ("wait", 3, {"a": "boots", "b": "boots", "c": "boots"}, "a? b? c? a"),
    ("wait", 3, {"a": "broken", "b": "broken"}, "a? b? x"),
    ("wait", 3, {"a": "broken", "b": "broken", "x": "broken"}, "a? b? x y"),
    ("wait", 3, {"a": "boots", "b": "broken", "c": "broken"}, "a? b? c? a"),
    ("fallback", 1, {}, "a?!"),
    ("fallback", 1, {"a": "boots"}, "a?! x?"),
    ("fallback", 1, {"a": "boots", "x": "boots"}, "a?! x? y?"),
    ("fallback", 1, {"a": "boots", "x": "boots", "y": "boots"}, "a?! x? y? a"),
    ("fallback", 1, {"a": "never boots", "x": "boots", "y": "boots"}, "a?! x? y? a -"),
    ("fallback", 1, {"a": "boots", "x": "broken", "y": "broken"}, "a?! x? y a"),
    ("fallback", 1, {"a": "broken", "x": "boots"}, "a?! x"),
    ("fallback", 2, {"a": "boots"}, "a?! b?"),
    ("fallback", 2, {"a": "boots", "b": "boots"}, "a?! b? x?"),
    ("fallback", 2, {"a": "boots", "b": "boots", "x": "boots", "y": "boots"}, "a?! b? x? y? a"),
    ("fallback", 2, {"a": "broken", "b": "broken"}, "a?! b?! x"),
    ("fail", 1, {}, "a?!"),
    ("fail", 1, {"a": "boots"}, "a?! -"),
    ("fail", 1, {"a": "broken"}, "a?! x?!"),
    ("fail", 1, {"a": "broken", "x": "boots"}, "a?! x?! -"),
    ("fail", 2, {"a": "boots"}, "a?! b?"),
    ("fail", 2, {"a": "boots", "b": "boots"}, "a?! b? -"),
    ("fail", 3, {"a": "shaky", "b": "boots"}, "a?! a?! b?! c?"),
)


@pytest.mark.parametrize(("cold", "own", "fates", "sequence"), TABLE)
def test_what_is_tried(cold: Cold, own: int, fates: Mapping[str, str], sequence: str) -> None:
    assert " ".join(tried(routes(own), cold, fates)) == sequence


def test_a_fallback_with_several_upstreams_gets_one_more_call_too() -> None:
    broken = dict.fromkeys(("a", "b", "c", "x", "x2", "x3", "y"), "broken")
    assert tried(routes(3, 3), "wait", broken) == ["a?", "b?", "x", "x2", "y", "-"]


def test_a_caller_is_led_only_to_models_it_may_call() -> None:
    broken = dict.fromkeys("axy", "broken")
    assert tried(routes(), "wait", broken, Caller("some", ("m", "y"))) == ["a", "y", "-"]


NAMES = ("a", "b", "c", "x", "x2", "x3", "y")


@given(
    st.sampled_from(["wait", "fallback", "fail"]),
    st.integers(1, 3),
    st.integers(1, 3),
    st.dictionaries(st.sampled_from(NAMES), st.sampled_from(sorted(ERRORS))),
)
def test_whatever_happens(cold: Cold, own: int, other: int, fates: dict[str, str]) -> None:
    sequence = tried(routes(own, other), cold, fates)
    steps = [step.rstrip("!") for step in sequence if step != "-"]
    names = [step.rstrip("?") for step in steps]
    assert sum(first == second for first, second in pairwise(steps)) <= 1  # the "once"
    pairs = Counter(steps)
    assert sum(count - 1 for count in pairs.values()) <= 1
    back = {name for name in names if f"{name}?" in pairs and name in pairs}
    assert len(back) <= 1  # one return, to wait where there was no container
    assert all(fates[name].endswith(("boots", "boot")) or fates[name] == "shaky" for name in back)
    assert cold != "fail" or all(step.endswith("?") for step in steps)
    ran = Counter(name[0] if name[0] in "xy" else "m" for name in names if "boot" not in fates.get(name, ""))
    assert max(ran.values(), default=0) <= 4  # two, the "once", and what a return found
    refused = [name for name in names if fates.get(name) == "refuses"]
    assert refused in ([], [names[-1]])


# --- what it costs ---


def spent(budget: RetryBudget, now: float) -> int:
    """How many extra calls there are, up to 100."""
    return next((count for count in range(100) if not budget.spend(now)), 100)


def test_there_are_three_extra_calls_however_few_were_made() -> None:
    assert spent(RetryBudget(), 0.0) == 3


def test_there_is_one_extra_call_for_ten() -> None:
    budget = RetryBudget()
    for _ in range(200):
        budget.earn(5.0)
    assert spent(budget, 5.0) == 20
    assert spent(budget, 9.0) == 0


def test_extra_calls_come_back_as_the_window_moves_on() -> None:
    budget = RetryBudget()
    assert spent(budget, 0.0) == 3
    assert spent(budget, 9.9) == 0
    assert spent(budget, 10.0) == 0  # the window before still counts in full
    assert spent(budget, 15.0) == 1  # half of it
    assert spent(budget, 40.0) == 3


def test_calls_of_long_ago_earn_nothing() -> None:
    budget = RetryBudget()
    for _ in range(200):
        budget.earn(0.0)
    assert spent(budget, 40.0) == 3


def test_a_move_away_from_where_nothing_ran_is_free_and_every_other_is_paid() -> None:
    among = routes()
    attempts = Attempts(among, among.deployments["m"], ANYONE, "wait", 0.0)
    assert all(attempts.spend(ERRORS["boots"], 0.0) for _ in range(100))
    assert [attempts.spend(ERRORS["broken"], 0.0) for _ in range(4)] == [True, True, True, False]


async def test_a_failing_model_is_not_buried_under_extra_calls() -> None:
    upstream = Scripted("a", [ERRORS["shaky"]])
    desk = Desk(deployed(upstream))
    for _ in range(5):
        assert (await desk.ask()).status == 502
    assert len(upstream.calls) == 5 + 3
    desk.now = 100.0
    await desk.ask()
    assert len(upstream.calls) == 5 + 3 + 2


def test_what_can_be_paid_is_what_is_sold() -> None:
    budget = RetryBudget()
    for now in (0.0, 0.0, 0.0, 0.0, 9.0, 15.0, 15.0, 40.0, 40.0, 40.0, 40.0):
        assert budget.affords(now) == budget.affords(now) == budget.spend(now)


async def test_nothing_is_planned_that_cannot_be_paid() -> None:
    counted: list[str] = []

    def count(text: str) -> int:
        counted.append(text)
        return 1

    desk = Desk(deployed(Scripted("a", [ERRORS["shaky"]]), count=count))
    for _ in range(10):
        assert (await desk.ask()).status == 502
    assert len(counted) == 10 + 3


async def test_ordinary_calls_earn_extra_ones() -> None:
    upstream = Scripted("a", *[HELLO] * 50, [ERRORS["shaky"]])
    desk = Desk(deployed(upstream))
    for _ in range(60):
        await desk.ask()
    assert len(upstream.calls) == 60 + 6

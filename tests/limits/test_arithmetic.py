"""Windows, calendars, means and words: what is pure."""

import asyncio
from datetime import UTC, datetime
from math import inf

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.allowances import NO_LIMITS, Budget, Limits, Period
from gateway.core.errors import GatewayError
from gateway.limits import refusals
from gateway.limits.limiter import Grant, Level, Refusal
from gateway.limits.means import FIRST, LAST, Mean, Means
from gateway.limits.memory import IDLE, MOST, SWEEP
from gateway.limits.rules import BILLION, Amount, Rate, Scope, bounds, quotas, scope
from tests.limits.house import Model, in_memory, key

PER_MINUTE = Rate("requests_per_minute", "requests", "minute", 10, 1, 60)
PER_DAY = Rate("requests_per_day", "requests", "day", 10, 300, 288)
TOKENS = Rate("tokens_per_minute", "tokens", "minute", 10, 1, 60)

steps = st.lists(
    st.tuples(
        st.floats(0, 40),  # seconds that pass
        st.integers(0, 60),  # tokens that are wanted; 0: one that runs ends
        st.integers(0, 120),  # hundredths of the wanted that were used in the end
    ),
    max_size=60,
)


@given(steps, st.floats(0, 1e6))
def test_no_60_seconds_ever_have_more_than_the_limit(
    steps: list[tuple[float, int, int]], start: float
) -> None:
    asyncio.run(_play(steps, start))


async def _play(steps: list[tuple[float, int, int]], start: float) -> None:
    home = in_memory()
    home.clock.now = start
    caller = key(Limits(requests_per_minute=5, tokens_per_minute=100, concurrent=3), Budget(tokens=500))
    admitted: list[tuple[float, list[int]]] = []
    running = []
    for wait, wanted, used in steps:
        home.clock.advance(wait)
        if not wanted and running:
            lease, entry = running.pop(0)
            lease.settle(Amount(entry[0] * used // 100))
            entry[0] = min(entry[0], entry[0] * used // 100)
        elif wanted:
            try:
                entry = [wanted]
                running.append((await home.lease(caller, wanted=Amount(wanted)), entry))
                admitted.append((home.clock.now, entry))
            except GatewayError:
                continue
            lately = [entry[0] for at, entry in admitted if at > home.clock.now - 60]
            assert len(lately) <= 5 and sum(lately) <= 100 and len(running) <= 3
            assert sum(entry[0] for _, entry in admitted) <= 500
    for lease, _ in running * 2:
        lease.settle(Amount())
    assert home.used().get(("key", "concurrent", "now"), 0) == 0
    [held] = [row.reserved for row in home.leases.rows() if row.period == "month"] or [0]
    assert held == 0


async def test_of_n_processes_that_do_not_know_of_each_other_each_gives_its_share() -> None:
    home = in_memory(share=4)
    home.books.spent["key", "one"] = Amount(20)
    for caller, admitted in (
        (key(Limits(requests_per_minute=10)), 2),
        (key(Limits(requests_per_minute=1), id="small"), 1),
        (key(Limits(), Budget(tokens=100), id="one"), 2),  # 20 of 100 are spent, and 80 are for four
    ):
        for _ in range(admitted):
            await home.lease(caller)
        await home.refusal(caller)


async def test_idle_scopes_are_forgotten() -> None:
    home = in_memory()
    limits = Limits(requests_per_minute=5, concurrent=5)
    running = await home.lease(key(limits, id="running"))
    for number in range(100):
        (await home.lease(key(limits, Budget(tokens=1000), id=f"key_{number}"))).settle(Amount(1))
    home.clock.advance(SWEEP + 1)
    await home.lease(key(limits, id="last"))
    assert len({row.id for row in home.leases.rows()}) == 102  # their budgets are still known
    home.clock.advance(IDLE)
    await home.lease(key(limits, id="last"))
    assert {row.id for row in home.leases.rows()} == {"running", "last"}
    running.settle(Amount())


async def test_of_many_who_have_budgets_those_who_came_last_are_known_and_whoever_runs() -> None:
    home = in_memory()
    budget = Budget(tokens=1000)
    running = await home.lease(key(NO_LIMITS, budget, id="running"))
    for number in range(MOST + 500):
        (await home.lease(key(NO_LIMITS, budget, id=f"key_{number}"))).settle(Amount(1))
        home.clock.advance(0.01)
    known = {row.id for row in home.leases.rows()}
    assert len(known) == MOST
    assert "running" in known and f"key_{MOST + 499}" in known and "key_0" not in known
    asked = len(home.books.asked)
    home.books.spent["key", "key_0"] = Amount(1000)
    error = await home.refusal(key(NO_LIMITS, budget, id="key_0"))
    assert (error.code, len(home.books.asked)) == ("insufficient_quota", asked + 1)
    running.settle(Amount())


async def test_limits_that_still_count_are_kept_however_many_there_are() -> None:
    home = in_memory()
    for number in range(MOST + 100):
        (await home.lease(key(Limits(requests_per_day=5), id=f"key_{number}"))).settle(Amount(1))
    home.clock.advance(IDLE)
    assert len({row.id for row in home.leases.rows()}) == MOST + 100


async def test_without_a_ledger_a_budget_is_kept_until_its_period_ends() -> None:
    home = in_memory(seeded=False)
    (await home.lease(key(NO_LIMITS, Budget(tokens=10, per="day")))).settle(Amount(10))
    home.clock.advance(2 * IDLE)
    (await home.lease(key(NO_LIMITS, Budget(tokens=10), id="other"))).settle(Amount(1))
    await home.refusal(key(NO_LIMITS, Budget(tokens=10, per="day")))
    home.clock.advance(12 * IDLE)
    (await home.lease(key(NO_LIMITS, Budget(tokens=100), id="other"))).settle(Amount(1))
    assert {row.id for row in home.leases.rows()} == {"other"}
    await home.lease(key(NO_LIMITS, Budget(tokens=10, per="day")))


async def test_where_nothing_is_bounded_nothing_is_counted() -> None:
    home = in_memory()
    assert not home.leases.scopes.applies(key(), Model())
    lease = await home.lease(key(), Model())
    lease.settle(Amount(5))
    assert home.leases.rows() == [] and lease.headers == {}


async def test_new_limits_hold_for_what_was_counted_before() -> None:
    home = in_memory()
    for _ in range(3):
        await home.lease(key(Limits(requests_per_minute=3)))
    await home.refusal(key(Limits(requests_per_minute=3)))
    await home.lease(key(Limits(requests_per_minute=4)))
    await home.refusal(key(Limits(requests_per_minute=2)))


@pytest.mark.parametrize(
    ("period", "now", "begins", "ends"),
    [
        ("day", "2026-11-21T23:59", "2026-11-21", "2026-11-22"),
        ("week", "2026-11-22T23:59", "2026-11-16", "2026-11-23"),
        ("week", "2026-11-23T00:00", "2026-11-23", "2026-11-30"),
        ("month", "2026-12-31T12:00", "2026-12-01", "2027-01-01"),
        ("month", "2028-02-29T12:00", "2028-02-01", "2028-03-01"),
    ],
)
def test_periods_follow_the_calendar(period: Period, now: str, begins: str, ends: str) -> None:
    def seconds(text: str) -> float:
        return datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp()

    assert bounds(period, seconds(now)) == (seconds(begins), seconds(ends))
    assert bounds("total", seconds(now)) == (0.0, inf)


def test_of_two_budgets_alike_the_smaller_counts() -> None:
    found = quotas((Budget(dollars=5), Budget(dollars=0.1), Budget(tokens=7)), priced=True, timed=True)
    assert [(quota.name, quota.limit) for quota in found] == [
        ("cost/month", BILLION // 10),
        ("tokens/month", 7),
    ]
    assert scope(("key", "one", "one"), NO_LIMITS, ()) is None


def test_the_mean_of_the_last_requests_is_reserved() -> None:
    mean = Mean()
    assert mean.wanted(100, 20, 2) == Amount(140)
    assert mean.wanted(100, None, 1) == Amount(100 + FIRST)
    for number in range(LAST + 1):
        mean.note(number, 10, 3 if number else 1000)
    assert mean.wanted(100, None, 2) == Amount(106, -(-sum(range(LAST + 1)) // LAST), 10)
    means = Means()
    assert means.of("small") is means.of("small")


@given(st.lists(st.tuples(st.integers(0, 10**12), st.integers(0, 10**12), st.integers(0, 10**5)), min_size=1))
def test_a_mean_is_that_of_the_last_and_rounded_up(notes: list[tuple[int, int, int]]) -> None:
    mean = Mean()
    for note in notes:
        mean.note(*note)
    last = notes[-LAST:]
    cost, gpu, answer = (-(-sum(column) // len(last)) for column in zip(*last, strict=True))
    assert mean.wanted(0, None, 1) == Amount(answer, cost, gpu)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.0, "1ms"), (0.25, "250ms"), (1, "1s"), (59.2, "1m0s"), (60, "1m0s"), (86_345, "23h59m5s")],
)
def test_spans_read_as_openai_writes_them(seconds: float, text: str) -> None:
    assert refusals.span(seconds) == text


def test_the_header_tells_of_the_rate_with_least_left() -> None:
    levels = [Level("key", PER_MINUTE, 10, 2), Level("team", PER_DAY, 10, 9), Level("key", TOKENS, 10, 30)]
    assert refusals.limits(levels, 1000.0) == {
        "x-ratelimit-limit-requests": "10",
        "x-ratelimit-remaining-requests": "1",
        "x-ratelimit-reset-requests": "24h3m20s",
        "x-ratelimit-limit-tokens": "10",
        "x-ratelimit-remaining-tokens": "0",
        "x-ratelimit-reset-tokens": "1m1s",
    }


def test_a_refusal_names_the_rule_and_the_wait() -> None:
    of = Scope("team", "lab", "lab", (TOKENS,), None, ())
    error = refusals.error(Refusal(of, TOKENS, 10, 8, 0, 5, 6.25), 0.0)
    assert error.message == (
        "Rate limit reached for team lab on tokens per minute: limit 10, used 8, requested 5. "
        "Please try again in 7s."
    )
    assert error.headers["retry-after"] == "7" and error.headers["retry-after-ms"] == "6250"
    assert error.headers["x-ratelimit-remaining-tokens"] == "2"


def test_not_all_is_free_before_there_is_room_for_one() -> None:
    of = Scope("key", "one", "one", (PER_DAY,), None, ())
    wait = float((PER_DAY.steps + 1) * PER_DAY.step)
    error = refusals.error(Refusal(of, PER_DAY, 1, 1, 0, 1, wait), 1_795_300_123.0)
    assert error.headers["x-ratelimit-reset-requests"] == refusals.span(wait) == "24h5m0s"


async def test_settling_never_raises(caplog: pytest.LogCaptureFixture) -> None:
    class Broken:
        def settle(self, grant: Grant, spent: Amount, scopes: tuple[Scope, ...]) -> None:
            raise RuntimeError("broken")

    home = in_memory()
    lease = await home.lease(key(Limits(concurrent=1)))
    home.leases._limiter = Broken()  # type: ignore[assignment]
    lease.settle(Amount())
    assert "could not be settled" in caplog.text

"""The laws of limits and budgets, of both limiters."""

import asyncio
import random
from contextlib import suppress

import pytest

from gateway.allowances import Allowance, Budget, Limits
from gateway.core.errors import Forbidden, GatewayError, InsufficientQuota, RateLimited, TokensLimited
from gateway.limits import seeds
from gateway.limits.limiter import Row
from gateway.limits.rules import BILLION, Amount
from tests.limits.house import House, Model, key

SEVERAL = (Budget(dollars=1.0), Budget(gpu_seconds=1.0), Budget(tokens=100))
MINUTE = 61  # seconds after which nothing counts: a minute, and the second that was only partly in it


def seconds(error: GatewayError) -> float:
    return int(error.headers["retry-after-ms"]) / 1000


async def test_no_more_than_the_limit_in_a_minute_and_the_promised_wait_is_enough(home: House) -> None:
    caller = key(Limits(requests_per_minute=3))
    for _ in range(3):
        (await home.lease(caller)).settle(Amount(5))
        home.clock.advance(7)
    error = await home.refusal(caller)
    assert type(error) is RateLimited
    assert (error.status, error.type, error.code) == (429, "requests", "rate_limit_exceeded")
    assert 38.5 < seconds(error) <= 40 and error.headers["retry-after"] in ("39", "40")
    home.clock.advance(seconds(error) + 0.002)  # as coarse as Redis' clock
    await home.lease(caller)
    await home.refusal(caller)


async def test_tokens_are_reserved_and_then_replaced_by_what_was_used(home: House) -> None:
    caller = key(Limits(tokens_per_minute=100))
    lease = await home.lease(caller, wanted=Amount(90))
    error = await home.refusal(caller, wanted=Amount(11))
    assert type(error) is TokensLimited and error.type == "tokens"
    assert "limit 100, used 90, requested 11" in error.message
    lease.settle(Amount(40))
    assert home.used()["key", "tokens", "minute"] in (40, 90)  # Redis says what it said last
    await home.lease(caller, wanted=Amount(60))
    await home.refusal(caller, wanted=Amount(1))
    assert home.leases.refused["key", "tokens_per_minute"] == 2


async def test_what_was_used_beyond_the_reserved_counts_when_it_is_known(home: House) -> None:
    caller = key(Limits(tokens_per_minute=100))
    lease = await home.lease(caller, wanted=Amount(10))
    home.clock.advance(50)
    lease.settle(Amount(80))
    home.clock.advance(MINUTE - 50)  # the 10 are forgotten, the 70 above them are not
    await home.refusal(caller, wanted=Amount(31))
    await home.lease(caller, wanted=Amount(30))


async def test_a_day_is_any_24_hours(home: House) -> None:
    caller = key(Limits(requests_per_day=2))
    await home.lease(caller)
    home.clock.advance(12 * 3600)
    await home.lease(caller)
    assert 12 * 3600 - 1 < seconds(await home.refusal(caller)) <= 12 * 3600 + 300
    home.clock.advance(12 * 3600 + 300)
    await home.lease(caller)
    await home.refusal(caller)


async def test_places_are_taken_and_given_back_once(home: House) -> None:
    caller = key(Limits(concurrent=2))
    first, second = await home.lease(caller), await home.lease(caller)
    error = await home.refusal(caller)
    assert "at the same time: limit 2, running 2" in error.message and error.headers["retry-after"] == "1"
    for _ in range(3):
        first.settle(Amount())
    third = await home.lease(caller)
    await home.refusal(caller)
    second.settle(Amount())
    third.settle(Amount())
    assert [await home.lease(caller) for _ in range(2)]
    await home.refusal(caller)


async def test_all_scopes_or_none(home: House) -> None:
    one = key(Limits(requests_per_minute=10), team="lab", id="one")
    other = key(Limits(requests_per_minute=10), team="lab", id="other")
    model = Model(limits=Limits(concurrent=1))
    held = await home.lease(one, model)
    assert "model small" in (await home.refusal(one, model)).message
    held.settle(Amount())
    (await home.lease(other, model)).settle(Amount())
    assert "team lab" in (await home.refusal(one, model)).message
    alone = key(Limits(requests_per_minute=10), id="one")
    for _ in range(9):  # the two refusals took nothing of the key's ten
        await home.lease(alone)
    assert "key ci" in (await home.refusal(alone)).message


async def test_a_request_larger_than_the_limit_hears_that_waiting_is_no_help(home: House) -> None:
    error = await home.refusal(key(Limits(tokens_per_minute=100)), wanted=Amount(101))
    assert "requested 101. Waiting will not help" in error.message
    assert error.headers["x-should-retry"] == "false" and "retry-after" not in error.headers


async def test_a_budget_counts_what_is_spent_and_what_is_reserved(home: House) -> None:
    caller = key(Limits(), Budget(dollars=1.0, per="day"))
    half = Amount(10, BILLION // 2)
    first = await home.lease(caller, wanted=half)
    second = await home.lease(caller, wanted=half)
    error = await home.refusal(caller, wanted=half)
    assert type(error) is InsufficientQuota
    assert (error.status, error.type, error.code) == (429, "insufficient_quota", "insufficient_quota")
    assert error.headers == {"retry-after": "1", "retry-after-ms": "1000"}  # they may take less
    assert "key ci" in error.message and "limit $1.00 a day" in error.message
    assert "reserved by running requests $1.00" in error.message
    assert error.message.endswith("such a request usually takes $0.50. Please try again in 1s.")
    first.settle(Amount(10, BILLION // 4))
    second.settle(Amount())  # its client left: nothing was spent
    third = await home.lease(caller, wanted=half)
    third.settle(Amount(10, BILLION))  # more than anybody thought
    error = await home.refusal(caller, wanted=Amount(1))
    assert "is used up: limit $1.00 a day, spent $1.25. It begins anew" in error.message
    assert error.message.endswith("on 2026-11-15 00:00 UTC.") and error.headers == {"x-should-retry": "false"}
    home.clock.advance(12 * 3600)
    await home.lease(caller, wanted=half)


async def test_what_came_before_midnight_belongs_to_the_day_before(home: House) -> None:
    caller = key(Limits(), Budget(tokens=100, per="day"))
    home.clock.advance(12 * 3600 - 1)
    lease = await home.lease(caller, wanted=Amount(90))
    home.clock.advance(2)
    await home.refusal(caller, wanted=Amount(20))  # it still runs
    lease.settle(Amount(90))
    await home.lease(caller, wanted=Amount(100))


async def test_budgets_of_total_weeks_and_gpu_seconds(home: House) -> None:
    caller = key(Limits(), Budget(gpu_seconds=1.5, per="total"), Budget(tokens=1000, per="week"))
    (await home.lease(caller, wanted=Amount(10, 0, BILLION))).settle(Amount(10, 0, BILLION))
    error = await home.refusal(caller, wanted=Amount(10, 0, BILLION))
    assert "is too small for this request: limit 1.50 GPU seconds in total" in error.message
    assert error.message.endswith(
        "spent 1.00 GPU seconds, such a request usually takes 1.00 GPU seconds. It does not begin anew."
    )
    home.books.spent["key", "key_1"] = Amount(0, 0, BILLION)
    home.clock.advance(400 * 86400)
    await home.refusal(caller, wanted=Amount(10, 0, BILLION))
    await home.lease(caller, wanted=Amount(1000, 0, BILLION // 4))
    home.clock.advance(86400)
    assert "1000 tokens a week" in (await home.refusal(caller)).message


async def test_a_model_without_price_or_clock_is_not_blocked_by_dollars_or_gpu_seconds(home: House) -> None:
    caller = key(Limits(), Budget(dollars=1.0), Budget(gpu_seconds=1.0))
    (await home.lease(caller, wanted=Amount(1, BILLION, BILLION))).settle(Amount(1, BILLION, BILLION))
    assert isinstance(await home.refusal(caller), InsufficientQuota)
    free = Model("free", priced=False, timed=False)
    assert not home.leases.scopes.applies(caller, free)
    (await home.lease(caller, free)).settle(Amount(5))
    assert "GPU seconds" in (await home.refusal(caller, Model("timed", priced=False))).message
    assert "$1.00" in (await home.refusal(caller, Model("priced", timed=False))).message


@pytest.mark.parametrize("bound", [Limits(tokens_per_minute=200), Budget(tokens=200, per="total")])
async def test_an_estimate_of_tokens_takes_what_is_left_and_refuses_nobody(
    home: House, bound: Limits | Budget
) -> None:
    caller = key(bound) if isinstance(bound, Limits) else key(Limits(), bound)
    first = await home.lease(caller, wanted=Amount(276), least=21)
    error = await home.refusal(caller, wanted=Amount(276), least=21)
    assert "requested 21" in error.message and "retry-after" in error.headers
    first.settle(Amount(170))
    second = await home.lease(caller, wanted=Amount(276), least=21)
    await home.refusal(caller, wanted=Amount(2))
    second.settle(Amount(25))
    assert type(await home.refusal(caller, wanted=Amount(276))) in (TokensLimited, InsufficientQuota)
    error = await home.refusal(caller, wanted=Amount(276), least=21)
    assert ("too small for this request" in error.message) is isinstance(bound, Budget)
    assert "requested 21" in error.message
    assert ("x-should-retry" in error.headers) is isinstance(bound, Budget)


async def test_an_estimate_is_cut_to_the_least_that_any_of_them_has_left(home: House) -> None:
    caller = key(Limits(tokens_per_minute=200), Budget(tokens=90, per="day"), Budget(tokens=120))
    model = Model(limits=Limits(tokens_per_minute=60))
    await home.lease(caller, model, Amount(276), least=21)
    assert home.used()["key", "tokens", "day"] == 60
    assert "model small" in (await home.refusal(caller, model, Amount(276), least=1)).message
    free = Model("free")
    await home.lease(caller, free, Amount(276), least=30)
    await home.refusal(caller, free, Amount(276), least=1)


async def test_nothing_of_an_estimate_is_taken_where_another_rule_refuses(home: House) -> None:
    caller = key(Limits(tokens_per_minute=100, concurrent=1))
    first = await home.lease(caller, wanted=Amount(50))
    assert "at the same time" in (await home.refusal(caller, wanted=Amount(300), least=1)).message
    first.settle(Amount(50))
    await home.lease(caller, wanted=Amount(50))


async def test_a_key_whose_team_has_left_the_configuration_is_refused(home: House) -> None:
    caller = key(team="gone")
    error = await home.refusal(caller)
    assert (type(error), error.status, error.code) == (Forbidden, 403, "team_unknown")
    assert "team gone" in error.message
    (await home.lease(key())).settle(Amount())
    home.leases.scopes.teams = {}
    (await home.lease(caller)).settle(Amount())


async def test_what_bounds_a_key_its_team_and_a_model_counts_as_it_is_now(home: House) -> None:
    one, free, lab = Limits(concurrent=1), Model(), key(team="lab")
    for caller, model, team in [
        (key(one, team="lab"), free, Allowance()),
        (lab, Model(limits=one), Allowance()),
        (lab, free, Allowance(limits=one)),
    ]:
        home.leases.scopes.teams = {"lab": Allowance()}
        assert not home.leases.scopes.applies(lab, free)
        home.leases.scopes.teams = {"lab": team}
        lease = await home.lease(caller, model)
        assert "at the same time" in (await home.refusal(caller, model)).message
        lease.settle(Amount())


async def test_budgets_begin_with_what_the_ledger_says(home: House) -> None:
    home.books.spent["key", "key_1"] = Amount(0, 9 * BILLION)
    caller = key(Limits(), Budget(dollars=10.0, per="month"))
    leases = await asyncio.gather(
        *(home.lease(caller, wanted=Amount(1, BILLION // 10)) for _ in range(20)), return_exceptions=True
    )
    assert sum(isinstance(lease, GatewayError) for lease in leases) == 10
    assert home.books.asked == [("key", "key_1", 1_793_491_200.0)]  # once, from the first of November


async def test_whoever_waits_for_the_ledger_gets_its_answer_though_another_has_left(home: House) -> None:
    home.books.spent["key", "key_1"] = Amount(95)
    home.books.slow = asyncio.Event()
    caller = key(Limits(), Budget(tokens=100))
    async with asyncio.TaskGroup() as group:
        first = group.create_task(home.lease(caller, wanted=Amount(5)))
        await home.books.called.wait()
        second = group.create_task(home.lease(caller, wanted=Amount(5)))
        first.cancel()
        home.books.slow.set()
    assert first.cancelled() and second.result()
    await home.refusal(caller, wanted=Amount(1))


async def test_the_ledger_is_asked_once_for_all_that_one_answer_says(home: House) -> None:
    home.books.spent["key", "key_1"] = Amount(10, 20, 30)
    caller = key(Limits(), *SEVERAL, Budget(tokens=50, per="total"), team="paid")
    await home.lease(caller)
    first = 1_793_491_200.0  # of November
    asked = [("key", "key_1", 0.0), ("key", "key_1", first), ("team", "paid", first)]
    assert sorted(home.books.asked) == asked
    used = home.used()
    assert (used["key", "tokens", "total"], used["key", "gpu", "month"]) == (20, 30)
    assert (used["key", "tokens", "month"], used["key", "cost", "month"]) == (20, 20)


async def test_a_ledger_that_hangs_is_waited_for_once(home: House, monkeypatch: pytest.MonkeyPatch) -> None:
    patience = 0.5
    monkeypatch.setattr(seeds, "PATIENCE", patience)
    home.books.slow = asyncio.Event()
    budgets = [Budget(tokens=100, per=per) for per in ("day", "week", "month", "total")]
    caller = key(Limits(), *budgets, team="paid")  # type: ignore[arg-type]
    started = asyncio.get_running_loop().time()
    await asyncio.gather(*(home.lease(caller, wanted=Amount(1)) for _ in range(3)))
    assert len(home.books.asked) == 5  # side by side, each once
    assert asyncio.get_running_loop().time() - started < 3 * patience
    home.books.slow.set()
    home.books.spent["key", "key_1"] = Amount(100)
    await home.leases.ask_again()
    assert len(home.books.asked) == 10
    assert isinstance(await home.refusal(caller), InsufficientQuota)


async def test_what_is_spent_without_a_request_counts_too(home: House) -> None:
    caller = key(Limits(), Budget(gpu_seconds=10.0), team="many")
    (await home.lease(caller, wanted=Amount(1, 0, BILLION))).settle(Amount(1, 0, BILLION))
    (await home.lease(caller, Model("free", timed=False))).settle(Amount(1))
    home.leases.charge(
        "idle_1", [("key", "key_1"), ("team", "many"), ("key", "nobody")], Amount(0, 0, 8 * BILLION)
    )
    await home.lease(caller, wanted=Amount(1, 0, BILLION))
    assert "spent 9.00 GPU seconds" in (await home.refusal(caller, wanted=Amount(1, 0, BILLION))).message


async def test_a_ledger_that_fails_refuses_nobody_and_is_asked_again(home: House) -> None:
    home.books.failing = True
    home.books.spent["key", "key_1"] = Amount(95)
    caller = key(Limits(), Budget(tokens=100))
    (await home.lease(caller, wanted=Amount(50))).settle(Amount(50))
    home.books.failing = False
    await home.leases.ask_again()
    assert "spent 95 tokens" in (await home.refusal(caller)).message


async def test_a_fallback_model_takes_the_place_of_the_first(home: House) -> None:
    caller = key(Limits(concurrent=1, tokens_per_minute=100))
    small = Model("small", limits=Limits(concurrent=1))
    large = Model("large", limits=Limits(concurrent=1, requests_per_minute=2))
    lease = await home.lease(caller, small, Amount(40))
    await lease.move(large, Amount(60), Amount())
    other = key(id="other")
    second = await home.lease(other, small)
    assert "model large" in (await home.refusal(other, large)).message
    lease.settle(Amount(30))
    await second.move(large, Amount(1), Amount())
    second.settle(Amount())
    await home.lease(caller, small, Amount(70))
    assert "limit 2" in (await home.refusal(other, large)).message


async def test_where_the_fallback_is_full_the_lease_is_what_it_was(home: House) -> None:
    small = Model("small", limits=Limits(concurrent=1))
    large = Model("large", limits=Limits(concurrent=1))
    await home.lease(key(), large)
    lease = await home.lease(key(), small)
    with pytest.raises(RateLimited):
        await lease.move(large, Amount(1), Amount())
    await home.refusal(key(), small)
    lease.settle(Amount())
    await home.lease(key(), small)


HALF = Amount(60, BILLION // 2, BILLION // 2)


@pytest.mark.parametrize("team", [None, "paid"])
@pytest.mark.parametrize(("priced", "timed"), [(False, True), (True, False), (False, False)])
async def test_what_only_the_fallback_costs_is_reserved_and_counted_too(
    home: House, team: str | None, priced: bool, timed: bool
) -> None:
    caller = key(Limits(requests_per_minute=3, concurrent=2), *SEVERAL, team=team)
    first, dear = Model("first", priced=priced, timed=timed), Model("dear")
    lease = await home.lease(caller, first, Amount(60, HALF.cost * priced, HALF.gpu * timed))
    await lease.move(dear, HALF, Amount())
    assert (await home.refusal(caller, dear, HALF._replace(tokens=41))).code == "insufficient_quota"
    error = await home.refusal(caller, dear, Amount(40, BILLION, BILLION))  # the tokens are not held twice
    assert error.code == "insufficient_quota" and "reserved by running requests" in error.message
    second = await home.lease(caller, first, Amount(39))  # nor is the place
    assert type(await home.refusal(caller, first, Amount())) is RateLimited
    lease.settle(Amount(1, BILLION, BILLION))
    with pytest.raises(InsufficientQuota, match=r"(key ci|team paid) .* spent"):
        await second.move(dear, Amount(1), Amount())
    second.settle(Amount(1))
    (await home.lease(caller, Model("free", priced=False, timed=False))).settle(Amount())
    assert isinstance(await home.refusal(caller, Model("free", priced=False, timed=False)), RateLimited)


async def test_a_lease_that_held_nothing_at_first_moves_like_any_other(home: House) -> None:
    caller = key(Limits(), Budget(dollars=1.0))
    lease = await home.lease(caller, Model("free", priced=False))
    await lease.move(Model("dear"), HALF, Amount())
    assert isinstance(await home.refusal(caller, Model("dear"), Amount(1, BILLION)), InsufficientQuota)
    lease.settle(Amount(1, BILLION))
    assert "spent $1.00" in (await home.refusal(caller)).message


async def test_each_model_is_charged_with_what_ran_on_it(home: House) -> None:
    models = [Model(name, budgets=(Budget(gpu_seconds=10.0),)) for name in "abc"]
    caller = key(Limits(), Budget(gpu_seconds=10.0))
    lease = await home.lease(caller, models[0], Amount())
    for model, spent in zip((models[1], models[2], models[0]), (1, 3, 6), strict=True):
        await lease.move(model, Amount(), Amount(0, 0, spent * BILLION))
    lease.settle(Amount(0, 0, 10 * BILLION))
    for model, spent in zip(models, (1 + 4, 2, 3), strict=True):
        error = await home.refusal(key(id="other"), model, Amount(0, 0, 10 * BILLION))
        assert f"spent {spent}.00 GPU seconds" in error.message
    assert "spent 10.00 GPU seconds" in (await home.refusal(caller)).message


async def test_200_at_once_on_a_limit_of_100(home: House) -> None:
    callers = [key(team="many", id=f"key_{number % 7}") for number in range(200)]
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(_try(home, caller)) for caller in callers]
    assert sum(task.result() for task in tasks) == 100


async def _try(home: House, caller: object) -> bool:
    with suppress(GatewayError):
        await home.lease(caller)  # type: ignore[arg-type]
        return True
    return False


async def test_headers_tell_of_the_tightest(home: House) -> None:
    caller = key(Limits(requests_per_minute=10, tokens_per_minute=1000), team="lab")
    headers = dict((await home.lease(caller, wanted=Amount(300))).headers)
    resets = headers.pop("x-ratelimit-reset-requests"), headers.pop("x-ratelimit-reset-tokens")
    assert set(resets) <= {"1m0s", "1m1s"}
    assert headers == {
        "x-ratelimit-limit-requests": "2",
        "x-ratelimit-remaining-requests": "1",
        "x-ratelimit-limit-tokens": "1000",
        "x-ratelimit-remaining-tokens": "700",
    }
    assert (await home.lease(key(), Model("free"))).headers == {}


async def test_rows_tell_how_each_rule_stands(home: House) -> None:
    caller = key(Limits(requests_per_minute=5, concurrent=3), Budget(dollars=10.0))
    await home.lease(caller, wanted=Amount(1, 2 * BILLION))
    await home.lease(caller, wanted=Amount(1, 6 * BILLION))
    assert sorted(home.leases.rows()) == [
        Row("key", "key_1", "ci", "concurrent", "now", 2, 0, 3),
        Row("key", "key_1", "ci", "cost", "month", 0, 8 * BILLION, 10 * BILLION),
        Row("key", "key_1", "ci", "requests", "minute", 2, 0, 5),
    ]
    cost = Row("key", "key_1", "ci", "cost", "month", 0, 8 * BILLION, 10 * BILLION)
    assert home.leases.budgets() == [cost]
    assert home.leases.alerts(lambda scope: scope.id == "key_1") == (1, [cost])
    (await home.lease(caller, wanted=Amount(1, 1))).settle(Amount())
    assert home.leases.alerts(lambda scope: scope.id == "key_2") == (1, [])


@pytest.mark.parametrize("seed", range(3))
async def test_whatever_happens_no_minute_has_more_than_the_limit(home: House, seed: int) -> None:
    chance = random.Random(seed)
    caller = key(Limits(requests_per_minute=8, tokens_per_minute=300, concurrent=4), Budget(tokens=2000))
    admitted: list[tuple[float, list[int]]] = []
    running = []
    for _ in range(250):
        home.clock.advance(chance.choice((0, 0, 0.3, 1, 5, 20)))
        if running and chance.random() < 0.5:
            lease, entry = running.pop(chance.randrange(len(running)))
            entry[0] = chance.randint(0, entry[0])
            lease.settle(Amount(entry[0]))
            continue
        entry = [chance.randint(1, 120)]
        with suppress(GatewayError):
            running.append((await home.lease(caller, wanted=Amount(entry[0])), entry))
            admitted.append((home.clock.now, entry))
        assert len(running) <= 4
        lately = [entry[0] for at, entry in admitted if at > home.clock.now - 60]
        assert len(lately) <= 8 and sum(lately) <= 300
        assert sum(entry[0] for _, entry in admitted) <= 2000
    assert len(admitted) > 20

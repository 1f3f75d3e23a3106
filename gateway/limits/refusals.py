"""How a refusal reads: an error that names the rule and when to try again, and OpenAI's headers of limits.

Rule: pure. A client that waits is told for how long; one for which waiting is no help is told so, and not to
try again. Knows nothing of how things are counted.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from functools import lru_cache
from math import ceil, inf

from gateway.core.errors import GatewayError, InsufficientQuota, RateLimited, TokensLimited
from gateway.limits.limiter import Level, Refusal
from gateway.limits.rules import BILLION, Places, Quota, Rate, Scope

_RATES = {
    "requests_per_minute": "requests per minute",
    "tokens_per_minute": "tokens per minute",
    "requests_per_day": "requests per day",
}
_HEADERS = {
    measure: tuple(f"x-ratelimit-{what}-{measure}" for what in ("limit", "remaining", "reset"))
    for measure in ("requests", "tokens")
}
_PERIODS = {"day": " a day", "week": " a week", "month": " a month", "total": " in total"}


def error(refusal: Refusal, now: float) -> GatewayError:
    """The 429 of a refusal; ``now`` in seconds since 1970."""
    match refusal.rule:
        case Quota():
            return _spent(refusal, refusal.rule, now)
        case Places():
            return _crowded(refusal)
        case Rate():
            return _limited(refusal, refusal.rule)


def _crowded(refusal: Refusal) -> GatewayError:
    message = (
        f"Rate limit reached for {_whose(refusal.scope)} on requests at the same time: "
        f"limit {refusal.limit}, running {refusal.used}. Please try again in {span(refusal.wait)}."
    )
    return RateLimited(message, headers=_later(refusal))


def _limited(refusal: Refusal, rate: Rate) -> GatewayError:
    kind = RateLimited if rate.measure == "requests" else TokensLimited
    what = f"for {_whose(refusal.scope)} on {_RATES[rate.name]}: limit {refusal.limit}"
    level = Level(refusal.scope.kind, rate, refusal.limit, refusal.used)
    headers = limits([level], 0.0)  # the longest that it can take, so never less than the wait
    if refusal.wait == inf:
        message = (
            f"Request too large {what}, requested {refusal.wanted}. Waiting will not help: "
            "shorten the messages or lower max_tokens."
        )
        return kind(message, headers={**headers, "x-should-retry": "false"})
    message = (
        f"Rate limit reached {what}, used {refusal.used}, requested {refusal.wanted}. "
        f"Please try again in {span(refusal.wait)}."
    )
    return kind(message, headers={**headers, **_later(refusal)})


def _spent(refusal: Refusal, quota: Quota, now: float) -> GatewayError:
    """What is left if nothing runs decides whether waiting for running requests helps."""
    limit, used = _shown(quota, refusal.limit), _shown(quota, refusal.used)
    shown = f"limit {limit}{_PERIODS[quota.period]}, spent {used}"
    if refusal.held:
        shown += f", reserved by running requests {_shown(quota, refusal.held)}"
    left, whose = refusal.limit - refusal.used, _whose(refusal.scope)
    if left > 0 and refusal.wanted:
        of = "requested" if quota.measure == "tokens" else "such a request usually takes"
        shown += f", {of} {_shown(quota, refusal.wanted)}"
    if max(1, refusal.wanted) <= left:
        message = f"The budget of {whose} is reserved: {shown}. Please try again in {span(refusal.wait)}."
        return InsufficientQuota(message, headers=_later(refusal))
    if refusal.wait == inf:
        end = "It does not begin anew."
    else:
        begins = datetime.fromtimestamp(now + refusal.wait, UTC)
        end = f"It begins anew on {begins:%Y-%m-%d %H:%M} UTC."
    state = "used up" if left <= 0 else "too small for this request"
    message = f"The budget of {whose} is {state}: {shown}. {end}"
    return InsufficientQuota(message, headers={"x-should-retry": "false"})


def _shown(quota: Quota, amount: int) -> str:
    if quota.measure == "tokens":
        return f"{amount} tokens"
    whole, rest = divmod(amount, BILLION)
    digits = f"{rest:09d}".rstrip("0").ljust(2, "0")
    return f"${whole}.{digits}" if quota.measure == "cost" else f"{whole}.{digits} GPU seconds"


def _whose(scope: Scope) -> str:
    return f"{scope.kind} {scope.name}"


def _later(refusal: Refusal) -> dict[str, str]:
    milliseconds = max(1, ceil(refusal.wait * 1000))
    return {"retry-after": str(-(-milliseconds // 1000)), "retry-after-ms": str(milliseconds)}


def limits(levels: Iterable[Level], now: float) -> Mapping[str, str]:
    """OpenAI's ``x-ratelimit-*`` of the tightest rate of requests and the tightest of tokens.

    Reset is when all of it is free again if nothing more comes; ``now`` in seconds of any clock.
    """
    tightest: dict[str, Level] = {}
    for level in levels:
        other = tightest.get(level.rate.measure)
        if other is None or level.limit - level.used < other.limit - other.used:
            tightest[level.rate.measure] = level
    headers = {}
    for measure, level in tightest.items():
        limit, remaining, reset = _HEADERS[measure]
        headers[limit] = str(level.limit)
        headers[remaining] = str(max(0, level.limit - level.used))
        headers[reset] = span((level.rate.steps + 1) * level.rate.step - now % level.rate.step)
    return headers


def span(seconds: float) -> str:
    """As OpenAI writes it: ``850ms``, ``6s``, ``1m0s``, ``23h59m5s``."""
    if seconds < 1:
        return f"{max(1, ceil(seconds * 1000))}ms"
    return _whole(ceil(seconds))


@lru_cache(1024)
def _whole(seconds: int) -> str:
    minutes, rest = divmod(seconds, 60)
    hours, minutes = divmod(minutes, 60)
    text = f"{rest}s"
    if minutes or hours:
        text = f"{minutes}m{text}"
    return f"{hours}h{text}" if hours else text

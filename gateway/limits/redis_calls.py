"""The calls of `gateway/limits/redis_limits.lua` as bytes, and what its answers mean.

Rule: pure. All keys have one hash tag, so that they lie together in a cluster. Amounts travel as text. What
does not change is encoded once, since a general client takes longer to encode a call than Redis to run it.
Knows nothing of connections.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from math import inf
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import orjson

from gateway.limits.limiter import Claim, Grant, Refusal, Row, Standing, row
from gateway.limits.rules import NOTHING, Amount, Quota, Rule, Scope, bounds

SCRIPT = Path(__file__).with_name("redis_limits.lua").read_text(encoding="utf-8")

Reply: TypeAlias = list[int]

PREFIX = "{modal-gateway}:limits:"
ALIVE = 5.0  # seconds without a sign after which a gateway does not count as live
NOBODY = Claim("", (), NOTHING, 0.0)
COMPILED = 8192  # scopes whose keys and rules are kept ready


def _bulk(*texts: str) -> bytes:
    """As Redis' protocol writes strings."""
    parts = [text.encode() for text in texts]
    return b"".join([b"$%d\r\n%b\r\n" % (len(part), part) for part in parts])


EVALSHA = _bulk("EVALSHA", hashlib.sha1(SCRIPT.encode(), usedforsecurity=False).hexdigest())
FIXED = _bulk(PREFIX + "clock", PREFIX + "gateways")


class Calls:
    """``name`` is this gateway's, ``lives`` the seconds of a lease."""

    def __init__(self, name: str, lives: float) -> None:
        self._name = name
        self._lives = _milliseconds(lives)
        self._scopes: dict[Scope, _Compiled] = {}

    def take(self, claim: Claim) -> bytes:
        return self._call(("take", claim.id, self._lives, "0"), claim, claim.amount, flag=claim.lenient)

    def settle(self, grant: Grant, spent: Amount, scopes: tuple[Scope, ...], age: float) -> bytes:
        """``age``: seconds since it was granted."""
        claim = grant.claim._replace(scopes=scopes)
        head = ("settle", claim.id, self._lives, _milliseconds(age))
        return self._call(head, claim, spent, flag=not grant.shared)

    def renew(self, grant: Grant, scopes: tuple[Scope, ...], age: float) -> bytes:
        claim = grant.claim._replace(scopes=scopes)
        head = ("renew", claim.id, self._lives, _milliseconds(age))
        return self._call(head, claim, claim.amount)

    def seed(self, scope: Scope, quota: Quota, since: float, amount: int) -> bytes:
        claim = Claim(quota.name, (scope,), Amount(amount), since)
        return self._call(("seed", quota.name, self._lives, "0"), claim, claim.amount)

    def beat(self, age: float = 0.0) -> bytes:
        """``age``: seconds for which nobody here could call, if it is the first one since."""
        return self._call(("beat", self._name, _milliseconds(ALIVE), _milliseconds(age)), NOBODY, NOTHING)

    def leave(self) -> bytes:
        return self._call(("leave", self._name, "0", "0"), NOBODY, NOTHING)

    def _call(self, head: tuple[str, ...], claim: Claim, amount: Amount, *, flag: bool = False) -> bytes:
        compiled = [self._compiled(scope, claim.time) for scope in claim.scopes]
        done = f"{PREFIX}done:{claim.id}:{'+'.join([scope.kind for scope in claim.scopes])}"
        keys = 3 + sum([each.size for each in compiled])
        amounts = map(str, amount)
        rest = _bulk(*head, _milliseconds(claim.time), *amounts, "1" if flag else "0")
        # what is called and the number of keys, the keys, four words of the head, time, amounts, flag, rules
        count = 3 + keys + 9 + len(compiled)
        parts = [b"*%d\r\n" % count, EVALSHA, _bulk(str(keys)), FIXED, _bulk(done)]
        parts += [each.keys for each in compiled]
        parts.append(rest)
        parts += [each.rules for each in compiled]
        return b"".join(parts)

    def since(self, scope: Scope, time: float) -> tuple[float, ...]:
        """When the periods of its budgets began, seconds since 1970."""
        return self._compiled(scope, time).since

    def _compiled(self, scope: Scope, time: float) -> _Compiled:
        known = self._scopes.get(scope)
        if known is None or time >= known.until:
            if len(self._scopes) >= COMPILED:
                self._scopes.clear()
            periods = [bounds(quota.period, time) for quota in scope.quotas]
            until = min((end for _, end in periods), default=inf)
            since = tuple(begin for begin, _ in periods)
            own = _keys(scope)
            rules = _bulk(_rules(scope, periods))
            known = self._scopes[scope] = _Compiled(until, since, len(own), _bulk(*own), rules)
        return known


class _Compiled(NamedTuple):
    """Keys and rules of a scope as the script takes them, until a period of its budgets ends."""

    until: float
    since: tuple[float, ...]
    size: int  # how many keys
    keys: bytes
    rules: bytes


def _keys(scope: Scope) -> list[str]:
    own = f"{PREFIX}{scope.kind}:{scope.id}:"
    return [own + name for name in ("leases", "held", "book", *(rate.name for rate in scope.rates))]


def _rules(scope: Scope, periods: list[tuple[float, float]]) -> str:
    rates = [
        {
            "tokens": rate.measure == "tokens",
            "limit": rate.limit,
            "step": rate.step * 1000,
            "steps": rate.steps,
        }
        for rate in scope.rates
    ]
    quotas: list[dict[str, Any]] = []
    for quota, (since, until) in zip(scope.quotas, periods, strict=True):
        of = {"name": quota.name, "index": quota.index + 1, "limit": quota.limit, "since": int(since * 1000)}
        quotas.append(of if until == inf else {**of, "until": int(until * 1000)})
    places = scope.places.limit if scope.places else False
    rules = {"rates": rates, "places": places, "quotas": quotas, "further": scope.further}
    return orjson.dumps(rules).decode()


def refusal(claim: Claim, reply: Reply) -> Refusal:
    """What a refused ``take`` says."""
    _, _, _, at, number, used, held, wait = reply
    scope = claim.scopes[at - 1]
    places: list[Rule | None] = [*scope.rates, scope.places, *scope.quotas]
    rule = places[number - 1]
    assert rule is not None
    wanted = 1
    if isinstance(rule, Quota):
        wanted = claim.amount[rule.index]
    elif rule.measure == "tokens":
        wanted = claim.amount.tokens
    return Refusal(scope, rule, rule.limit, used, held, wanted, inf if wait < 0 else wait / 1000)


def standing(claim: Claim, reply: Reply) -> list[tuple[Scope, Sequence[int]]]:
    """What a granted ``take`` says: used of each rate, running, then spent and held of each budget."""
    found: list[tuple[Scope, Sequence[int]]] = []
    at = 3
    for scope in claim.scopes:
        end = at + len(scope.rates) + (scope.places is not None) + 2 * len(scope.quotas)
        found.append((scope, reply[at:end]))
        at = end
    return found


def budgets(scope: Scope, figures: Sequence[int]) -> list[tuple[int, int]]:
    """Spent and reserved of each budget, of what ``standing`` has found."""
    first = len(figures) - 2 * len(scope.quotas)
    return list(zip(figures[first::2], figures[first + 1 :: 2], strict=True))


def rows(scope: Scope, figures: Sequence[int]) -> list[Row]:
    """The same as rows."""
    found, at = [], 0
    whose = (scope.kind, scope.id, scope.name)
    for rate in scope.rates:
        found.append(Row(*whose, rate.measure, rate.period, figures[at], 0, rate.limit))
        at += 1
    if scope.places is not None:
        found.append(Row(*whose, "concurrent", "now", figures[at], 0, scope.places.limit))
    return found + [row(budget) for budget in standings(scope, figures)]


def standings(scope: Scope, figures: Sequence[int]) -> Iterator[Standing]:
    """Its budgets alone."""
    for quota, (used, held) in zip(scope.quotas, budgets(scope, figures), strict=True):
        yield scope, quota, used, held, quota.limit


def _milliseconds(seconds: float) -> str:
    return str(int(seconds * 1000))

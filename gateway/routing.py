"""Which model a name means, which upstream gets the call, and what may be tried after a failure.

Rule: nothing is tried again once a visible event was sent; another upstream of the same model goes before
another model; extra calls stay within a budget, so that a failing backend is not buried. Lives above
``plan``, because another model means another template. Knows nothing about HTTP.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from gateway.admission import Admitted
from gateway.auth import ANYONE, Caller
from gateway.core.errors import (
    BadRequest,
    GatewayError,
    ModelNotFound,
    NoContainer,
)
from gateway.core.spec import ModelSpec


class RetryBudget:
    """Extra calls of one model: one for ten ordinary ones in any ten seconds, and at least three."""

    SHARE, FLOOR, WINDOW = 0.1, 3, 10.0  # of calls, calls, seconds

    def __init__(self) -> None:
        self._window = 0
        self._calls = self._extra = 0  # in this window
        self._calls_before = self._extra_before = 0  # in the one before it

    def earn(self, now: float) -> None:
        """Count an ordinary call at ``now`` (monotonic seconds)."""
        self._roll(now)
        self._calls += 1

    def spend(self, now: float) -> bool:
        """Take one extra call, if there is one."""
        self._roll(now)
        before = 1 - now % self.WINDOW / self.WINDOW  # the share of the last ten seconds in the window before
        calls = self._calls + before * self._calls_before
        if self._extra + before * self._extra_before + 1 > max(self.FLOOR, self.SHARE * calls):
            return False
        self._extra += 1
        return True

    def _roll(self, now: float) -> None:
        window = int(now // self.WINDOW)
        if window != self._window:
            next_one = window == self._window + 1
            self._calls_before = self._calls if next_one else 0
            self._extra_before = self._extra if next_one else 0
            self._window, self._calls, self._extra = window, 0, 0


@dataclass(slots=True, frozen=True)
class Deployment:
    """One model of the config, ready to be called.

    ``count`` gives the tokens of a text, if a tokenizer is known.
    """

    spec: ModelSpec
    upstreams: Sequence[Admitted]
    aliases: tuple[str, ...] = ()
    balance: Literal["least_pending", "round_robin"] = "least_pending"
    fallback: tuple[str, ...] = ()
    cold: Literal["wait", "fallback", "fail"] = "wait"
    count: Callable[[str], int] | None = None
    retries: RetryBudget = field(default_factory=RetryBudget)


@dataclass(slots=True, frozen=True)
class Candidate:
    """A model and one of its upstreams."""

    deployment: Deployment
    upstream: Admitted


class Routes:
    """All models, by every name that clients may use."""

    def __init__(self, deployments: Sequence[Deployment], default: str | None = None) -> None:
        self.deployments = {d.spec.name: d for d in deployments}
        self._names: Mapping[str, Deployment] = {
            name: d for d in deployments for name in (d.spec.name, *d.aliases)
        }
        self._default = self._names[default] if default else None
        self._turns = dict.fromkeys(self.deployments, 0)

    def find(self, asked: str | None, caller: Caller) -> Deployment:
        """The model this name means to this caller.

        Raises ``ModelNotFound`` with the nearest name they may use.
        """
        found = self._names.get(asked or "") or self._default
        if found is not None and self._allowed(found, caller):
            return found
        if not asked:
            raise BadRequest("model is required.", param="model", code="missing_required_parameter")
        return self.named(asked, caller)

    def named(self, asked: str, caller: Caller = ANYONE) -> Deployment:
        """The model of exactly this name or alias."""
        found = self._names.get(asked)
        if found is not None and self._allowed(found, caller):
            return found
        close = difflib.get_close_matches(asked[:128], self.names(caller), n=1, cutoff=0.4)
        hint = f" Did you mean `{close[0]}`?" if close else " GET /v1/models lists what there is."
        raise ModelNotFound(
            f"The model `{_printable(asked)}` does not exist or this key may not call it.{hint}",
            param="model",
        )

    def names(self, caller: Caller) -> list[str]:
        """Names this caller may use, models before aliases, in the order of the config."""
        allowed = [d for d in self.deployments.values() if self._allowed(d, caller)]
        return [d.spec.name for d in allowed] + [alias for d in allowed for alias in d.aliases]

    def in_turn(self, deployment: Deployment) -> list[Admitted]:
        """The model's upstreams in the order in which this request should try them."""
        upstreams = list(deployment.upstreams)
        if len(upstreams) < 2:
            return upstreams
        turn = self._turns[deployment.spec.name]
        self._turns[deployment.spec.name] = (turn + 1) % len(upstreams)
        rotated = upstreams[turn:] + upstreams[:turn]
        if deployment.balance == "least_pending":
            rotated.sort(key=lambda upstream: upstream.pending)
        return rotated

    def candidates(self, deployment: Deployment, caller: Caller) -> Iterator[Candidate]:
        """Every candidate in order: the model's upstreams, then those of its fallback models."""
        for upstream in self.in_turn(deployment):
            yield Candidate(deployment, upstream)
        for name in deployment.fallback:
            if self._allowed(model := self._names[name], caller):
                for upstream in self.in_turn(model):
                    yield Candidate(model, upstream)

    @staticmethod
    def _allowed(deployment: Deployment, caller: Caller) -> bool:
        return caller.models == ("*",) or any(
            map(caller.may_call, (deployment.spec.name, *deployment.aliases))
        )


class Attempts:
    """The candidates of one request, one after the other."""

    def __init__(self, candidates: Iterator[Candidate], budget: RetryBudget, now: float) -> None:
        self._candidates = candidates
        self._budget = budget
        self._again = False  # the same upstream was called twice
        self._moved = False  # another upstream of the same model was called
        self.current = next(candidates)
        budget.earn(now)

    def after(self, error: GatewayError) -> Iterator[Candidate]:
        """Where the request may be tried after ``error``, best first; nothing if the client must hear it."""
        cold = isinstance(error, NoContainer) and self.current.deployment.cold == "fail"
        if error.retry == "never" or cold:
            return
        if error.retry == "once" and not self._again:
            self._again = True
            yield self.current
            return
        failed = self.current.deployment
        for candidate in self._candidates:
            beside = candidate.deployment is failed
            if beside and self._moved:
                continue  # one extra call a model is enough
            self._moved = beside
            self.current = candidate
            yield candidate

    def spend(self, now: float) -> bool:
        """Pay for one more call."""
        return self._budget.spend(now)


def _printable(name: str) -> str:
    """A client's text, fit for an error message."""
    cut = name if len(name) <= 128 else name[:125] + "..."
    return "".join(char if char.isprintable() and char != "`" else "?" for char in cut)

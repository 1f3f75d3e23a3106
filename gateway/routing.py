"""Which model a name means, which upstream gets the call, and what may be tried after a failure.

Rule: nothing is tried again once a visible event was sent; another upstream of the same model goes before
another model; extra calls stay within a budget, so that a failing backend is not buried. Lives above
``plan``, because another model means another template. Knows nothing about HTTP.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from gateway.admission import Admitted
from gateway.auth import ANYONE, Caller
from gateway.core.errors import (
    BadRequest,
    GatewayError,
    ModelNotFound,
    NoContainer,
    Overloaded,
    UpstreamError,
)
from gateway.core.spec import ModelSpec


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
        self._default = default
        self._turns = dict.fromkeys(self.deployments, 0)

    def find(self, asked: str | None, caller: Caller) -> Deployment:
        """The model this name means to this caller.

        Raises ``ModelNotFound`` with the nearest name they may use.
        """
        if self._default is not None and asked not in self._names:
            asked = self._default
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


class RetryBudget:
    """Extra calls: one for every ten ordinary ones, and at least three in any ten seconds."""

    SHARE, FLOOR, WINDOW = 0.1, 3.0, 10.0
    CEILING = 100.0

    def __init__(self) -> None:
        self._left = self.FLOOR
        self._filled = 0.0

    def earn(self) -> None:
        self._left = min(self._left + self.SHARE, self.CEILING)

    def spend(self, now: float) -> bool:
        """Take one extra call at ``now`` (monotonic seconds), if there is one."""
        if self._left < self.FLOOR:
            refill = (now - self._filled) * self.FLOOR / self.WINDOW
            self._left = min(self._left + refill, self.FLOOR)
        self._filled = now
        if self._left < 1:
            return False
        self._left -= 1
        return True


class Attempts:
    """The candidates of one request, one after the other."""

    def __init__(self, candidates: Iterator[Candidate], budget: RetryBudget) -> None:
        self._candidates = candidates
        self._budget = budget
        self._again = False  # the same upstream was called twice
        self._moved = False  # another upstream of the same model was called
        self.current = next(candidates)
        budget.earn()

    def after(self, error: GatewayError, now: float) -> Candidate | None:
        """Where to try after ``error``, or None if the client must hear of it."""
        if not self._worth_it(error):
            return None
        if error.retry == "once" and not self._again:
            self._again = True
            return self.current if self._budget.spend(now) else None
        failed = self.current.deployment
        for candidate in self._candidates:
            beside = candidate.deployment is failed
            if beside and (self._moved or error.retry == "never"):
                continue  # one extra call a model is enough, and some failures repeat everywhere
            if not self._budget.spend(now):
                return None
            self._moved = beside
            self.current = candidate
            return candidate
        return None

    def _worth_it(self, error: GatewayError) -> bool:
        if isinstance(error, NoContainer):
            return self.current.deployment.cold != "fail"
        return isinstance(error, UpstreamError | Overloaded)


def _printable(name: str) -> str:
    """A client's text, fit for an error message."""
    cut = name if len(name) <= 128 else name[:125] + "..."
    return "".join(char if char.isprintable() and char != "`" else "?" for char in cut)

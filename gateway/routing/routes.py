"""Which model a name means, and which of its upstreams goes first.

Rule: an upstream that is ready goes before one that must boot, one that fails goes last; among equals the
model's ``balance`` decides. Knows nothing about HTTP, nor about what becomes of a call.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from gateway.allowances import NO_LIMITS, Budget, Limits
from gateway.auth import ANYONE, Caller
from gateway.core.errors import BadRequest, ModelNotFound, printable
from gateway.core.price import FREE, Price
from gateway.core.spec import ModelSpec
from gateway.routing.budget import RetryBudget
from gateway.routing.lifecycle import State
from gateway.routing.target import Target
from gateway.token_ids import FOUND, Decode

READINESS: Mapping[State, int] = {
    "warm": 0, "unknown": 0, "saturated": 1, "booting": 2, "cold": 3, "stopped": 4,
}  # fmt: skip
"""The order of upstreams. One that nobody knows goes with the warm ones, or it would never be known."""


@dataclass(slots=True, frozen=True)
class Deployment:
    """One model of the config, ready to be called.

    ``count`` gives the tokens of a text, if a tokenizer is known; ``decode`` the text of token
    ids that are sent to be embedded, as `gateway/token_ids.py` says; ``detokenize`` that of the model's own.
    """

    spec: ModelSpec
    upstreams: Sequence[Target]
    aliases: tuple[str, ...] = ()
    balance: Literal["least_pending", "round_robin"] = "least_pending"
    fallback: tuple[str, ...] = ()
    cold: Literal["wait", "fallback", "fail"] = "wait"
    count: Callable[[str], int] | None = None
    retries: RetryBudget = field(default_factory=RetryBudget)
    decode: Decode = FOUND
    detokenize: Decode | None = None
    json_stream: Literal["live", "buffered"] = "live"
    repair_attempts: int = 1
    price: Price = FREE
    limits: Limits = NO_LIMITS
    budgets: tuple[Budget, ...] = ()

    @property
    def name(self) -> str:
        return self.spec.name

    @property
    def priced(self) -> bool:
        """Whether its requests cost dollars."""
        return bool(self.price)

    @property
    def timed(self) -> bool:
        """Whether the GPU time of its requests is counted."""
        return any(target.metered for target in self.upstreams)


class Routes:
    """All models, by every name that clients may use."""

    def __init__(self, deployments: Sequence[Deployment], default: str | None = None) -> None:
        self.deployments = {d.spec.name: d for d in deployments}
        self._names: Mapping[str, Deployment] = {
            name: d for d in deployments for name in (d.spec.name, *d.aliases)
        }
        self._default = self._names[default] if default else None
        self._turns = dict.fromkeys(self.deployments, 0)

    @property
    def priced(self) -> frozenset[str]:
        """Names of the models that have a price."""
        return frozenset(name for name, each in self.deployments.items() if each.priced)

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
            f"The model `{printable(asked)}` does not exist or this key may not call it.{hint}",
            param="model",
        )

    def names(self, caller: Caller) -> list[str]:
        """Names this caller may use, models before aliases, in the order of the config."""
        allowed = [d for d in self.deployments.values() if self._allowed(d, caller)]
        return [d.spec.name for d in allowed] + [alias for d in allowed for alias in d.aliases]

    def in_turn(self, deployment: Deployment) -> list[Target]:
        """The model's upstreams in the order in which this request should try them."""
        upstreams = list(deployment.upstreams)
        if len(upstreams) < 2:
            return upstreams
        turn = self._turns[deployment.spec.name]
        self._turns[deployment.spec.name] = (turn + 1) % len(upstreams)
        rotated = upstreams[turn:] + upstreams[:turn]
        if deployment.balance == "least_pending":
            rotated.sort(key=lambda target: target.pending)
        rotated.sort(key=lambda target: (not target.closed(), READINESS[target.state()]))
        return rotated

    def fallbacks(self, deployment: Deployment, caller: Caller) -> list[Deployment]:
        """Other models that may answer in place of this one."""
        models = (self._names[name] for name in deployment.fallback)
        return [model for model in models if self._allowed(model, caller)]

    @staticmethod
    def _allowed(deployment: Deployment, caller: Caller) -> bool:
        return caller.models == ("*",) or any(
            map(caller.may_call, (deployment.spec.name, *deployment.aliases))
        )

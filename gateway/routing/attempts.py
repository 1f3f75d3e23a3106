"""What is tried for one request, one candidate after the other.

Rule: another upstream of the same model goes before another model; one that is ready before one that must
boot; waiting for a boot comes last, or as the request's ``cold`` says. A move away from an edge without a
container, or from an upstream that takes no more calls, is free, since nothing ran there; every other one is
paid from the model's budget. Nothing here knows whether an event was sent: nothing may be asked of it after
that.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Literal, TypeAlias

from gateway.auth import ANYONE, Caller
from gateway.core.errors import GatewayError, NoContainer, UpstreamBusy
from gateway.core.gpu import Payer
from gateway.core.value import value
from gateway.routing.routes import READINESS, Deployment, Routes
from gateway.routing.target import Target
from gateway.routing.visit import Visit

FREE = (NoContainer, UpstreamBusy)
"""Failures after which nothing has to be paid for another call: the one that failed ran nothing."""

Cold: TypeAlias = Literal["wait", "fallback", "fail"]
"""What a request does where no container is ready: wait for one, take another model's, or fail at once."""


@value
class Candidate:
    """A model and one of its upstreams, and whether the request would wait there for a container."""

    deployment: Deployment
    upstream: Target
    patient: bool = True
    wakes: bool = False

    def visit(self, caller: Caller = ANYONE) -> Visit:
        """A call's way to it, on the account of this caller."""
        payer = Payer(caller.id, caller.name, caller.team, self.deployment.spec.name)
        return Visit(
            self.patient,
            self.wakes,
            priority=caller.priority,
            payer=payer,
            upstream=self.upstream.name,
        )


class Attempts:
    """The candidates of one request; ``current`` is the one being tried."""

    def __init__(
        self, routes: Routes, deployment: Deployment, caller: Caller, cold: Cold, now: float
    ) -> None:
        self._routes = routes
        self._deployment = deployment
        self._caller = caller
        self._cold = cold
        self._again = False  # the same upstream was called twice
        self._moved = False  # another upstream of the failed model was called
        self._waits = cold == "wait" and len(deployment.upstreams) == 1
        self._cold_ones: list[Target] = []  # upstreams of the model that had no container
        own = routes.in_turn(deployment)
        self.current = Candidate(deployment, own[0], self._waits, cold != "wait")
        self.fallbacks = 0  # calls to other models
        self.refused: GatewayError | None = None  # what the first limit said that kept it from one
        self._beside = iter(own[1:])
        self._fallback = self._of_other_models()
        deployment.retries.earn(now)

    @property
    def wanted(self) -> str:
        """The model that was asked for."""
        return self._deployment.spec.name

    def after(self, error: GatewayError) -> Iterator[Candidate]:
        """Where the request may be tried after ``error``, best first; nothing if the client must hear it."""
        if isinstance(error, NoContainer):
            yield from self._after_cold()
        elif error.retry == "once" and not self._again:
            self._again = True
            yield self.current
        elif error.retry != "never":
            yield from self._after_failure()

    def affords(self, error: GatewayError, now: float) -> bool:
        """Whether one more call after ``error`` can be paid; to plan one costs more than to ask."""
        return isinstance(error, FREE) or self._deployment.retries.affords(now)

    def spend(self, error: GatewayError, now: float) -> bool:
        """Pay for one more call after ``error``."""
        paid = isinstance(error, FREE) or self._deployment.retries.spend(now)
        self.fallbacks += paid and self.current.deployment is not self._deployment
        return paid

    def _after_failure(self) -> Iterator[Candidate]:
        failed = self.current.deployment
        if failed is self._deployment and not self._moved:  # one extra call a model is enough
            for target in self._beside:
                self._moved = True
                yield self._take(Candidate(self._deployment, target, self._waits, self._cold != "wait"))
        if self._cold == "wait":
            yield from self._back()
        for candidate in self._fallback:
            if candidate.deployment is failed and self._moved:
                continue
            self._moved = candidate.deployment is failed
            yield self._take(candidate)
        yield from self._back()

    def _after_cold(self) -> Iterator[Candidate]:
        refused = self.current
        if refused.deployment is self._deployment and not refused.patient:
            self._cold_ones.append(refused.upstream)
            for target in self._beside:
                yield self._take(Candidate(self._deployment, target, patient=False))
        if self._cold == "fallback":
            for candidate in self._fallback:
                yield self._take(replace(candidate, patient=False))
        yield from self._back()
        if self._cold == "wait":
            for candidate in self._fallback:
                yield self._take(candidate)

    def _back(self) -> Iterator[Candidate]:
        """To the model's own upstream that had no container, to wait for one there."""
        if self._cold_ones and self._cold != "fail" and not self._waits:
            self._waits = True
            best = min(self._cold_ones, key=lambda target: READINESS[target.state()])
            yield self._take(Candidate(self._deployment, best))

    def _take(self, candidate: Candidate) -> Candidate:
        self.current = candidate
        return candidate

    def _of_other_models(self) -> Iterator[Candidate]:
        for model in self._routes.fallbacks(self._deployment, self._caller):
            for target in self._routes.in_turn(model):
                yield Candidate(model, target, self._cold != "fail", self._cold == "fail")

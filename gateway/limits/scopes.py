"""What bounds a caller's request to a model: the limits and budgets of its key, its team and that model.

Rule: found once and kept, by the identity of what was configured, because comparing limits costs more than
counting. Knows nothing about what was counted.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import NamedTuple, Protocol

from gateway.allowances import NO_LIMITS, Allowance, Budget, Limits
from gateway.auth import Caller
from gateway.core.errors import Forbidden
from gateway.limits.rules import Kind, Scope, quotas, scope

KEPT = 8192  # scopes, and pairs of a caller and a model, that are kept ready

log = logging.getLogger("gateway")


class Bounded(Protocol):
    """A model as limits see it: whether its requests have a price, and whether their GPU time is counted."""

    @property
    def name(self) -> str: ...
    @property
    def limits(self) -> Limits: ...
    @property
    def budgets(self) -> tuple[Budget, ...]: ...
    @property
    def priced(self) -> bool: ...
    @property
    def timed(self) -> bool: ...


class Scopes:
    """All that bounds anybody; ``teams`` may be replaced when the configuration is."""

    def __init__(self, teams: Mapping[str, Allowance]) -> None:
        self.teams = teams
        self._labels = False  # it was said that teams bound nothing
        self._compiled: dict[tuple[tuple[Kind, str, str], bool, bool], _Compiled] = {}
        self._met: dict[tuple[str, str], _Met] = {}  # by id of the caller and name of the model
        self._met_teams = teams  # what those were found with

    def of(self, caller: Caller, model: Bounded) -> tuple[Scope, ...]:
        """What bounds a request, from the key to the model.

        Raises ``Forbidden`` if the team is in no configuration.
        """
        if caller.team is None and _unbounded(caller) and _unbounded(model):
            return ()
        if self._met_teams is not self.teams:  # another configuration: nothing of the one before is kept
            self._met, self._met_teams = {}, self.teams
        known = self._met.get((caller.id, model.name))
        if known is not None and known.caller is caller and known.model is model:
            return known.scopes
        if len(self._met) >= KEPT:
            self._met.clear()
        found = self._bounding(caller, model)
        self._met[caller.id, model.name] = _Met(caller, model, found)
        return found

    def _bounding(self, caller: Caller, model: Bounded) -> tuple[Scope, ...]:
        whose: tuple[Kind, str, str] = ("key", caller.id, caller.name)
        found = [self._compile(whose, caller.limits, caller.budgets, model)]
        if caller.team is not None:
            if (team := self.teams.get(caller.team)) is None:
                self._strange(caller.name, caller.team)
            else:
                whose = ("team", caller.team, caller.team)
                found.append(self._compile(whose, team.limits, team.budgets, model))
        whose = ("model", model.name, model.name)
        found.append(self._compile(whose, model.limits, model.budgets, model))
        return tuple(one for one in found if one is not None)

    def _strange(self, key: str, team: str) -> None:
        """A team that is not configured bounds nobody, so its keys are refused; without any it is a label."""
        if self.teams:
            message = (
                f"The team {team} of this key is not in the gateway's configuration, so its limits are not "
                "known. Ask who runs the gateway to add the team, or to give the key another one."
            )
            raise Forbidden(message, code="team_unknown", headers={"x-should-retry": "false"})
        if not self._labels:
            self._labels = True
            log.warning("no teams are configured: nothing bounds team %s of key %s, nor any other", team, key)

    def _compile(
        self, whose: tuple[Kind, str, str], limits: Limits, budgets: tuple[Budget, ...], model: Bounded
    ) -> Scope | None:
        name = (whose, model.priced, model.timed)
        known = self._compiled.get(name)
        if known is not None and known.limits is limits and known.budgets is budgets:
            return known.scope
        if len(self._compiled) >= KEPT:
            self._compiled.clear()
        found = scope(whose, limits, quotas(budgets, priced=model.priced, timed=model.timed))
        self._compiled[name] = _Compiled(limits, budgets, found)
        return found

    def applies(self, caller: Caller, model: Bounded) -> bool:
        """Whether anything bounds this caller's request to this model."""
        return bool(self.of(caller, model))

    def spends(self, caller: Caller, model: Bounded) -> bool:
        """Whether a budget in dollars or GPU seconds bounds this caller's request to this model."""
        return any(quota.index for scope in self.of(caller, model) for quota in scope.quotas)


class _Compiled(NamedTuple):
    """Of these limits and budgets: the objects themselves, since comparing them costs more."""

    limits: Limits
    budgets: tuple[Budget, ...]
    scope: Scope | None


class _Met(NamedTuple):
    """What bounds this caller's requests to this model: the objects themselves, as above."""

    caller: Caller
    model: Bounded
    scopes: tuple[Scope, ...]


def _unbounded(whoever: Caller | Bounded) -> bool:
    """Whether nothing is set, as with most: by identity, since comparing limits costs more than counting."""
    return whoever.limits is NO_LIMITS and not whoever.budgets

"""What every budget allows and what is spent of it: of keys, people, teams and models.

Rule: behind the guard of the admin API. The ledger says what was spent, a question for each sort of holder
and period and none for each holder; where there is none, this process says what it has counted itself.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping
from functools import partial
from typing import Any, TypeAlias

import orjson
from fastapi import FastAPI, Request
from starlette.responses import Response

from gateway.allowances import Budget, Holder, Period
from gateway.http.exchange import read_head
from gateway.ledger.ledger import Ledger
from gateway.ledger.pages import Admit
from gateway.limits.rules import Amount, Kind, bounds
from gateway.serve.service import Service

Used: TypeAlias = Mapping[tuple[Kind, Period], Mapping[str, Amount]]
"""By the ids of its holders."""


class BudgetPage:
    """The route's handler; ``keys`` gives keys and people with budgets. No ``ledger`` where there is none."""

    def __init__(
        self,
        admit: Admit,
        service: Service,
        keys: Callable[[], Awaitable[list[Holder]]],
        ledger: Ledger | None,
    ) -> None:
        self._admit = admit
        self._service = service
        self._keys = keys
        self._ledger = ledger

    def add_to(self, app: FastAPI) -> None:
        app.add_api_route("/admin/budgets", self.budgets)

    async def budgets(self, request: Request) -> Response:
        """Every budget of keys, people, teams and models, and what is spent of it in the period of now."""
        await self._admit(read_head(request.scope))
        holders = [*await self._keys(), *self._others()]
        used = self._counted() if self._ledger is None else await self._booked(self._ledger, holders)
        data = [_shown(holder, used) for holder in holders]
        return Response(orjson.dumps({"object": "list", "data": data}), media_type="application/json")

    def _others(self) -> list[Holder]:
        teams, models = self._service.books.leases.scopes.teams, self._service.models
        found = [Holder("team", name, name, each.budgets) for name, each in teams.items()]
        found += [Holder("model", name, name, each.budgets) for name, each in models.items()]
        return [holder for holder in found if holder.budgets]

    async def _booked(self, ledger: Ledger, holders: Iterable[Holder]) -> Used:
        from gateway.ledger.queries import Asked, usage

        asked = {(holder.kind, budget.per) for holder in holders for budget in holder.budgets}
        found = {}
        for kind, period in sorted(asked):
            since = Asked(int(bounds(period, self._service.world.time())[0] * 1000))
            lines = await ledger.ask(partial(usage, by=kind, asked=since))
            found[kind, period] = {
                line.id: Amount(line.prompt_tokens + line.completion_tokens, line.cost, line.gpu_ns)
                for line in lines
            }
        return found

    def _counted(self) -> Used:
        """Of what was met lately."""
        found: dict[tuple[Kind, Period], dict[str, Amount]] = {}
        for row in self._service.books.leases.budgets():
            if row.period != "now" and row.period != "minute":
                known = found.setdefault((row.kind, row.period), {})
                known[row.id] = known.get(row.id, Amount())._replace(**{row.measure: row.used})
        return found


def _shown(holder: Holder, used: Used) -> dict[str, Any]:
    budgets = []
    for budget in holder.budgets:
        spent = used.get((holder.kind, budget.per), {}).get(holder.id, Amount())
        budgets.append({"per": budget.per, **_bound(budget, spent)})
    return {"kind": holder.kind, "id": holder.id, "name": holder.name, "budgets": budgets}


def _bound(budget: Budget, spent: Amount) -> dict[str, Any]:
    if budget.dollars is not None:
        return {"unit": "dollars", "limit": budget.dollars, "used": spent.cost / 10**9}
    if budget.gpu_seconds is not None:
        return {"unit": "gpu_seconds", "limit": budget.gpu_seconds, "used": spent.gpu / 10**9}
    return {"unit": "tokens", "limit": budget.tokens, "used": spent.tokens}

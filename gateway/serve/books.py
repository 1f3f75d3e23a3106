"""What limits, budgets and the ledger have to do with one request: opened before its call, closed at its end.

Rule: the only place that joins them to requests. Nothing is called before it is opened, so that no route
escapes; closing is a plain function that never fails. Knows nothing of how anything is counted or kept.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from typing import Any, Protocol

from gateway.core.call import Call, ChatCall, EmbedCall, PromptCall
from gateway.core.gpu import Tail
from gateway.core.usage import most_asked
from gateway.ledger.rows import Idle, Intent
from gateway.limits.firsts import Firsts
from gateway.limits.leases import Leases
from gateway.limits.means import Means, Took
from gateway.limits.rules import NOTHING, Amount, Kind
from gateway.record import Record
from gateway.routing.routes import Deployment
from gateway.routing.target import Target
from gateway.serve.job import Job
from gateway.world import World


class Journal(Protocol):
    """Where requests are written down; `gateway/ledger` keeps this promise."""

    async def begin(self, intent: Intent) -> None: ...

    def observe(self, record: Record, content: Mapping[str, Any] | None = None) -> None: ...

    def idle(self, rows: Sequence[Idle]) -> None: ...


@dataclass(slots=True)
class Taken:
    """By a model, since the start: nanoseconds of containers, and billionths of a dollar."""

    busy: int = 0
    idle: int = 0
    cost: int = 0


class Books:
    """``journal`` is None where nothing is kept; ``content``: prompts and answers are kept too."""

    def __init__(
        self, leases: Leases, world: World, journal: Journal | None = None, *, content: bool = False
    ) -> None:
        self.leases = leases
        self.content = content
        self.taken: dict[str, Taken] = defaultdict(Taken)  # by model
        self._means = Means()
        self._firsts = Firsts(lambda model: self._means.of(model).known, _answered)
        self._journal = journal
        self._world = world

    async def open(self, job: Job) -> None:
        """Before the first call: reserve what it may take, and write down that it begins.

        Raises ``GatewayError`` if a limit or a budget refuses it, or it cannot be written down.
        """
        assert job.candidate is not None
        model = job.candidate.deployment
        if self.leases.scopes.applies(job.caller, model):
            if self._first(job, model):
                await self._firsts.turn(model.name, job)
            wanted, least = self._wanted(job)
            job.lease = await self.leases.lease(job.caller, model, wanted, job.request_id, least=least)
        if self._journal is not None:
            await self._journal.begin(_intent(job))

    async def move(self, job: Job) -> None:
        """Another candidate was planned for; its model is charged only with what it will run.

        Raises if a limit or a budget refuses it; nothing has changed then.
        """
        assert job.candidate is not None
        model = job.candidate.deployment
        if job.lease is None and self.leases.scopes.applies(job.caller, model):
            job.lease = self.leases.nothing(job.caller, job.request_id)
        if job.lease is None:
            return
        if self._first(job, model):
            self._firsts.take(model.name, job)
        wanted, least = self._wanted(job)
        stays = job.lease.model
        try:
            await job.lease.move(model, wanted, _total(_ran(job)), least=least)
            stays = model.name
        finally:
            self._firsts.leave(job, but=stays)

    def close(self, job: Job, record: Record) -> None:
        """At the end of a request whose caller is known, whatever became of it."""
        usage = record.usage
        tokens = usage.prompt_tokens + usage.completion_tokens if usage is not None else 0
        spent = Amount(tokens, record.cost or 0, record.gpu or 0)
        if job.lease is not None:
            job.lease.settle(spent)
        by_model, own = {record.model: spent}, spent
        if job.tries > 1:
            by_model = _ran(job, record.model)
            by_model[record.model] = own = spent.less(_total(by_model))
        if usage is not None and record.status == 200 and record.code is None:
            answer = -(-usage.completion_tokens // max(len(job.calls), 1))
            self._means.of(record.model).note(own.cost, own.gpu, answer)
        self._firsts.leave(job)
        for model, amount in by_model.items():
            if amount.gpu or amount.cost:
                self.taken[model].busy += amount.gpu
                self.taken[model].cost += amount.cost
        if self._journal is not None and job.admitted:
            self._journal.observe(record, _content(job) if self.content else None)

    def recall(self, model: Deployment, took: Iterable[Took]) -> None:
        """What requests to a model took, the newest first; where some have ended here, those count alone."""
        mean = self._means.of(model.name)
        if not mean.known:
            for cost, gpu, answer in reversed([each for each in took if _tells(each, model)]):
                mean.note(cost or 0, gpu or 0, answer)
        if mean.known:
            self._firsts.learn(model.name)

    def idle(self, model: Deployment, target: Target, tails: Sequence[Tail]) -> None:
        """Containers of this upstream have waited after calls; who kept them busy pays for it."""
        now, taken = self._world.time(), self.taken[model.name]
        for tail in tails:
            id = self._world.new_id()
            rows = [
                Idle(f"idle_{id}_{at}", now, *payer, target.name, gpu, tail.source, model.price.of(None, gpu))
                for at, (payer, gpu) in enumerate(tail.shares)
            ]
            for row in rows:
                taken.idle += row.gpu
                taken.cost += row.cost or 0
                self.leases.charge(row.id, _payers(row), Amount(0, row.cost or 0, row.gpu))
            if self._journal is not None:
                self._journal.idle(rows)

    def _first(self, job: Job, model: Deployment) -> bool:
        """Whether a budget bounds the request, and nobody knows what to reserve of it."""
        return not self._means.of(model.name).known and self.leases.scopes.spends(job.caller, model)

    def _wanted(self, job: Job) -> tuple[Amount, int | None]:
        """The most that it may take, or what such requests usually take; then the fewest tokens that do."""
        assert job.candidate is not None
        spec = job.candidate.deployment.spec
        answers = 0 if isinstance(job.calls[0], EmbedCall) else len(job.calls)
        asked, prompts = most_asked(job.calls[0]), job.prompts()
        most = spec.max_output_tokens if asked is None else asked
        wanted = self._means.of(spec.name).wanted(prompts, most, answers)
        return wanted, prompts + answers if most is None else None


def _ran(job: Job, but: str | None = None) -> dict[str, Amount]:
    """What has run for it on each model but this one: GPU time, and what the model asks for that."""
    found: dict[str, Amount] = {}
    for visit, price in job.made:
        model = visit.payer.model
        if visit.gpu and model != but:
            ran = Amount(0, price.of(None, visit.gpu) or 0, visit.gpu)
            found[model] = found.get(model, NOTHING).plus(ran)
    return found


def _total(amounts: Mapping[str, Amount]) -> Amount:
    return reduce(Amount.plus, amounts.values(), NOTHING)


def _answered(job: Job) -> bool:
    """Whether any container has begun to answer it."""
    return any(visit.answered for visit in job.visits)


def _tells(took: Took, model: Deployment) -> bool:
    """Whether it says what the next one takes, counted as requests are now."""
    return not (took.cost is None and model.priced) and not (took.gpu is None and model.timed)


def _payers(row: Idle) -> list[tuple[Kind, str]]:
    """Whose budgets it is taken from."""
    team: list[tuple[Kind, str]] = [("team", row.team)] if row.team is not None else []
    return [("key", row.key_id), *team, ("model", row.model)]


def _intent(job: Job) -> Intent:
    assert job.candidate is not None
    caller, model, request = job.caller, job.candidate.deployment.spec.name, job.request
    return Intent(
        job.request_id,
        job.time,
        caller.id,
        caller.name,
        caller.team,
        job.asked or model,
        model,
        job.candidate.upstream.name,
        job.route,
        bool(request and request.stream),
        job.client_request_id,
        job.user,
    )


def _content(job: Job) -> dict[str, Any] | None:
    """What went to the model and what came back, as the client was sent it."""
    if not job.calls:
        return None
    sent = [_sent(call) for call in job.calls if call.choice == 0]
    return {"sent": sent, "answers": [choice.kept.answer() for choice in job.choices if choice.kept]}


def _sent(call: Call) -> Any:
    if isinstance(call, PromptCall):
        return call.prompt
    return call.body.get("messages") if isinstance(call, ChatCall) else list(call.texts)

"""What is known of one request while it is being answered; at its end, a ``Record``.

Rule: the one mutable thing of a request, written by ``serve`` alone.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import NamedTuple

from gateway.auth import ANYONE, Caller
from gateway.core.call import MAX_NOTED, Call, notable
from gateway.core.encode import Head
from gateway.core.events import Batch, Finish, Reasoning, Text, ToolArgs, Usage, tells, visible
from gateway.core.gpu import Source
from gateway.core.price import Price
from gateway.core.structured import repair, verdict
from gateway.core.tokens import Tally
from gateway.core.usage import counted, guessed, summed
from gateway.core.watch import complete
from gateway.core.wire import ChatRequest
from gateway.limits.leases import Lease
from gateway.record import Record
from gateway.routing.attempts import Attempts, Candidate
from gateway.routing.visit import Visit, covered, traced
from gateway.serve.transcript import Kept
from gateway.telemetry.trace import Trace

OTHER = "other"  # metric label of models that are not in the config


@dataclass(slots=True)
class Choice:
    """One of the ``n`` answers: how it ended and what it used."""

    tally: Tally
    said: list[str] | None = None  # its text, where that will be judged
    thought: Tally | None = None  # what of it was reasoning
    finish: Finish | None = None
    kept: Kept | None = None  # what it said, for the ledger


class Snapshot(NamedTuple):
    """What a job knows of its current try."""

    candidate: Candidate | None
    calls: tuple[Call, ...]
    choices: list[Choice]
    visits: list[Visit]
    prompt_tokens: int | None
    generated: bool


@dataclass(slots=True)
class Job:
    """Times are seconds of the monotonic clock."""

    request_id: str
    started: float
    route: str
    time: float = 0.0  # when it came, seconds since 1970
    client_request_id: str | None = None
    trace: Trace | None = None  # where it stands in its client's
    admitted: bool = False  # it is known who calls
    lease: Lease | None = None  # of limits and budgets
    keeps: bool = False  # its answers are kept
    caller: Caller = ANYONE
    request: ChatRequest | None = None
    asked: str = ""  # the name of the model that the client sent
    user: str | None = None
    attempts: Attempts | None = None
    candidate: Candidate | None = None
    calls: tuple[Call, ...] = ()  # to the candidate, one a choice
    choices: list[Choice] = field(default_factory=list)
    visits: list[Visit] = field(default_factory=list)  # to the candidate, one a choice
    made: list[tuple[Visit, Price]] = field(default_factory=list)  # to every candidate, and what it asks
    tries: int = 0  # candidates that were called
    prompt_tokens: int | None = None  # of all prompts, counted by the model's tokenizer
    first_event: float | None = None
    generated: bool = False  # the candidate said something, sent or not
    committed: bool = False  # something was sent, so nothing else may be tried
    code: str | None = None
    client_left: bool = False
    repairs: int = 0  # answers that were asked for again because they were not the JSON they should be
    spent: Usage | None = None  # on those
    used: Usage | None = None  # the final count, once it was made

    def begin(self, calls: tuple[Call, ...]) -> None:
        """Forget what an earlier attempt said: none of it was sent."""
        self.calls = calls
        count = self._counter()
        judged, keeps = calls[0].watch.json is not None, self.keeps
        self.choices = [
            Choice(Tally(count), [] if judged else None, kept=Kept() if keeps else None) for _ in calls
        ]
        self.visits = []
        if self.candidate is not None:
            price = self.candidate.deployment.price
            self.visits = [self.candidate.visit(self.caller) for _ in calls]
            self.made += [(visit, price) for visit in self.visits]
            if self.trace is not None:
                self.calls = tuple(map(partial(traced, self.trace), calls, self.visits))
        self.prompt_tokens = None
        self.generated = False

    def snapshot(self) -> Snapshot:
        """The current try, to come back to if none that follows it begins."""
        return Snapshot(
            self.candidate, self.calls, self.choices, self.visits, self.prompt_tokens, self.generated
        )

    def restore(self, before: Snapshot) -> None:
        """Be at this try again, with what came of it."""
        self.candidate, self.calls, self.choices, self.visits, self.prompt_tokens, self.generated = before

    def note(self, index: int, batch: Batch, now: float) -> None:
        """Take down what the client is about to be sent."""
        choice = self.choices[index]
        if choice.kept is not None:
            choice.kept.take(batch)
        for event in batch:
            kind = type(event)
            if kind is Text or kind is Reasoning or kind is ToolArgs:
                choice.tally.add(event.text)  # type: ignore[union-attr]
                if kind is Reasoning:
                    choice.thought = choice.thought or Tally(self._counter())
                    choice.thought.add(event.text)  # type: ignore[union-attr]
                elif choice.said is not None and kind is Text:
                    choice.said.append(event.text)  # type: ignore[union-attr]
            elif kind is Finish:
                choice.finish = event  # type: ignore[assignment]
        if not self.generated and any(map(tells, batch)):
            self.generated = self.committed = True
        if self.first_event is None and any(map(visible, batch)):
            self.first_event = now

    def head(self, ids: str, created: float, *, counted: bool = False) -> Head:
        """The identity of the answer; the model is the name that was asked for.

        ``counted``: with the tokens of the prompt, as far as they are known.
        """
        asked = self.request.model if self.request else None
        name = asked or (self.candidate.deployment.spec.name if self.candidate else OTHER)
        tokens = self.prompts() if counted else 0
        return Head(ids + self.request_id.removeprefix("req_"), int(created), name, tokens)

    def ignored(self) -> tuple[str, ...]:
        """Names of parameters without effect: those the plan knew of, then those the upstream named."""
        named = list(self.calls[0].notes.ignored) if self.calls else []
        for choice in self.choices:
            if choice.finish and choice.finish.ignored:
                named += notable(choice.finish.ignored)
        return tuple(dict.fromkeys(named))[:MAX_NOTED] if named else ()

    def usage(self) -> Usage:
        """Tokens of all choices, and of answers that were asked for again. For when no more is to come."""
        if self.used is None:
            if self.spent is not None and not self._came():
                self.used = self.spent
            else:
                exact = self.prompt_tokens is not None
                last = counted(self.calls, self.choices, self.prompts, exact=exact)
                self.used = last if self.spent is None else summed(self.spent, last)
        return self.used

    def judged(self) -> str | None:
        """What is wrong with the JSON that was asked for, in one line.

        Only answers that are complete are judged.
        """
        watch = self.calls[0].watch
        if watch.json is None:
            return None
        for choice in self.choices:
            if complete(choice.finish, watch) and (line := verdict("".join(choice.said or ()), watch.json)):
                return line
        return None

    def again(self, line: str) -> ChatRequest:
        """The request that tells the model what was wrong with its answer. What that one cost is kept."""
        assert self.request is not None
        self.spent, self.used = self.usage(), None
        self.repairs += 1
        told = repair(self.request.messages, "".join(self.choices[0].said or ()), line)
        self.choices, self.generated, self.committed = [], False, False
        return self.request.model_copy(update={"messages": told})

    def gpu(self) -> int | None:
        """Nanoseconds of containers that were its share, all tries together; None where none are counted."""
        if self.candidate is None or not self.tries:
            return None
        gpu = sum(visit.gpu for visit, _ in self.made)
        return gpu if gpu or self.candidate.upstream.metered else None

    def gpu_source(self) -> Source:
        """Whether a platform told how many containers ran, all the while."""
        return "estimated" if any(visit.gpu_source == "estimated" for visit, _ in self.made) else "reported"

    def cost(self) -> int | None:
        """Billionths of a dollar, once its tokens were counted; None where no model that ran has a price.

        Each try costs what its own model asks, and the tokens what the model asks that answered.
        """
        if self.candidate is None:
            return None
        own = self.candidate.deployment.price
        if not own and self.tries <= 1:  # most requests, which should pay nothing to learn it
            return None
        gpu = sum(visit.gpu for visit, price in self.made if price is own)
        costs = [own.of(self.used, gpu)]
        costs += [price.of(None, visit.gpu) for visit, price in self.made if price is not own and visit.gpu]
        known = [cost for cost in costs if cost is not None]
        return sum(known) if known else None

    def buffers(self) -> bool:
        """Whether an answer of JSON is sent only once it was judged, though a stream was asked for."""
        assert self.candidate is not None
        return self.calls[0].watch.json is not None and self.candidate.deployment.json_stream == "buffered"

    def json_verdict(self) -> str | None:
        """How far the JSON of all answers can be relied on; None where none was asked for, or one was cut."""
        watch = self.calls[0].watch
        if watch.json is None and not watch.guaranteed:
            return None
        if not all(complete(choice.finish, watch) for choice in self.choices):
            return None
        if watch.guaranteed:
            return "guaranteed"
        return "repaired" if self.repairs else "validated"

    def _came(self) -> bool:
        """Whether the current try said or ended anything."""
        return self.generated or any(choice.finish for choice in self.choices)

    def _counter(self) -> Callable[[str], int] | None:
        return self.candidate.deployment.count if self.candidate else None

    def prompts(self) -> int:
        """Tokens of all its prompts, counted or guessed."""
        if self.prompt_tokens is not None:
            return self.prompt_tokens
        return guessed(self.calls)

    def record(self, status: int, now: float, *, counts: bool = True) -> Record:
        """The request's one line. ``status`` 0 means that nothing was sent; ``counts``: with its tokens."""
        visit = self.visits[0] if self.tries else None
        finishes = [choice.finish for choice in self.choices if choice.finish]
        usage = self.usage() if counts and (self.spent is not None or self._came()) else None
        gpu = self.gpu()
        return Record(
            self.request_id,
            self.route,
            self.caller.name,
            self.asked,
            self.candidate.deployment.spec.name if self.candidate else OTHER,
            self.candidate.upstream.name if self.candidate else "-",
            status or 499,  # nginx's number for a client that left before an answer
            self.code,
            bool(self.request and self.request.stream),
            self.started,
            self.first_event,
            now,
            usage,
            finishes[0].reason if finishes else None,
            state=visit.state if visit else "unknown",
            queued=visit.queued if visit else 0.0,
            booted=visit.booted if visit else 0.0,
            calls=self.tries,
            fallbacks=self.attempts.fallbacks if self.attempts else 0,
            wanted=self.attempts.wanted if self.attempts else OTHER,
            choices=len(self.calls) or 1,
            called=covered([visit for visit, _ in self.made]) if self.tries else 0.0,
            stop_matches=sum(map(_stopped, finishes)),
            client_left=self.client_left,
            ignored=self.ignored(),
            user=self.user,
            time=self.time,
            key_id=self.caller.id,
            team=self.caller.team,
            client_request_id=self.client_request_id,
            gpu=gpu,
            gpu_source=self.gpu_source() if gpu is not None else None,
            cost=self.cost() if self.tries else None,
        )


def _stopped(finish: Finish) -> bool:
    """Whether a stop string ended it; what ends behind its first call does not count."""
    return finish.stopped_by is not None and finish.reason == "stop"

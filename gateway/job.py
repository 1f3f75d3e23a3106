"""What is known of one request while it is being answered; at its end, a ``Record``.

Rule: the one mutable thing of a request, written by ``serve`` alone.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from gateway.auth import ANYONE, Caller
from gateway.core.call import MAX_NOTED, Call, PromptCall, notable
from gateway.core.encode import Head
from gateway.core.events import Batch, Finish, Reasoning, Text, Usage, tells, visible
from gateway.core.tokens import Tally, estimate
from gateway.core.wire import ChatRequest, text_of
from gateway.record import Record
from gateway.routing.attempts import Attempts, Candidate
from gateway.routing.target import Visit

OTHER = "other"  # metric label of models that are not in the config


@dataclass(slots=True)
class Choice:
    """One of the ``n`` answers: how it ended and what it used."""

    tally: Tally
    finish: Finish | None = None


@dataclass(slots=True)
class Job:
    """Times are seconds of the monotonic clock."""

    request_id: str
    started: float
    route: str
    caller: Caller = ANYONE
    request: ChatRequest | None = None
    attempts: Attempts | None = None
    candidate: Candidate | None = None
    calls: tuple[Call, ...] = ()  # to the candidate, one a choice
    choices: list[Choice] = field(default_factory=list)
    visits: list[Visit] = field(default_factory=list)  # to the candidate, one a choice
    tries: int = 0  # candidates that were called
    prompt_tokens: int | None = None  # counted by the model's tokenizer
    first_event: float | None = None
    committed: bool = False
    code: str | None = None
    client_left: bool = False
    used: Usage | None = None  # the final count, once it was made

    def begin(self, calls: tuple[Call, ...]) -> None:
        """Forget what an earlier attempt said: none of it was sent."""
        self.calls = calls
        count = self.candidate.deployment.count if self.candidate else None
        self.choices = [Choice(Tally(count)) for _ in calls]
        self.visits = [self.candidate.visit() for _ in calls] if self.candidate else []
        self.prompt_tokens = None

    def note(self, index: int, batch: Batch, now: float) -> None:
        """Take down what the client is about to be sent."""
        choice = self.choices[index]
        for event in batch:
            kind = type(event)
            if kind is Text or kind is Reasoning:
                choice.tally.add(event.text)  # type: ignore[union-attr]
            elif kind is Finish:
                choice.finish = event  # type: ignore[assignment]
        self.committed = self.committed or any(map(tells, batch))
        if self.first_event is None and any(map(visible, batch)):
            self.first_event = now

    def head(self, ids: str, created: float) -> Head:
        """The identity of the answer; the model is the name that was asked for."""
        asked = self.request.model if self.request else None
        name = asked or (self.candidate.deployment.spec.name if self.candidate else OTHER)
        return Head(ids + self.request_id.removeprefix("req_"), int(created), name)

    def ignored(self) -> tuple[str, ...]:
        """Names of parameters without effect: those the plan knew of, then those the upstream named."""
        named = list(self.calls[0].notes.ignored) if self.calls else []
        for choice in self.choices:
            if choice.finish and choice.finish.ignored:
                named += notable(choice.finish.ignored)
        return tuple(dict.fromkeys(named))[:MAX_NOTED] if named else ()

    def usage(self) -> Usage:
        """Tokens of all choices: the upstream's figures where it gave them, our own count or guess elsewhere.

        The prompt counts once, however many choices there are. Called when there is no more to come.
        """
        if self.used is None:
            self.used = self._count()
        return self.used

    def _count(self) -> Usage:
        given = [choice.finish.usage for choice in self.choices if choice.finish and choice.finish.usage]
        if given and len(given) == len(self.choices):
            completion = sum(usage.completion_tokens for usage in given)
            return Usage(
                given[0].prompt_tokens, completion, "upstream", given[0].details if len(given) == 1 else None
            )
        exact = self.candidate is not None and self.candidate.deployment.count is not None
        prompt = given[0].prompt_tokens if given else self._prompt_tokens()
        completion = sum(
            choice.finish.usage.completion_tokens
            if choice.finish and choice.finish.usage
            else choice.tally.total()
            for choice in self.choices
        )
        return Usage(prompt, completion, "tokenizer" if exact else "estimate")

    def _prompt_tokens(self) -> int:
        if self.prompt_tokens is not None:
            return self.prompt_tokens
        if self.calls and isinstance(self.calls[0], PromptCall):
            return estimate(self.calls[0].prompt)
        messages = self.request.messages if self.request else []
        return sum(
            estimate(text_of(m.get("content"), ""))
            for m in messages
            if not isinstance(m.get("content"), list)
        )

    def record(self, status: int, now: float) -> Record:
        """The request's one line. ``status`` 0 means that nothing was sent."""
        visit = self.visits[0] if self.tries else None
        finishes = [choice.finish for choice in self.choices if choice.finish]
        return Record(
            request_id=self.request_id,
            route=self.route,
            key=self.caller.name,
            asked=(self.request.model if self.request else None) or "",
            model=self.candidate.deployment.spec.name if self.candidate else OTHER,
            upstream=self.candidate.upstream.name if self.candidate else "-",
            state=visit.state if visit else "unknown",
            queued=visit.queued if visit else 0.0,
            booted=visit.booted if visit else 0.0,
            calls=self.tries,
            status=status or 499,  # nginx's number for a client that left before an answer
            code=self.code,
            streamed=bool(self.request and self.request.stream),
            started=self.started,
            first_event=self.first_event,
            finished=now,
            usage=self.usage() if self.committed or finishes else None,
            finish=finishes[0].reason if finishes else None,
            stop_matches=sum(finish.stopped_by is not None for finish in finishes),
            client_left=self.client_left,
            ignored=self.ignored(),
            user=self.request.user if self.request else None,
        )

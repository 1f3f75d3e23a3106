"""What is known of one request while it is being answered; at its end, a ``Record``.

Rule: the one mutable thing of a request, written by ``serve`` alone.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from gateway.auth import ANYONE, Caller
from gateway.core.call import MAX_NOTED, Call, PromptCall, notable
from gateway.core.encode import Head
from gateway.core.events import Batch, Finish, Reasoning, Text, ToolArgs, Usage, tells, visible
from gateway.core.structured import repair, verdict
from gateway.core.tokens import Tally, estimate
from gateway.core.wire import ChatRequest, text_of
from gateway.record import Record
from gateway.routing.attempts import Attempts, Candidate
from gateway.routing.visit import Visit

OTHER = "other"  # metric label of models that are not in the config


@dataclass(slots=True)
class Choice:
    """One of the ``n`` answers: how it ended and what it used."""

    tally: Tally
    said: list[str] | None = None  # its text, where that will be judged
    thought: Tally | None = None  # what of it was reasoning
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
    prompt_tokens: int | None = None  # of all prompts, counted by the model's tokenizer
    first_event: float | None = None
    committed: bool = False
    code: str | None = None
    client_left: bool = False
    repairs: int = 0  # answers that were asked for again because they were not the JSON they should be
    spent: Usage | None = None  # on those
    used: Usage | None = None  # the final count, once it was made

    def begin(self, calls: tuple[Call, ...]) -> None:
        """Forget what an earlier attempt said: none of it was sent."""
        self.calls = calls
        count = self._counter()
        judged = calls[0].watch.json is not None
        self.choices = [Choice(Tally(count), [] if judged else None) for _ in calls]
        self.visits = [self.candidate.visit() for _ in calls] if self.candidate else []
        self.prompt_tokens = None

    def note(self, index: int, batch: Batch, now: float) -> None:
        """Take down what the client is about to be sent."""
        choice = self.choices[index]
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

        A prompt counts once, however many choices it has. Called when there is no more to come.
        """
        if self.used is None:
            self.used = self._count() if self.spent is None else _sum(self.spent, self._count())
        return self.used

    def judged(self) -> str | None:
        """What is wrong with the JSON that was asked for, in one line.

        An answer that calls a tool is none, and one that was cut at max_tokens tells so itself.
        """
        form = self.calls[0].watch.json
        for choice in self.choices if form is not None else ():
            whole = choice.finish is not None and choice.finish.reason not in ("tool_calls", "length")
            if whole and form is not None and (line := verdict("".join(choice.said or ()), form)):
                return line
        return None

    def again(self, line: str) -> ChatRequest:
        """The request that tells the model what was wrong with its answer. What that one cost is kept."""
        assert self.request is not None
        self.spent, self.used = self.usage(), None
        self.repairs += 1
        self.committed = False
        told = repair(self.request.messages, "".join(self.choices[0].said or ()), line)
        return self.request.model_copy(update={"messages": told})

    def buffers(self) -> bool:
        """Whether an answer of JSON is sent only once it was judged, though a stream was asked for."""
        assert self.candidate is not None
        return self.calls[0].watch.json is not None and self.candidate.deployment.json_stream == "buffered"

    def json_verdict(self) -> str | None:
        """How far the JSON of the answer can be relied on; None where none was asked for."""
        watch = self.calls[0].watch
        if watch.guaranteed:
            return "guaranteed"
        if watch.json is None:
            return None
        return "repaired" if self.repairs else "validated"

    def _count(self) -> Usage:
        given = [choice.finish.usage for choice in self.choices if choice.finish and choice.finish.usage]
        told = self._told_prompts()
        if given and len(given) == len(self.choices):
            completion = sum(usage.completion_tokens for usage in given)
            details = given[0].details if len(given) == 1 else None
            return Usage(sum(told.values()), completion, "upstream", details or self._details(completion))
        exact = self.candidate is not None and self.candidate.deployment.count is not None
        prompts = sum(call.choice == 0 for call in self.calls)
        prompt = sum(told.values()) if told and len(told) == prompts else self._prompt_tokens()
        completion = sum(
            choice.finish.usage.completion_tokens
            if choice.finish and choice.finish.usage
            else choice.tally.total()
            for choice in self.choices
        )
        return Usage(
            prompt, completion, "tokenizer" if exact else "estimate", self._details(completion)
        )

    def _details(self, completion: int) -> dict[str, Any] | None:
        """How much of the answers was reasoning, counted here; None if there was none."""
        thoughts = [choice.thought for choice in self.choices if choice.thought is not None]
        if not thoughts:
            return None
        tokens = min(sum(thought.total() for thought in thoughts), completion)
        return {"completion_tokens_details": {"reasoning_tokens": tokens}}

    def _counter(self) -> Callable[[str], int] | None:
        return self.candidate.deployment.count if self.candidate else None

    def _told_prompts(self) -> dict[int, int]:
        """Tokens of each prompt of which an upstream told them, by the number of its prompt."""
        told: dict[int, int] = {}
        prompt = -1
        for call, choice in zip(self.calls, self.choices, strict=True):
            prompt += call.choice == 0
            if choice.finish and choice.finish.usage:
                told.setdefault(prompt, choice.finish.usage.prompt_tokens)
        return told

    def _prompt_tokens(self) -> int:
        if self.prompt_tokens is not None:
            return self.prompt_tokens
        if self.calls and isinstance(self.calls[0], PromptCall):
            first = [call for call in self.calls if call.choice == 0]
            return sum(estimate(call.prompt) for call in first if isinstance(call, PromptCall))
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
            stop_matches=sum(map(_stopped, finishes)),
            client_left=self.client_left,
            ignored=self.ignored(),
            user=self.request.user if self.request else None,
        )


def _sum(first: Usage, second: Usage) -> Usage:
    """Of two calls; what is less exact names the source."""
    source = first.source if first.source != "upstream" else second.source
    prompt = first.prompt_tokens + second.prompt_tokens
    return Usage(prompt, first.completion_tokens + second.completion_tokens, source)


def _stopped(finish: Finish) -> bool:
    """Whether a stop string ended it; what ends behind its first call does not count."""
    return finish.stopped_by is not None and finish.reason == "stop"

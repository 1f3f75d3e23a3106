"""One embedding request from its first byte to its record.

    identify -> parse -> route -> texts -> parts -> vectors, in any order -> one answer

Rule: parts go through the model's slots side by side, a few at a time. If one fails, the others are closed;
what is tried again is only what has not come, unless another model is asked: vectors of two models are never
in one answer. Knows nothing about how an upstream is reached.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from functools import partial

from gateway.core.call import EmbedCall
from gateway.core.embeddings import Collected, EmbeddingRequest, parse_embeddings, plan_embeddings
from gateway.core.errors import BadRequest, ContextTooLong, GatewayError
from gateway.core.events import Usage
from gateway.core.tokens import estimate
from gateway.http import rhythm
from gateway.http.exchange import Exchange, Presence, Receive, Scope, Send, read_head
from gateway.http.stream import WHITE_SPACE, LiveAnswer
from gateway.record import Record
from gateway.routing.attempts import Attempts, Candidate
from gateway.routing.routes import Deployment
from gateway.serve.headers import cold, headers
from gateway.serve.job import Job
from gateway.serve.life import Life
from gateway.serve.service import Service
from gateway.serve.steps import admitted, counted, finish, moved
from gateway.serve.together import together

AT_ONCE = 8  # parts of one request that are under way: what comes back is held, and others want slots too
PATH = "/embeddings"
ENGINES = re.compile(r"(?:/v1)?/engines/(.+)/embeddings", re.DOTALL)
"""The old address, which names the model; a name may hold slashes."""


@dataclass(slots=True, frozen=True)
class _Gathered:
    """What one model gave so far; ``counts`` are tokens of each text, by its tokenizer."""

    source: Deployment
    counts: list[int] | None
    parts: Collected


@dataclass(slots=True)
class _Asked:
    """What is known of one request beside its job."""

    job: Job
    request: EmbeddingRequest | None = None
    model: str | None = None  # as asked for
    texts: list[str] = field(default_factory=list)
    gathered: _Gathered | None = None

    def usage(self) -> Usage:
        """Tokens of the parts that came: the upstream's figures, else our own count or guess."""
        gathered, total, told = self.gathered, 0, True
        if gathered is None:
            return Usage(0, 0)
        for part, end in gathered.parts.finished.items():
            if end.usage is not None:
                total += end.usage.prompt_tokens
            else:
                total, told = total + self._counted(part, gathered.counts), False
        return Usage(total, 0, "upstream" if told else "tokenizer" if gathered.counts else "estimate")

    def _counted(self, part: int, counts: Sequence[int] | None) -> int:
        call = self.job.calls[part]
        assert isinstance(call, EmbedCall)
        if counts is None:
            return sum(map(estimate, call.texts))
        start = sum(len(each.texts) for each in self.job.calls[:part] if isinstance(each, EmbedCall))
        return sum(counts[start : start + len(call.texts)])

    def record(self, status: int, now: float) -> Record:
        self.job.used = self.usage()
        return self.job.record(status, now)._replace(finish=None)


class Embeddings:
    """``POST /v1/embeddings`` and ``/v1/engines/{model}/embeddings`` as an ASGI application."""

    def __init__(self, service: Service) -> None:
        self._service = service

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        world = self._service.world
        job = Job("req_" + world.new_id(), world.monotonic(), "embeddings", time=world.time())
        asked = _Asked(job)
        exchange = Exchange(send, job.request_id)
        life = Life(self._service, job, exchange, _refusal)
        await life.of(self._serve(scope, receive, exchange, asked), receive, asked.record)

    async def _serve(self, scope: Scope, receive: Receive, exchange: Exchange, asked: _Asked) -> None:
        head, job = read_head(scope), asked.job
        body = await admitted(self._service, job, head, receive)
        asked.request = request = parse_embeddings(body)
        asked.model = _model(request, scope["path"])
        job.asked, job.user = asked.model or "", request.user
        deployment = self._service.routes.find(asked.model, job.caller)
        asked.texts = await _texts(request, deployment)
        await self._answer(head, receive, exchange, asked, deployment)

    async def _answer(
        self,
        head: Mapping[bytes, bytes],
        receive: Receive,
        exchange: Exchange,
        asked: _Asked,
        deployment: Deployment,
    ) -> None:
        job, now = asked.job, self._service.world.monotonic()
        job.attempts = Attempts(self._service.routes, deployment, job.caller, cold(head, deployment), now)
        await _begin(asked, job.attempts.current)
        beat = rhythm.for_whole(rhythm.patience(head))
        join = partial(self._service.running.enter, job.caller)
        with Presence(receive, join) as presence:
            live = LiveAnswer(exchange, lambda: headers(job), WHITE_SPACE, beat)
            presence.slow = live.keep
            async with live:
                await self._service.books.open(job)
                await self._collect(asked)
                job.used = usage = asked.usage()
                assert asked.gathered is not None
                body = asked.gathered.parts.answer(asked.model or deployment.spec.name, usage)
                await finish(live, exchange, job, body)

    async def _collect(self, asked: _Asked) -> None:
        """All parts; nothing is sent before the last, so until then a failure may be mended."""
        while True:
            asked.job.tries += 1
            try:
                await self._parts(asked)
                return
            except GatewayError as error:
                if not await self._moved(asked, error):
                    raise

    async def _moved(self, asked: _Asked, error: GatewayError) -> bool:
        """As ``moved``: what came is kept, too, until another candidate begins."""
        gathered, done = asked.gathered, False
        try:
            done = await moved(self._service, asked.job, error, partial(_begin, asked))
        finally:
            if not done:
                asked.gathered = gathered
        return done

    async def _parts(self, asked: _Asked) -> None:
        """What has not come yet, side by side. Raises the first ``GatewayError`` of any."""
        job, gathered = asked.job, asked.gathered
        assert job.candidate is not None and gathered is not None
        missing = [part for part in range(len(job.calls)) if part not in gathered.parts.finished]
        workers = min(AT_ONCE, job.candidate.upstream.slots.limit, len(missing))
        parts = iter(missing)
        if workers == 1:
            await self._some(asked, parts)
        else:
            await together([partial(self._some, asked, parts)] * workers)

    async def _some(self, asked: _Asked, parts: Iterator[int]) -> None:
        """One part after the other, of those that nobody else has taken."""
        job, gathered = asked.job, asked.gathered
        assert job.candidate is not None and gathered is not None
        for part in parts:
            async with aclosing(job.candidate.upstream.events(job.calls[part], job.visits[part])) as events:
                async for batch in events:
                    gathered.parts.feed(part, batch)
                    job.note(part, batch, self._service.world.monotonic())


async def _begin(asked: _Asked, candidate: Candidate) -> None:
    """Set the calls for this candidate. What has come stays, unless it came from another model."""
    job, request, deployment = asked.job, asked.request, candidate.deployment
    assert request is not None
    job.candidate = candidate
    origin = job.request_id, job.caller.id
    calls = plan_embeddings(request, asked.texts, deployment.spec, candidate.upstream.traits, origin)
    gathered = asked.gathered
    if gathered is None or gathered.source is not deployment:
        counts = await _counts(asked.texts, deployment)
        asked.gathered = gathered = _Gathered(deployment, counts, Collected(request, deployment.spec))
    job.begin(calls)
    job.prompt_tokens = sum(gathered.counts) if gathered.counts is not None else None
    for part, end in gathered.parts.finished.items():
        job.choices[part].finish = end


def _model(request: EmbeddingRequest, path: str) -> str | None:
    """The name that was asked for, in the body or in the address."""
    named = ENGINES.fullmatch(path)
    if named is None:
        return request.model
    if request.model is not None and request.model != named[1]:
        raise BadRequest("model is not the one that the address names.", param="model", code="invalid_value")
    return named[1]


async def _texts(request: EmbeddingRequest, deployment: Deployment) -> list[str]:
    """The texts, token ids decoded as the model's entry says. Raises ``BadRequest``."""
    inputs = request.inputs()
    if all(isinstance(each, str) for each in inputs):
        return [str(each) for each in inputs]

    def decoded() -> list[str]:
        return [each if isinstance(each, str) else deployment.decode(each) for each in inputs]

    return await asyncio.to_thread(decoded)


async def _counts(texts: list[str], deployment: Deployment) -> list[int] | None:
    """Tokens of each text, if there is a tokenizer. Raises ``ContextTooLong`` that names the text."""
    count = deployment.count
    if count is None:
        return None
    counts = await counted(sum(map(len, texts)), lambda: list(map(count, texts)))
    limit = deployment.spec.context_length
    for at, tokens in enumerate(counts):
        if limit is not None and tokens > limit:
            raise ContextTooLong(
                f"This model's maximum context length is {limit} tokens. However, input[{at}] has {tokens} "
                "(context_length_exceeded). Please shorten it.",
                param=f"input[{at}]",
            )
    return counts


def _refusal(error: GatewayError, _: str) -> bytes:
    return error.json()

"""One embedding request from its first byte to its record.

    identify -> parse -> route -> texts -> parts -> vectors, in any order -> one answer

Rule: parts go through the model's slots side by side, a few at a time. If one fails, the others are closed;
what is tried again is only what has not come, unless another model is asked: vectors of two models are never
in one answer. Knows nothing about how an upstream is reached.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterator, Mapping
from contextlib import aclosing
from dataclasses import dataclass, field

from gateway.auth import require_json
from gateway.core.call import EmbedCall
from gateway.core.embeddings import Collected, EmbeddingRequest, parse_embeddings, plan_embeddings
from gateway.core.errors import BadRequest, ContextTooLong, GatewayError, RequestTimeout, TooLarge
from gateway.core.events import Usage
from gateway.core.tokens import estimate
from gateway.http import rhythm
from gateway.http.exchange import ClientGone, Exchange, Presence, Receive, Scope, Send, read_body, read_head
from gateway.http.stream import WHITE_SPACE, LiveAnswer
from gateway.job import Job
from gateway.record import Record
from gateway.routing.attempts import Attempts, Candidate
from gateway.routing.routes import Deployment
from gateway.serve import LONG_PROMPT, Service
from gateway.telling import cold, headers, told

AT_ONCE = 8  # parts of one request that are under way: what comes back is held, and others want slots too
PATH = "/embeddings"
ENGINES = re.compile(r"(?:/v1)?/engines/(.+)/embeddings", re.DOTALL)
"""The old address, which names the model; a name may hold slashes."""


@dataclass(slots=True)
class _Asked:
    """What is known of one request beside its job."""

    job: Job
    request: EmbeddingRequest | None = None
    model: str | None = None  # as asked for
    texts: list[str] = field(default_factory=list)
    source: Deployment | None = None  # whose vectors are collected
    collected: Collected | None = None
    counts: list[int] | None = None  # tokens of each text, by the model's tokenizer

    def usage(self) -> Usage:
        """Tokens of the parts that came: the upstream's figures, else our own count or guess."""
        total, told = 0, True
        for part, finish in self.collected.finished.items() if self.collected else ():
            if finish.usage is not None:
                total += finish.usage.prompt_tokens
            else:
                total, told = total + self._counted(part), False
        return Usage(total, 0, "upstream" if told else "tokenizer" if self.counts else "estimate")

    def _counted(self, part: int) -> int:
        call = self.job.calls[part]
        assert isinstance(call, EmbedCall)
        if self.counts is None:
            return sum(map(estimate, call.texts))
        start = sum(len(each.texts) for each in self.job.calls[:part] if isinstance(each, EmbedCall))
        return sum(self.counts[start : start + len(call.texts)])

    def record(self, status: int, now: float) -> Record:
        self.job.used = self.usage()
        user = self.request.user if self.request else None
        return self.job.record(status, now)._replace(asked=self.model or "", user=user, finish=None)


class Embeddings:
    """``POST /v1/embeddings`` and ``/v1/engines/{model}/embeddings`` as an ASGI application."""

    def __init__(self, service: Service) -> None:
        self._service = service

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        world = self._service.world
        asked = _Asked(job := Job("req_" + world.new_id(), world.monotonic(), "embeddings"))
        exchange = Exchange(send, job.request_id)
        self._service.began()
        try:
            await self._serve(scope, receive, exchange, asked)
        except ClientGone:
            job.client_left = True
        except (TooLarge, RequestTimeout) as error:
            job.code = error.code
            await exchange.refuse(error, error.json(), receive)
        except (Exception, asyncio.CancelledError) as error:
            await _fail(exchange, job, told(error))
            if not isinstance(error, GatewayError):
                raise  # the server logs a bug's traceback, and ends a task that it cancelled
        finally:
            record = asked.record(exchange.status, world.monotonic())
            for observe in self._service.observe:
                observe(record)

    async def _serve(self, scope: Scope, receive: Receive, exchange: Exchange, asked: _Asked) -> None:
        head, job = read_head(scope), asked.job
        job.caller = self._service.keys.identify(head)
        if self._service.keys.open:
            require_json(head)
        body = await read_body(receive, head, self._service.limits.max_body)
        asked.request = request = parse_embeddings(body)
        asked.model = _model(request, scope["path"])
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
        with Presence(receive) as presence:
            live = LiveAnswer(exchange, lambda: headers(job), WHITE_SPACE, beat)
            presence.slow = live.keep
            async with live:
                await self._collect(asked)
                usage = asked.usage()
                assert asked.collected is not None
                body = asked.collected.answer(asked.model or deployment.spec.name, usage)
                if await live.settle():
                    await exchange.end(body)
                else:
                    await exchange.answer(body, {**headers(job), "x-gateway-usage": usage.source})

    async def _collect(self, asked: _Asked) -> None:
        """All parts; nothing is sent before the last, so until then a failure may be mended."""
        while True:
            asked.job.tries += 1
            try:
                await self._parts(asked)
                return
            except GatewayError as error:
                if not await self._move(asked, error):
                    raise

    async def _parts(self, asked: _Asked) -> None:
        """What has not come yet, side by side. Raises the first ``GatewayError`` of any."""
        job, collected = asked.job, asked.collected
        assert job.candidate is not None and collected is not None
        missing = [part for part in range(len(job.calls)) if part not in collected.finished]
        workers = min(AT_ONCE, job.candidate.upstream.slots.limit, len(missing))
        parts = iter(missing)
        if workers == 1:
            await self._some(asked, parts)
            return
        try:
            async with asyncio.TaskGroup() as group:
                for _ in range(workers):
                    group.create_task(self._some(asked, parts))
        except BaseExceptionGroup as failed:
            raise failed.exceptions[0] from None

    async def _some(self, asked: _Asked, parts: Iterator[int]) -> None:
        """One part after the other, of those that nobody else has taken."""
        job, collected = asked.job, asked.collected
        assert job.candidate is not None and collected is not None
        for part in parts:
            async with aclosing(job.candidate.upstream.events(job.calls[part], job.visits[part])) as events:
                async for batch in events:
                    collected.feed(part, batch)
                    job.note(part, batch, self._service.world.monotonic())

    async def _move(self, asked: _Asked, error: GatewayError) -> bool:
        """Begin at the next candidate that can take the request; false if the client must hear ``error``."""
        job = asked.job
        assert job.attempts is not None
        if not job.attempts.affords(error, self._service.world.monotonic()):
            return False
        failed = job.candidate, job.calls, job.visits
        for candidate in job.attempts.after(error):
            try:
                await _begin(asked, candidate)
            except GatewayError:  # what this model refuses is no answer to what was asked of another
                continue
            if job.attempts.spend(error, self._service.world.monotonic()):
                return True
        job.candidate, job.calls, job.visits = failed
        return False


async def _begin(asked: _Asked, candidate: Candidate) -> None:
    """Set the calls for this candidate. What has come stays, unless it came from another model."""
    job, request, deployment = asked.job, asked.request, candidate.deployment
    assert request is not None
    job.candidate = candidate
    origin = job.request_id, job.caller.name
    calls = plan_embeddings(request, asked.texts, deployment.spec, candidate.upstream.traits, origin)
    if asked.source is not deployment:
        asked.counts = await _counts(asked.texts, deployment)
        asked.source, asked.collected = deployment, Collected(request, deployment.spec)
    assert asked.collected is not None
    job.begin(calls)
    for part, finish in asked.collected.finished.items():
        job.choices[part].finish = finish


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
    long = sum(map(len, texts)) > LONG_PROMPT
    counts = await asyncio.to_thread(lambda: list(map(count, texts))) if long else list(map(count, texts))
    limit = deployment.spec.context_length
    for at, counted in enumerate(counts):
        if limit is not None and counted > limit:
            raise ContextTooLong(
                f"This model's maximum context length is {limit} tokens. However, input[{at}] has {counted} "
                "(context_length_exceeded). Please shorten it.",
                param=f"input[{at}]",
            )
    return counts


async def _fail(exchange: Exchange, job: Job, error: GatewayError) -> None:
    """A failure before the headers is a status; after them the server cuts the connection."""
    job.code = error.code or error.type
    if not exchange.started:
        if job.tries:
            error.headers.setdefault("x-gateway-upstream-state", job.visits[0].state)
        await exchange.fail(error, error.json())

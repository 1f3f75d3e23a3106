"""One chat request from its first byte to its record.

    identify -> parse -> route -> plan -> events -> filters -> encode -> send

Rule: one way for data. A whole answer is the collected stream; failures, retries and clients that leave are
dealt with here and nowhere else; one ``finally`` observes the record. Whoever opens an iterator closes it
in the same function. Knows nothing about how an upstream is reached.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from dataclasses import dataclass, field
from datetime import datetime

from gateway.auth import Keys, require_json
from gateway.core.call import Call, PromptCall, for_choice
from gateway.core.encode.chunks import DONE, PING, Chunks
from gateway.core.encode.whole import Collector
from gateway.core.errors import (
    BadRequest,
    ContextTooLong,
    GatewayError,
    Internal,
    RequestTimeout,
    TooLarge,
)
from gateway.core.events import Batch, Finish
from gateway.core.plan import Origin, plan
from gateway.core.watch import filters
from gateway.core.wire import ChatRequest, parse_chat
from gateway.exchange import ClientGone, Exchange, Presence, Receive, Scope, Send, read_body, read_head
from gateway.job import Job
from gateway.record import Record
from gateway.routing import Attempts, Candidate, RetryBudget, Routes
from gateway.settings import Server
from gateway.stream import EventStream, Filler
from gateway.upstreams import Upstream

LONG_PROMPT = 20_000  # characters; counting the tokens of more is done off the event loop


@dataclass(slots=True, frozen=True)
class World:
    """What answers depend on beside the request; tests pass in a fixed one."""

    now: Callable[[], datetime]
    monotonic: Callable[[], float]  # seconds
    new_id: Callable[[], str]  # 24 or more hexadecimal digits


@dataclass(slots=True, frozen=True)
class Service:
    """Everything a request may need, made once at start."""

    limits: Server
    keys: Keys
    routes: Routes
    world: World
    began: Callable[[], None]
    observe: Callable[[Record], None]
    retries: RetryBudget = field(default_factory=RetryBudget)


class ChatCompletions:
    """``POST /v1/chat/completions`` as an ASGI application."""

    def __init__(self, service: Service) -> None:
        self._service = service

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        world = self._service.world
        job = Job("req_" + world.new_id(), world.monotonic(), "chat")
        exchange = Exchange(send, job.request_id)
        self._service.began()
        try:
            await self._serve(scope, receive, exchange, job)
        except ClientGone:
            job.client_left = True
        except (TooLarge, RequestTimeout) as error:
            job.code = error.code
            await exchange.refuse(error, receive)
        except GatewayError as error:
            await self._fail(exchange, job, error)
        except Exception:
            await self._fail(
                exchange, job, Internal("Something went wrong in the gateway; its log has the details.")
            )
            raise  # the server logs the traceback
        finally:
            self._service.observe(job.record(exchange.status, world.monotonic()))

    async def _fail(self, exchange: Exchange, job: Job, error: GatewayError) -> None:
        """A failure before the headers is a status.

        After them the stream already carries it, and returning without an end makes the server cut the
        connection, which no client takes for a complete answer.
        """
        job.code = error.code or error.type
        if not exchange.started:
            await exchange.fail(error)

    async def _serve(self, scope: Scope, receive: Receive, exchange: Exchange, job: Job) -> None:
        head = read_head(scope)
        job.caller = self._service.keys.identify(head)
        if self._service.keys.open:
            require_json(head)
        body = await read_body(receive, head, self._service.limits.max_body)
        job.request = request = parse_chat(body)
        self._check_n(request)
        routes = self._service.routes
        attempts = Attempts(
            routes.candidates(routes.find(request.model, job.caller), job.caller), self._service.retries
        )
        job.candidate = attempts.current
        await self._plan(job, request)
        async with Presence(receive):
            if request.stream:
                await self._stream(exchange, job, request, attempts)
            else:
                await self._whole(exchange, job, request, attempts)

    def _check_n(self, request: ChatRequest) -> None:
        limit = self._service.limits.max_n
        if request.n and request.n > limit:
            raise BadRequest(
                f"n is {request.n}; at most {limit} is accepted.", param="n", code="invalid_value"
            )

    async def _plan(self, job: Job, request: ChatRequest) -> None:
        """Set the call for the job's candidate. Raises if the prompt cannot fit the model."""
        assert job.candidate is not None
        deployment, upstream = job.candidate.deployment, job.candidate.upstream
        origin = Origin(job.request_id, self._service.world.now())
        job.call = call = plan(request, deployment.spec, upstream.traits, origin)
        job.begin(request.n or 1)
        if deployment.count is not None and isinstance(call, PromptCall):
            job.prompt_tokens = await _count(deployment.count, call.prompt)
            asked, limit = call.arguments.get("max_tokens", 0), deployment.spec.context_length
            if limit is not None and job.prompt_tokens + asked > limit:
                raise ContextTooLong.of(limit=limit, prompt=job.prompt_tokens, output=asked)

    async def _stream(self, exchange: Exchange, job: Job, request: ChatRequest, attempts: Attempts) -> None:
        include_usage = bool(request.stream_options and request.stream_options.include_usage)
        encoder = Chunks(job.head(self._service.world.now().timestamp()), include_usage=include_usage)
        opening = b"".join(map(encoder.role, range(request.n or 1)))
        filler = Filler(opening, PING, lambda: encoder.pause(0))
        stream = EventStream(exchange, lambda: _headers(job), filler, self._service.limits.first_byte_grace)
        async with stream, aclosing(self._answer(job, request, attempts)) as source:
            try:
                async for index, batch in source:
                    if data := encoder.feed(index, batch):
                        await stream.write(data)
            except GatewayError as error:
                if stream.started:
                    await exchange.write(encoder.error(error))
                raise
            usage = job.usage()
            await stream.end(encoder.usage(usage, {"usage": usage.source}) + DONE)

    async def _whole(self, exchange: Exchange, job: Job, request: ChatRequest, attempts: Attempts) -> None:
        collector = Collector(job.head(self._service.world.now().timestamp()), request.n or 1)
        async with aclosing(self._answer(job, request, attempts)) as source:
            async for index, batch in source:
                collector.feed(index, batch)
        usage = job.usage()
        await exchange.answer(collector.answer(usage), {**_headers(job), "x-gateway-usage": usage.source})

    async def _answer(
        self, job: Job, request: ChatRequest, attempts: Attempts
    ) -> AsyncGenerator[tuple[int, Batch], None]:
        """Events of all choices, each batch with the index of its choice;

        tries again until one was visible.
        """
        monotonic = self._service.world.monotonic
        while True:
            assert job.candidate is not None and job.call is not None
            try:
                async with aclosing(choices(job.candidate.upstream, job.call, request.n or 1)) as source:
                    async for index, batch in source:
                        job.note(index, batch, monotonic())
                        yield index, batch
                return
            except GatewayError as error:
                following = None if job.committed else attempts.after(error, monotonic())
                if following is None:
                    raise
            await self._move_to(job, request, following)

    async def _move_to(self, job: Job, request: ChatRequest, candidate: Candidate) -> None:
        job.candidate = candidate
        await self._plan(job, request)


def _headers(job: Job) -> dict[str, str]:
    """What is known about the answer when its headers are sent."""
    notes = job.call.notes if job.call else None
    headers: dict[str, str] = {}
    if notes and notes.ignored:
        headers["x-gateway-ignored"] = ", ".join(notes.ignored)
    if notes and notes.neutralised:
        headers["x-gateway-neutralised"] = str(notes.neutralised)
    return headers


async def _count(count: Callable[[str], int], text: str) -> int:
    return await asyncio.to_thread(count, text) if len(text) > LONG_PROMPT else count(text)


async def choice(upstream: Upstream, call: Call) -> AsyncGenerator[Batch, None]:
    """One choice's events after its filters, up to and with its ``Finish``;

    the upstream is closed right there.
    """
    pipeline = filters(call.watch)
    async with aclosing(upstream.events(call)) as source:
        async for batch in source:
            for each in pipeline:
                batch = each.feed(batch)
            if batch:
                yield batch
                if type(batch[-1]) is Finish:
                    return


async def choices(upstream: Upstream, call: Call, n: int) -> AsyncGenerator[tuple[int, Batch], None]:
    """The events of ``n`` calls side by side. The first failure ends all."""
    if n == 1:
        async with aclosing(choice(upstream, call)) as source:
            async for batch in source:
                yield 0, batch
        return
    queue: asyncio.Queue[tuple[int, Batch | Exception]] = asyncio.Queue(maxsize=4 * n)

    async def run(index: int) -> None:
        try:
            async with aclosing(choice(upstream, for_choice(call, index))) as source:
                async for batch in source:
                    await queue.put((index, batch))
        except Exception as error:  # noqa: BLE001 - raised again by the one who iterates
            await queue.put((index, error))

    # Not a TaskGroup: it would cancel whoever iterates this generator, wherever they are.
    tasks = [asyncio.get_running_loop().create_task(run(index)) for index in range(n)]
    try:
        running = n
        while running:
            index, item = await queue.get()
            if isinstance(item, Exception):
                raise item
            running -= type(item[-1]) is Finish
            yield index, item
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

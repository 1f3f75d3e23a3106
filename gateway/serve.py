"""One request from its first byte to its record, whichever API it speaks.

    identify -> parse -> route -> plan -> events -> filters -> encode -> send

Rule: one way for data. A whole answer is the collected stream; failures, retries and clients that leave are
dealt with here and nowhere else; one ``finally`` observes the record. Knows nothing about how an upstream
is reached.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import Any

from gateway.auth import Keys, require_json
from gateway.choices import Deliver, answer
from gateway.core.call import PromptCall
from gateway.core.encode import PING
from gateway.core.errors import (
    BadRequest,
    ContextTooLong,
    GatewayError,
    RequestTimeout,
    TooLarge,
)
from gateway.core.events import Batch
from gateway.core.plan import Origin
from gateway.core.wire import ChatRequest
from gateway.http import rhythm
from gateway.http.exchange import ClientGone, Exchange, Presence, Receive, Scope, Send, read_body, read_head
from gateway.http.stream import EVENT_STREAM, WHITE_SPACE, Filler, LiveAnswer
from gateway.job import Job
from gateway.judging import Judging
from gateway.record import Record
from gateway.routing.attempts import Attempts
from gateway.routing.routes import Routes
from gateway.settings import Server
from gateway.surfaces import Surface
from gateway.telling import cold, extension, headers, json_verdict, told

LONG_PROMPT = 20_000  # characters; counting the tokens of more is done off the event loop


@dataclass(slots=True, frozen=True)
class World:
    """What answers depend on beside the request; tests pass in a fixed one."""

    time: Callable[[], float]  # seconds since 1970
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
    observe: tuple[Callable[[Record], None], ...]


class Api:
    """One API as an ASGI application."""

    def __init__(self, service: Service, surface: Surface[Any]) -> None:
        self._service = service
        self._surface = surface

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        world = self._service.world
        job = Job("req_" + world.new_id(), world.monotonic(), self._surface.route)
        exchange = Exchange(send, job.request_id)
        self._service.began()
        try:
            await self._serve(scope, receive, exchange, job)
        except ClientGone:
            job.client_left = True
        except (TooLarge, RequestTimeout) as error:
            job.code = error.code
            await exchange.refuse(error, self._surface.error(error), receive)
        except (Exception, asyncio.CancelledError) as error:
            await self._fail(exchange, job, told(error))
            if not isinstance(error, GatewayError):
                raise  # the server logs a bug's traceback, and ends a task that it cancelled
        finally:
            record = job.record(exchange.status, world.monotonic())
            for observe in self._service.observe:
                observe(record)

    async def _fail(self, exchange: Exchange, job: Job, error: GatewayError) -> None:
        """A failure before the headers is a status.

        After them the stream already carries it, and returning without an end makes the server cut the
        connection, which no client takes for a complete answer.
        """
        job.code = error.code or error.type
        if not exchange.started:
            if job.tries:
                error.headers.setdefault("x-gateway-upstream-state", job.visits[0].state)
            await exchange.fail(error, self._surface.error(error))

    async def _serve(self, scope: Scope, receive: Receive, exchange: Exchange, job: Job) -> None:
        head = read_head(scope)
        job.caller = self._service.keys.identify(head, basic=self._surface.basic)
        if self._service.keys.open:
            require_json(head)
        body = await read_body(receive, head, self._service.limits.max_body)
        request: ChatRequest = self._surface.parse(body)
        if self._surface.addressed is not None:
            request = self._surface.addressed(request, scope["path"], scope["query_string"])
        job.request = request
        if self._surface.recalled is not None:
            job.request = request = self._surface.recalled(request, job.caller.name)
        self._check_n(request)
        routes = self._service.routes
        deployment = routes.find(request.model, job.caller)
        if self._surface.settled is not None:
            job.request = request = await self._surface.settled(request, deployment)
        now = self._service.world.monotonic()
        job.attempts = Attempts(routes, deployment, job.caller, cold(head, deployment), now)
        job.candidate = job.attempts.current
        await self._plan(job, request)
        patience = rhythm.patience(head)
        with Presence(receive) as presence:
            if request.stream:
                await self._stream(exchange, presence, job, patience)
            else:
                await self._whole(exchange, presence, job, patience)

    def _check_n(self, request: ChatRequest) -> None:
        limit = self._service.limits.max_n
        for name in ("n", "best_of"):
            asked = vars(request).get(name)  # its own field, not an unknown one of the client's
            if asked is not None and asked > limit:
                message = f"{name} is {asked}; at most {limit} is accepted."
                raise BadRequest(message, param=name, code="invalid_value")

    async def _plan(self, job: Job, request: ChatRequest) -> None:
        """Set the call for the job's candidate. Raises if the prompt cannot fit the model."""
        assert job.candidate is not None
        deployment, upstream = job.candidate.deployment, job.candidate.upstream
        origin = Origin(job.request_id, datetime.fromtimestamp(self._service.world.time()), job.caller.name)
        job.begin(self._surface.plan(request, deployment.spec, upstream.traits, origin))
        if deployment.count is None:
            return
        for call in job.calls:
            if isinstance(call, PromptCall) and call.choice == 0:
                tokens = await _count(deployment.count, call.prompt)
                job.prompt_tokens = (job.prompt_tokens or 0) + tokens
                asked, limit = call.arguments.get("max_tokens", 0), deployment.spec.context_length
                if limit is not None and tokens + asked > limit:
                    raise ContextTooLong.of(limit=limit, prompt=tokens, output=asked)

    async def _stream(self, exchange: Exchange, presence: Presence, job: Job, patience: float) -> None:
        assert job.request is not None
        head = job.head(self._surface.ids, self._service.world.time())
        encoder = self._surface.stream(head, job.request, len(job.calls))
        filler = Filler(EVENT_STREAM, encoder.opening, PING, encoder.pause)
        beat = rhythm.for_stream(patience, self._service.limits.first_byte_grace)
        stream = LiveAnswer(exchange, lambda: headers(job), filler, beat)
        presence.slow = stream.keep

        async def send(index: int, batch: Batch) -> None:
            if data := encoder.feed(index, batch):
                await stream.write(data)

        async def deliver(index: int, batch: Batch) -> None:
            job.note(index, batch, self._service.world.monotonic())
            if data := encoder.feed(index, batch):
                await stream.write(data)

        async with stream:
            try:
                if job.calls[0].watch.json is None:
                    await self._answer(job, deliver)
                elif job.buffers():
                    await self._judging(job).mended(send)
                else:
                    await self._judging(job).live(send)
            except BaseException as error:
                if stream.started:
                    await stream.fail(encoder.error(told(error)))
                raise
            await stream.end(encoder.end(job.usage(), extension(job)))

    async def _whole(self, exchange: Exchange, presence: Presence, job: Job, patience: float) -> None:
        assert job.request is not None
        head = job.head(self._surface.ids, self._service.world.time())
        encoder = self._surface.whole(head, job.request, len(job.calls))

        async def collect(index: int, batch: Batch) -> None:
            encoder.feed(index, batch)

        async def deliver(index: int, batch: Batch) -> None:
            job.note(index, batch, self._service.world.monotonic())
            encoder.feed(index, batch)

        live = LiveAnswer(exchange, lambda: headers(job), WHITE_SPACE, rhythm.for_whole(patience))
        presence.slow = live.keep
        async with live:
            if job.calls[0].watch.json is None:
                await self._answer(job, deliver)
            else:
                await self._judging(job).mended(collect)
            usage = job.usage()
            body = encoder.answer(usage)
            if await live.settle():
                await exchange.end(body)
            else:
                known = {**headers(job), "x-gateway-usage": usage.source, **json_verdict(job)}
                await exchange.answer(body, known)

    def _judging(self, job: Job) -> Judging:
        clock = self._service.world.monotonic
        return Judging(job, partial(self._answer, job), partial(self._plan, job), clock)

    async def _answer(self, job: Job, deliver: Deliver) -> None:
        """Deliver the events of all choices; until the first that tells anything, a failure may be mended."""
        while True:
            assert job.candidate is not None
            job.tries += 1
            try:
                await answer(job.candidate.upstream, job.calls, job.visits, deliver)
                return
            except GatewayError as error:
                if job.committed or not await self._move(job, error):
                    raise

    async def _move(self, job: Job, error: GatewayError) -> bool:
        """Plan for the next candidate that can take the request; false if the client must hear ``error``."""
        assert job.request is not None and job.attempts is not None
        if not job.attempts.affords(error, self._service.world.monotonic()):
            return False
        failed = job.candidate, job.calls, job.visits
        for candidate in job.attempts.after(error):
            job.candidate = candidate
            try:
                await self._plan(job, job.request)
            except GatewayError:  # what this model refuses is no answer to what was asked of another
                continue
            if job.attempts.spend(error, self._service.world.monotonic()):
                return True
        job.candidate, job.calls, job.visits = failed
        return False


async def _count(count: Callable[[str], int], text: str) -> int:
    return await asyncio.to_thread(count, text) if len(text) > LONG_PROMPT else count(text)

"""One request from its first byte to its record, whichever API it speaks.

    identify -> parse -> route -> plan -> events -> filters -> encode -> send

Rule: one way for data. A whole answer is the collected stream; failures, retries and clients that leave are
dealt with here and nowhere else; one ``finally`` observes the record. Knows nothing about how an upstream
is reached.
"""

from __future__ import annotations

from datetime import datetime
from functools import partial
from typing import Any

from gateway.core.call import PromptCall
from gateway.core.errors import BadRequest, ContextTooLong, GatewayError
from gateway.core.events import Batch
from gateway.core.plan import Origin
from gateway.core.usage import least_text, most_asked
from gateway.core.wire import ChatRequest
from gateway.http import rhythm
from gateway.http.exchange import Exchange, Presence, Receive, Scope, Send, read_head
from gateway.http.stream import EVENT_STREAM, WHITE_SPACE, Filler, LiveAnswer
from gateway.routing.attempts import Attempts, Candidate
from gateway.serve.choices import Deliver, answer
from gateway.serve.headers import cold, extension, headers, told
from gateway.serve.job import Job
from gateway.serve.judging import Judging
from gateway.serve.life import Life
from gateway.serve.service import Service
from gateway.serve.steps import admitted, counted, finish, moved
from gateway.serve.surfaces import Surface


class Api:
    """One API as an ASGI application."""

    def __init__(self, service: Service, surface: Surface[Any]) -> None:
        self._service = service
        self._surface = surface

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        world = self._service.world
        job = Job("req_" + world.new_id(), world.monotonic(), self._surface.route, time=world.time())
        exchange = Exchange(send, job.request_id, self._surface.named)
        life = Life(self._service, job, exchange, self._surface.error)
        await life.of(self._serve(scope, receive, exchange, job), receive, job.record)

    async def _serve(self, scope: Scope, receive: Receive, exchange: Exchange, job: Job) -> None:
        head = read_head(scope)
        body = await admitted(self._service, job, head, receive)
        job.keeps = self._service.keeps
        request: ChatRequest = self._surface.parse(body)
        if self._surface.addressed is not None:
            request = self._surface.addressed(request, scope["path"], scope["query_string"])
        job.request, job.asked, job.user = request, request.model or "", request.user
        if self._surface.recalled is not None:
            job.request = request = self._surface.recalled(request, job.caller.id)
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
        join = partial(self._service.running.enter, job.caller)
        with Presence(receive, join) as presence:
            if request.stream:
                self._service.streams += 1
                try:
                    await self._stream(exchange, presence, job, patience)
                finally:
                    self._service.streams -= 1
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
        if deployment.spec.images and upstream.traits.speaks == "prompt":
            job.request = request = await self._with_images(request)
        origin = Origin(job.request_id, datetime.fromtimestamp(self._service.world.time()), job.caller.id)
        job.begin(self._surface.plan(request, deployment.spec, upstream.traits, origin))
        if deployment.count is None:
            return
        limit = deployment.spec.context_length
        for call in job.calls:
            exact = isinstance(call, PromptCall)  # else its server renders it, and adds to it
            if call.choice == 0 and (exact or limit is not None):
                text = least_text(call)
                tokens = await counted(len(text), deployment.count, text)
                if exact:
                    job.prompt_tokens = (job.prompt_tokens or 0) + tokens
                asked = most_asked(call) or 0
                if limit is not None and tokens + asked > limit:
                    raise ContextTooLong.of(limit=limit, prompt=tokens, output=asked)

    async def _with_images(self, request: ChatRequest) -> ChatRequest:
        """The request with its images as data, because a container fetches nothing."""
        try:
            return await self._service.images.inlined(request)
        except BadRequest as error:
            raise self._surface.reworded(error, request) from None

    async def _stream(self, exchange: Exchange, presence: Presence, job: Job, patience: float) -> None:
        assert job.request is not None
        surface, now = self._surface, self._service.world.time()
        head = job.head(surface.ids, now, counted=surface.counted)
        encoder = surface.stream(head, job.request, len(job.calls))
        filler = Filler(EVENT_STREAM, encoder.opening, surface.ping, encoder.pause)
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
                await self._service.books.open(job)
                if job.calls[0].watch.json is None:
                    await self._answer(job, deliver)
                elif job.buffers():
                    await self._judging(job).mended(send)
                else:
                    await self._judging(job).live(send)
            except BaseException as error:
                if stream.started:
                    await stream.fail(encoder.error(told(presence.ended or error)))
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
            await self._service.books.open(job)
            if job.calls[0].watch.json is None:
                await self._answer(job, deliver)
            else:
                await self._judging(job).mended(collect)
            await finish(live, exchange, job, encoder.answer(job.usage()))

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
                if job.committed or not await moved(self._service, job, error, partial(self._begin, job)):
                    raise

    async def _begin(self, job: Job, candidate: Candidate) -> None:
        assert job.request is not None
        job.candidate = candidate
        await self._plan(job, job.request)

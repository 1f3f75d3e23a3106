"""The edge as an ASGI application: inputs, result URLs, refusals.

Rule: an input ends with the client that sent it, if that leaves before it was answered or redirected; a
result URL may be left and asked again. An answer goes to one reader, once. Requests are read whole before
they become inputs, answers are passed on as they come. Sources of what is imitated:
``gateway/core/modal.py``.
"""

from __future__ import annotations

import asyncio
import random
import string
from collections.abc import Mapping
from dataclasses import asdict
from hmac import compare_digest
from typing import Any
from urllib.parse import parse_qs

import orjson

from gateway.core import modal
from gateway.core.errors import RequestTimeout, TooLarge
from gateway.http.exchange import ClientGone, Presence, Receive, Scope, Send, read_body
from gateway.simulate import faults
from gateway.simulate.call import App, Call, Cut, Interrupted, ask
from gateway.simulate.faults import FAULTS, Answer, Misspelt, Wish
from gateway.simulate.journal import Journal
from gateway.simulate.options import Options
from gateway.simulate.pool import Event, Pool, What
from gateway.simulate.wire import asked, credentials, result_url, send_whole
from gateway.upstreams.client import BadAnswer

STATE_PATH = "/_simulate"
RESET = "simulate.reset"  # key of the scope: a function that resets the connection
MAX_BODY = 64 << 20  # bytes of a request; Modal takes 4 GiB
KEPT = 600.0  # seconds that a result waits for somebody to fetch it
ID_LENGTH = 22
NOT_BOOTED = modal.RAISED.format(error="RuntimeError('the container failed to boot')")
REFUSED: Mapping[What, int] = {
    What.not_ready: modal.NOT_READY,
    What.busy: modal.LIMITED,
    What.full: modal.LIMITED,
}


class _Reset(Exception):
    """The connection is to be reset: it gets no answer, or no more of it."""


class Edge:
    """Serve it with a lifespan: inputs run in the task group that this opens."""

    def __init__(self, app: App, options: Options, journal: Journal) -> None:
        self._app = app
        self._options = options
        self._journal = journal
        self._random = random.Random(options.seed)
        self._pool = Pool(options, self._random.uniform)
        self._calls: dict[str, Call] = {}
        self._timer: asyncio.TimerHandle | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._lifespan(receive, send)
            return
        try:
            await self._http(scope, receive, send)
        except ClientGone:
            return
        except (_Reset, asyncio.CancelledError):  # cancelled: the server ends
            scope[RESET]()
            while (await receive())["type"] != "http.disconnect":
                pass

    def state(self) -> dict[str, Any]:
        """What there is now, and the counts since the start."""
        pool, counts = self._pool, self._journal.counts
        return {
            "mode": self._options.mode.value,
            "containers": {"booting": pool.booting, "ready": pool.ready},
            "inputs": {"queued": pool.queued, "running": pool.running, "open": len(self._calls)},
            **asdict(counts),
            "refused": dict(counts.refused),
        }

    async def _lifespan(self, receive: Receive, send: Send) -> None:
        await receive()
        self._loop = asyncio.get_running_loop()
        async with asyncio.TaskGroup() as group:
            self._group = group
            await send({"type": "lifespan.startup.complete"})
            await receive()
            for call in list(self._calls.values()):
                self._drop(call)
            if self._timer is not None:
                self._timer.cancel()
        await send({"type": "lifespan.shutdown.complete"})

    # --- requests ---

    async def _http(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["path"] == STATE_PATH:
            body = orjson.dumps(self.state()).decode()
            await send_whole(send, Answer(200, body, "application/json"))
            return
        head: dict[bytes, bytes] = dict(scope["headers"])
        try:
            wish = faults.wish(head.get(faults.HEADER, b"").decode("latin-1"))
            found = self._refusal(head, wish) or await self._found(scope, receive, head, wish)
        except (Misspelt, TooLarge, RequestTimeout) as exc:
            found = Answer(getattr(exc, "status", 400), f"{exc}\n")
        if isinstance(found, Call):
            await self._attend(found, scope, receive, send)
            return
        self._journal.counts.refused[str(found.status)] += 1
        self._journal.note("request refused", status=found.status)
        await send_whole(send, found)

    def _refusal(self, head: Mapping[bytes, bytes], wish: Wish) -> Answer | None:
        """What the edge says before it looks for a container, if anything. Raises ``_Reset``."""
        if self._options.credentials is not None:
            given = credentials(head)
            if given is None:
                return FAULTS["missing-credentials"].answer
            if not compare_digest(given, ".".join(self._options.credentials).encode()):
                return FAULTS["invalid-credentials"].answer
        fault = wish.at("edge")
        if fault is not None and fault.answer is None:
            self._journal.counts.refused["reset"] += 1
            self._journal.note("connection reset")
            raise _Reset
        return None if fault is None else fault.answer

    async def _found(
        self, scope: Scope, receive: Receive, head: Mapping[bytes, bytes], wish: Wish
    ) -> Call | Answer:
        """The input that a request makes or asks for. Raises ``GatewayError`` and ``ClientGone``."""
        query = parse_qs(scope["query_string"].decode("latin-1"))
        if modal.CALL_PARAMETER in query:
            return self._promised(scope["method"], query[modal.CALL_PARAMETER][-1])
        body = await read_body(receive, head, MAX_BODY, None)
        call = Call(self._new_id(), asked(scope, body), wish)
        if len(self._calls) >= modal.MAX_INPUTS:
            return Answer(modal.LIMITED)
        self._calls[call.id] = call
        if wish.fault == "loop":
            self._journal.note("request never ends", input=call.id)
        else:
            events = self._pool.submit(self._loop.time(), call.id, wish)
            self._happened(events)
            status = next((REFUSED[each.what] for each in events if each.what in REFUSED), None)
            if status is not None:
                del self._calls[call.id]
                return Answer(status)
        self._journal.counts.requests += 1
        return call

    def _promised(self, method: str, id: str) -> Call | Answer:
        """The input behind a result URL."""
        if method != "GET":
            return Answer(400, modal.BAD_REDIRECT)
        call = self._calls.get(id)
        if call is None or call.reader is not None:
            return Answer(404, modal.UNKNOWN)
        self._journal.counts.polls += 1
        call.polls += 1
        self._journal.note("result asked for", input=id)
        if call.wish.fault == "repoll" and call.polls == 1:
            return Answer(modal.REPOLL_STATUS, modal.LOST)
        return call

    async def _attend(self, call: Call, scope: Scope, receive: Receive, send: Send) -> None:
        """Let this request have the answer, or tell it where to ask.

        If it is the one that made the input, its leaving ends that.
        """
        first = call.polls == 0
        call.readers += 1
        if call.expiry is not None:
            call.expiry.cancel()
        settled = False
        try:
            with Presence(receive):
                settled = await self._deliver(call, scope, send)
        finally:
            call.readers -= 1
            if call.id in self._calls:
                if not settled:
                    self._left(call, first=first, reading=call.reader is scope)
                if call.id in self._calls and not call.readers:
                    call.expiry = self._loop.call_later(KEPT, self._expire, call)

    def _left(self, call: Call, *, first: bool, reading: bool) -> None:
        if first:
            self._drop(call)
            self._journal.counts.cancelled += 1
            self._journal.note("client left", input=call.id)
            return
        if reading:
            call.forget()  # it runs on in its container, for nobody
        self._journal.note("result URL left", input=call.id)

    async def _deliver(self, call: Call, scope: Scope, send: Send) -> bool:
        """Answer this request; always true, which only a request that is not cut short gets to say."""
        patience = self._options.edge_timeout if self._options.queues else None
        if not await call.ready(patience):
            self._journal.counts.redirects += 1
            self._journal.note("303", input=call.id)
            location = result_url(call, scope)
            await send_whole(send, Answer(modal.POLL_STATUS), [(b"location", location.encode("latin-1"))])
        elif call.reader is not None:
            await send_whole(send, Answer(404, modal.UNKNOWN))
        else:
            call.reader = scope
            await self._pass_on(call, send)
        return True

    async def _pass_on(self, call: Call, send: Send) -> None:
        try:
            if not call.begun:
                raise Cut
            await send({"type": "http.response.start", "status": call.status, "headers": call.headers})
            while data := await call.read():
                await send({"type": "http.response.body", "body": data, "more_body": True})
        except Cut:
            self._done(call, "answer cut")
            self._journal.counts.cut += 1
            if not call.begun:
                raise _Reset from None
            return  # uvicorn closes a connection whose answer has no end
        self._done(call, "answered")
        self._journal.counts.answered += 1
        await send({"type": "http.response.body", "body": b""})

    def _done(self, call: Call, event: str) -> None:
        del self._calls[call.id]
        self._journal.note(event, input=call.id, status=call.status)

    # --- inputs ---

    def _new_id(self) -> str:
        return "fc-" + "".join(self._random.choices(string.ascii_letters + string.digits, k=ID_LENGTH))

    def _happened(self, events: list[Event]) -> None:
        """Do what follows from these, and wake up for the next."""
        for event in events:
            self._journal.happened(event)
            call = self._calls.get(event.input)
            if call is None:
                continue
            match event.what:
                case What.started:
                    call.runner = self._group.create_task(self._run(call))
                case What.requeued:
                    call.stop()
                case What.cut:
                    call.stop()
                    call.cut()
                case What.timed_out:
                    call.stop()
                    call.answer(Answer(500, modal.TIMED_OUT))
                case What.given_up:
                    call.answer(Answer(500, NOT_BOOTED))
        self._wake()

    def _wake(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        due = self._pool.due()
        self._timer = None if due is None else self._loop.call_at(due, self._tick)

    def _tick(self) -> None:
        self._happened(self._pool.advance(self._loop.time()))

    async def _run(self, call: Call) -> None:
        """One input in its container."""
        fault = call.wish.at("container")
        try:
            if fault is not None and fault.answer is not None:
                call.answer(fault.answer)
            elif call.wish.fault == "crash-early" and not call.crashed:
                raise Interrupted("crash")
            else:
                self._journal.counts.generations += 1
                await ask(call, self._app, lambda: self._pool.began(call.id))
        except Interrupted as due:
            if str(due) == "crash":
                call.crashed = True
                self._happened(self._pool.crash(self._loop.time(), call.id))
                return
            call.cut()
        except (OSError, BadAnswer) as exc:
            self._journal.note("app failed", input=call.id, error=type(exc).__name__)
            call.answer(Answer(500, modal.RAISED.format(error=f"{type(exc).__name__}()")))
        self._happened(self._pool.end(self._loop.time(), call.id))

    def _drop(self, call: Call) -> None:
        """Nobody waits for it any more."""
        del self._calls[call.id]
        call.stop()
        self._happened(self._pool.end(self._loop.time(), call.id))

    def _expire(self, call: Call) -> None:
        if call.finished or call.wish.fault == "loop":
            self._drop(call)
            self._journal.counts.dropped += 1
        else:
            call.expiry = self._loop.call_later(KEPT, self._expire, call)

"""Upstream kind ``modal``: a deployed Modal function or class, called through Modal's SDK instead of its web.

Rule: a whole answer is a spawned call, which is cancelled when its client leaves. A streamed one is the same
call writing pieces to a queue (``stream: queue``), or a remote generator, which Modal cannot cancel. What the
function gives is text, the contract's dict, or pieces of either, and nothing else. Knows nothing about chats,
templates or HTTP.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from dataclasses import replace
from typing import Any, TypeAlias

from orjson import JSONEncodeError, dumps, loads

from gateway.core.call import Call, PromptCall
from gateway.core.decode import fields
from gateway.core.decode.failure import Place
from gateway.core.decode.prompt import PromptDecoder, Shape
from gateway.core.errors import GatewayError, NoContainer, UpstreamError
from gateway.core.events import Batch, Finish
from gateway.upstreams import Observed, Traffic
from gateway.upstreams.body import encoded, fields_of, rename
from gateway.upstreams.modal_sdk.app import App
from gateway.upstreams.modal_sdk.calls import END, Generated, Leaving, Passed, Pieces, Spawned, Waits
from gateway.upstreams.modal_sdk.config import ModalConfig
from gateway.upstreams.modal_sdk.errors import NotSpawnable

LOOK = 1.0  # seconds between two looks at whether a container runs
ALIVE = b"{}"  # an event that says nothing, after which an answer may be empty

Way: TypeAlias = Callable[[Call], AsyncGenerator[Batch, None]]

log = logging.getLogger("gateway")


class ModalUpstream:
    """One deployed function; see ``Upstream``. ``sdk``: the module ``modal``, or what has its shape."""

    def __init__(
        self, name: str, config: ModalConfig, *, model: str = "", at: str = "", sdk: Any = None
    ) -> None:
        self.name = name
        self.traits = config.traits
        self._config = config
        at = at or f"models.{model or name}.upstream"
        self._app = App(config, at, sdk)
        self._place = Place(at)
        self._shape = Shape.of(config.response_field, cumulative=config.cumulative, ends_at_eof=True)
        self._waits = Waits(config.first_event_timeout, config.idle_timeout, self._app.where)
        self._generates = config.stream == "generator"  # as far as is known
        self._scaling = asyncio.Lock()  # one change of the least number of containers at a time
        self._kept = 0  # containers that ``keep`` asked for last
        self._leaving = Leaving()

    async def events(self, call: Call) -> AsyncGenerator[Batch, None]:
        ways, begun = self._ways(call), False
        try:
            for way in ways:
                try:
                    async with aclosing(way(call)) as source:
                        async for batch in source:
                            begun = True
                            yield self._told(batch, call)
                    self._generates = way == self._generated
                    return
                except NotSpawnable:
                    if begun or way == ways[-1]:
                        raise
        except GatewayError as error:
            if error.code == "upstream_not_found":
                self._app.forget()  # it may have been deployed anew
            raise

    def body(self, call: Call) -> bytes:
        """What the function is given, as JSON."""
        if self._config.pass_ == "prompt":
            return dumps(call.prompt if isinstance(call, PromptCall) else "")
        given = fields_of(call)
        if "request_id" in self._config.request_fields:
            given["request_id"] = call.request_id
        return encoded(rename(given, self._config.request_fields))

    async def reachable(self) -> None:
        await self._app.find()

    async def observed(self) -> Observed | None:
        return await self._app.observed()

    async def wake(self) -> Observed:
        """Where no container runs and none is kept, raises the minimum to 1 until one runs, then lowers it.

        A minimum that somebody else has set is left as it is: it starts a container by itself.
        """
        if (seen := await self._app.observed()).runners:
            return seen
        raised = False
        try:
            async with asyncio.timeout(self._waits.first):
                async with self._scaling:
                    if not await self._app.least():
                        raised = True  # also if this is interrupted: Modal may have it by then
                        await self._app.keep(1)
                while True:
                    if (seen := await self._app.observed()).runners:
                        return seen
                    await asyncio.sleep(LOOK)
        except TimeoutError:
            raise NoContainer(
                f"No container of {self._app.where.name} has started.", retry="elsewhere"
            ) from None
        finally:
            if raised:
                await self._leaving.see_to(self._put_back())

    async def keep(self, containers: int) -> None:
        """From now on at least so many containers run; Modal forgets it at the next deployment."""
        async with self._scaling:
            self._kept = containers
            await self._app.keep(containers)

    def traffic(self) -> Traffic:
        return Traffic()  # its connections are the SDK's

    async def aclose(self) -> None:
        await self._leaving.aclose()

    # --- the ways of calling it ---

    def _ways(self, call: Call) -> list[Way]:
        """Which to try in turn; only the first call, or one after another deployment, needs the second."""
        match self._config.stream:
            case "queue" if call.stream:
                return [self._queued]
            case "auto":
                return [self._generated, self._whole] if self._generates else [self._whole, self._generated]
            case "generator":
                return [self._generated]
        return [self._whole]

    async def _whole(self, call: Call) -> AsyncGenerator[Batch, None]:
        spawned = Spawned(self._app.function, self._passed(call), self._waits)
        try:
            answer = await spawned.result()
            yield self._decoder().whole(self._payload(answer))
        finally:
            await self._leaving.see_to(spawned.end())

    async def _queued(self, call: Call) -> AsyncGenerator[Batch, None]:
        partition = (
            f"{call.request_id[:40]}-{secrets.token_hex(8)}"  # at most 64 bytes; retries have their own
        )
        pieces = Pieces(self._app.queue, partition, self._waits)
        spawned = Spawned(self._app.function, self._passed(call, partition=partition), self._waits)
        decoder, complete = self._decoder(), False
        try:
            getting = await spawned.taken()
            limit = spawned.left
            while (values := await pieces.next(getting, limit)) is not None:
                batch = decoder.feed([self._payload(value) for value in values])
                if complete := decoder.failed is None and (decoder.said or decoder.done):
                    batch += decoder.end()
                if batch:
                    yield batch
                if decoder.failed is not None:
                    raise decoder.failed
                if complete:
                    return
                limit = self._waits.idle if values else limit
            await spawned.result()
            raise fields.cut("its function returned before it wrote an end")
        finally:
            work = _left(spawned, pieces, complete=complete)
            if complete:  # its reader has all there is
                self._leaving.leave(work)
            else:
                await self._leaving.see_to(work)

    async def _generated(self, call: Call) -> AsyncGenerator[Batch, None]:
        generated = Generated(self._app.function, self._passed(call), self._waits)
        decoder = self._decoder()
        try:
            while (value := await generated.next()) is not END:
                if batch := decoder.feed([self._payload(value)]):
                    yield batch
            decoder.feed([ALIVE])
            yield decoder.end()
        finally:
            await self._leaving.see_to(generated.end())

    def _decoder(self) -> PromptDecoder:
        return PromptDecoder(self._shape, self._place)

    def _passed(self, call: Call, **ours: Any) -> Passed:
        """Plain values, those of ``body``."""
        given = loads(self.body(call))
        return Passed((), given | ours) if self._config.pass_ == "fields" else Passed((given,), ours)

    def _payload(self, value: Any) -> bytes:
        """One answer or piece as the decoder reads it. Raises ``UpstreamError``."""
        if isinstance(value, bytes):  # our own container's pieces are encoded
            return value
        if isinstance(value, str):
            for part in reversed(self._shape.path):
                value = [None] * part + [value] if isinstance(part, int) else {part: value}
        try:
            return dumps(value)
        except JSONEncodeError:
            raise UpstreamError(
                f"{self._app.where.name} gave {type(value).__name__[:40]}: neither text nor plain data.",
                code="upstream_bad_response",
            ) from None

    def _told(self, batch: Batch, call: Call) -> Batch:
        """With the arguments that the function was not given, once the answer ends."""
        end = batch[-1]
        if self._config.pass_ != "prompt" or not isinstance(end, Finish) or not isinstance(call, PromptCall):
            return batch
        unsent = tuple(name for name in call.arguments if name != "stop")  # stops are kept to here
        return [*batch[:-1], replace(end, ignored=(*end.ignored, *unsent))] if unsent else batch

    async def _put_back(self) -> None:
        """Undo what a waking did, and nothing else."""
        try:
            async with self._scaling:
                if not self._kept and await self._app.least() == 1:
                    await self._app.keep(0)
        except GatewayError as error:
            log.warning("min_containers of %s could not be put back: %s", self._app.where.name, error.message)


async def _left(spawned: Spawned, pieces: Pieces, *, complete: bool) -> None:
    """``complete``: the answer was read to its end, so the call is about to end by itself."""
    await spawned.end(returns=complete)
    await pieces.end(clear=not complete)

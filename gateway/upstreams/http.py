"""One call to an HTTP upstream: send it, follow Modal's result URL, give its events.

Rule: whoever opens, closes, in the same function; closing awaits nothing, so a call that is cancelled
leaves no socket behind at any point. Credentials go to the configured host and nowhere else. A call whose
result Modal has promised is never sent again: that would be a second generation.
Knows nothing about prompts, chats, or what an event means.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import suppress
from typing import TypeAlias

import aiohttp
from yarl import URL

from gateway.core.decode.failure import Place
from gateway.core.errors import GatewayError, UpstreamError
from gateway.core.events import Batch
from gateway.upstreams import edge
from gateway.upstreams.connections import Connections
from gateway.upstreams.endpoint import Endpoint
from gateway.upstreams.reading import Answer, Body, Reading, no_event

MAX_REFUSAL = 64 << 10  # bytes read of an error's body
REFUSAL_TIMEOUT = 5.0  # seconds for them once the headers came
REPOLL_PAUSE = 1.0  # seconds before a result URL that had nothing twice is asked again

Chooser: TypeAlias = Callable[[str], Reading]
"""How to read an answer of this content type (lower case, without parameters). Raises ``GatewayError``."""


class Calls:
    """The calls to one upstream."""

    def __init__(self, config: Endpoint, url: str, place: Place) -> None:
        self.connections = Connections(config, url, place)
        self._config = config
        self._place = place

    async def events(self, body: bytes, request_id: str, choose: Chooser) -> AsyncGenerator[Batch, None]:
        """Send ``body`` and give the events of the answer, one batch a read. Raises ``GatewayError``."""
        deadline = asyncio.get_running_loop().time() + self._config.first_event_timeout
        response = await self._open(body, request_id, deadline)
        open_body = Body(response, deadline)
        try:
            answer = Answer(open_body, choose(_content_type(response)), self._config, self._place)
            while not answer.ended:
                if batch := await answer.next():
                    yield batch
        except GatewayError as error:
            raise _not_again(error, response) from None
        finally:
            open_body.close()

    async def _open(self, body: bytes, request_id: str, deadline: float) -> aiohttp.ClientResponse:
        """The response whose body is an answer."""
        try:
            async with asyncio.timeout_at(deadline):
                response = await self.connections.post(body, request_id)
                if response.status == edge.POLL_STATUS:
                    response = await self._result(response, request_id)
                await self._accept(response)
                return response
        except TimeoutError:
            raise no_event(self._config, self._place) from None

    async def _result(self, response: aiohttp.ClientResponse, request_id: str) -> aiohttp.ClientResponse:
        """The response with the result that a 303 points at, asked for until there is one."""
        before = 0
        for _ in range(edge.MAX_HOPS):
            status = response.status
            try:
                url = response.url if status == edge.REPOLL_STATUS else self._target(response)
            finally:
                response.close()
            if status == before == edge.REPOLL_STATUS:
                await asyncio.sleep(REPOLL_PAUSE)
            before = status
            try:
                response = await self.connections.get(url, request_id)
            except GatewayError as error:
                error.retry = "never"
                raise
            if response.status not in (edge.POLL_STATUS, edge.REPOLL_STATUS):
                return response
        response.close()
        raise UpstreamError(
            f"The upstream's result was not ready after {edge.MAX_HOPS} redirects.", code="upstream_redirect"
        )

    def _target(self, response: aiohttp.ClientResponse) -> URL:
        """Where the result is. Raises if that is another host: our credentials must not go there."""
        own = self.connections.url
        try:
            target = response.url.join(URL(response.headers.get("Location", ""), encoded=True))
            same = (target.scheme, target.host, target.port) == (own.scheme, own.host, own.port)
        except ValueError:
            same = False
        if not same or target.user or "Location" not in response.headers:
            raise edge.redirected(self._place, response.status)
        return target

    async def _accept(self, response: aiohttp.ClientResponse) -> None:
        """Raise what the status and headers of a refusal mean; the response is closed then."""
        accepted = False
        try:
            if response.status not in (200, 201):
                raise _not_again(await self._refusal(response), response)
            if response.headers.get("Content-Encoding", "identity").strip().lower() != "identity":
                raise UpstreamError(
                    "The upstream compressed its answer although it was asked not to.",
                    code="upstream_bad_response",
                )
            accepted = True
        finally:
            if not accepted:
                response.close()

    async def _refusal(self, response: aiohttp.ClientResponse) -> GatewayError:
        body = bytearray()
        with suppress(aiohttp.ClientError, OSError):  # what came until then is enough
            async with asyncio.timeout(REFUSAL_TIMEOUT):
                while len(body) < MAX_REFUSAL and (chunk := await response.content.readany()):
                    body += chunk
        return edge.failure_of(self._place, response.status, response.headers, bytes(body[:MAX_REFUSAL]))


def _not_again(error: GatewayError, response: aiohttp.ClientResponse) -> GatewayError:
    if response.method == "GET":  # the result of a call that Modal runs, or ran
        error.retry = "never"
    return error


def _content_type(response: aiohttp.ClientResponse) -> str:
    return response.headers.get("Content-Type", "").partition(";")[0].strip().lower()

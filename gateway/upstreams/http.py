"""One call to an HTTP upstream: send it, follow Modal's result URL, give its events.

Rule: whoever opens, closes, in the same function; closing awaits nothing, so a call that is cancelled
leaves no socket behind at any point. Credentials go to the configured host and nowhere else. A call whose
result Modal has promised is never sent again: that would be a second generation.
Knows nothing about prompts, chats, or what an event means.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import suppress
from typing import TypeAlias

from gateway.core import modal
from gateway.core.call import Call
from gateway.core.decode import edge
from gateway.core.decode.failure import Place
from gateway.core.errors import GatewayError, UpstreamError
from gateway.core.events import Batch
from gateway.upstreams import Traffic
from gateway.upstreams.client import BadAnswer, Response
from gateway.upstreams.connections import Connections
from gateway.upstreams.endpoint import Endpoint
from gateway.upstreams.patience import Patience
from gateway.upstreams.reading import Answer, Reading, Waits

MAX_REFUSAL = 64 << 10  # bytes read of an error's body
MAX_GREETING = 512  # bytes read of what an app says to a request that asks for nothing
REFUSAL_TIMEOUT = 5.0  # seconds for them once the headers came
REPOLL_PAUSE = 1.0  # seconds before a result URL that had nothing twice is asked again
QUICK_HOPS = 10  # redirects that are followed at once; later ones each take a pause's time at least
NOT_YET = (modal.REPOLL_STATUS, modal.LIMITED, modal.NOT_READY)  # of a result: asked for again
SESSION = modal.SESSION_HEADER.lower()

Chooser: TypeAlias = Callable[[str], Reading]
"""How to read an answer of this content type (lower case, without parameters). Raises ``GatewayError``."""


class Calls:
    """The calls to one upstream."""

    def __init__(self, config: Endpoint, url: str, place: Place) -> None:
        self.connections = Connections(config, url, place)
        self._waits = Waits(config.first_event_timeout, config.idle_timeout, place)
        self._place = place
        self.hops = 0  # addresses of results that were followed

    async def events(self, body: bytes, call: Call, choose: Chooser) -> AsyncGenerator[Batch, None]:
        """Send ``call`` as ``body`` and give the events of the answer, one batch a read.

        Raises ``GatewayError``.
        """
        headers = _headers(call)
        patience = Patience(self._waits.first)
        response = None
        try:
            response = await self._open(body, headers, patience)
            patience.watch(response.close)
            answer = Answer(response, patience, choose(_content_type(response)), self._waits)
            while not answer.ended:
                if batch := await answer.next():
                    yield batch
        except GatewayError as error:
            raise _not_again(error, response) from None
        finally:
            patience.stop()
            if response is not None:
                response.close()

    async def _open(self, body: bytes, headers: Mapping[str, str], patience: Patience) -> Response:
        """The response whose body is an answer."""
        promised = False
        try:
            response = await self.connections.post(body, headers)
            if response.status == modal.POLL_STATUS:
                promised = True
                response = await self._result(response, headers)
            if response.status != 200 or "content-encoding" in response.headers:
                await self._accept(response)
            return response
        except asyncio.CancelledError:
            if patience.took():
                raise self._waits.no_event("never" if promised else "elsewhere") from None
            raise

    async def _result(self, response: Response, headers: Mapping[str, str]) -> Response:
        """The response with the result that a 303 points at, asked for until there is one."""
        before, url = 0, self.connections.url
        loop = asyncio.get_running_loop()
        for hop in itertools.count(1):
            status = response.status
            location = response.headers.get("location")
            response.close()
            if status in NOT_YET and (status != modal.REPOLL_STATUS or before == status):
                await asyncio.sleep(REPOLL_PAUSE)
            if status == modal.POLL_STATUS:
                url = self._followed(url, location, status)
                self.hops += 1
            before, asked = status, loop.time()
            try:
                response = await self.connections.get(url, headers)
            except GatewayError as error:
                _taken(error)
                raise
            if response.status != modal.POLL_STATUS and not _not_yet(response):
                return response
            if hop > QUICK_HOPS:  # an edge that is well takes minutes for one; the deadline ends a loop
                await asyncio.sleep(asked + REPOLL_PAUSE - loop.time())
        raise AssertionError("the count has no end")

    async def wake(self) -> None:
        """Ask for the address itself: an edge starts a container for it, and the app has nothing to do.

        Whatever the app says to a GET means that it is there. Raises ``GatewayError`` where the edge answers,
        or what is at another host.
        """
        response = await self.connections.get(self.connections.url, {})
        if modal.CALL_PARAMETER in response.headers.get("location", ""):  # the container is yet to come
            response = await self._result(response, {})
        try:
            if 300 <= response.status < 400:
                self._followed(self.connections.url, response.headers.get("location"), response.status)
            body = await _begins(response, MAX_REFUSAL if response.status >= 300 else MAX_GREETING)
            if error := edge.absent(self._place, response.status, response.headers, body):
                raise error
        finally:
            response.close()

    def _followed(self, base: str, location: str | None, status: int) -> str:
        """Where the result is. Raises if that is another host: our credentials must not go there."""
        if (url := self.connections.same_host(base, location)) is None:
            raise edge.redirected(self._place, status)
        return url

    async def _accept(self, response: Response) -> None:
        """Raise what the status and headers of a refusal mean; the response is closed then."""
        accepted = False
        try:
            if response.status not in (200, 201):
                raise _not_again(await self._refusal(response), response)
            if response.headers.get("content-encoding", "identity").strip().lower() != "identity":
                raise UpstreamError(
                    "The upstream compressed its answer although it was asked not to.",
                    code="upstream_bad_response",
                )
            accepted = True
        finally:
            if not accepted:
                response.close()

    async def _refusal(self, response: Response) -> GatewayError:
        body = await _begins(response, MAX_REFUSAL)
        return edge.failure_of(self._place, response.status, response.headers, body)


def traffic(*each: Calls) -> Traffic:
    """Of all of these."""
    return Traffic(sum(calls.connections.open for calls in each), sum(calls.hops for calls in each))


async def _begins(response: Response, most: int) -> bytes:
    """At most so many bytes of a body, and what came until then if the rest takes long."""
    body = bytearray()
    with suppress(OSError, BadAnswer):
        async with asyncio.timeout(REFUSAL_TIMEOUT):
            while len(body) < most and (chunk := await response.read()):
                body += chunk
    return bytes(body[:most])


def _not_again(error: GatewayError, response: Response | None) -> GatewayError:
    return _taken(error) if response is not None and response.method == "GET" else error


def _taken(error: GatewayError) -> GatewayError:
    """Of a call whose result is asked for: Modal runs it, or ran it."""
    error.retry, error.reached = "never", True
    return error


def _headers(call: Call) -> dict[str, str]:
    """The headers that change from call to call."""
    headers = {"x-request-id": call.request_id}
    if call.sender.session is not None:
        headers[SESSION] = call.sender.session
    if call.sender.trace is not None:
        headers["traceparent"], state = call.sender.trace
        if state:
            headers["tracestate"] = state
    return headers


def _not_yet(response: Response) -> bool:
    """Whether the edge, not the app, puts a request for a result off: the result is still to come."""
    return response.status in NOT_YET and not _content_type(response).endswith("json")


def _content_type(response: Response) -> str:
    return response.headers.get("content-type", "").partition(";")[0].strip().lower()

"""Requests to the endpoint under examination, over httpx.

Rule: bounded. So many requests, so many bytes of each answer, so many seconds in all; redirects are followed
as Modal's edge means them (303, with GET) and only to the same host, because the headers may hold secrets.
The first request waits for a container, however long that shows as redirects, refusals or silence.
Knows nothing about what an answer means.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from typing import Any

import httpx
from orjson import JSONDecodeError, loads

from gateway.core import modal

MAX_REQUESTS = 80
MAX_BODY = 4 << 20  # bytes of one answer
MAX_REDIRECTS = 20  # Modal answers with one after every 150 seconds
LATE = "no answer in time (--timeout allows more)"
GLANCE = 0.25  # seconds a whole answer is awaited before its connection is closed


class NoAnswer(Exception):
    """The endpoint could not be asked, or its answer did not come whole; the message is one line."""


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer as it came. ``kind``: its content type in lower case, without parameters."""

    status: int
    kind: str
    body: bytes


def _nobody(line: str) -> None:
    pass


@dataclass(frozen=True, slots=True)
class Waiting:
    """For a container: ``seconds`` beside those of the first answer, and who is told that it takes long."""

    seconds: float = 0.0
    tell: Callable[[str], None] = _nobody
    silence: float = 5.0  # seconds without an answer, until that is told
    pause: float = 1.0  # seconds between two requests that are refused for lack of a container


class Client:
    """Posts JSON to one address. Every method raises ``NoAnswer``."""

    def __init__(self, http: httpx.AsyncClient, url: str, timeout: float, waiting: Waiting) -> None:
        """``timeout``: seconds for one answer from beginning to end."""
        self._http = http
        self._url = httpx.URL(url)
        self._timeout = timeout
        self._waiting = waiting
        self._awake = False  # it has answered, so there was a container
        self.requests = 0  # sent so far; those that no container was there for count as one

    async def post(self, body: Mapping[str, Any]) -> Reply:
        """The complete answer to ``body``."""
        self._count()
        if self._awake:
            return await self._asked(body, self._timeout)
        reply = await self._first(body)
        self._awake = True
        return reply

    async def _first(self, body: Mapping[str, Any]) -> Reply:
        """Asked again and again while the answer is that there is no container."""
        wait, clock = self._waiting, asyncio.get_running_loop().time
        began = clock()
        ends = began + wait.seconds
        with self._telling_of_silence():
            reply = await self._asked(body, wait.seconds + self._timeout)
        if not _asleep(reply):
            return reply
        wait.tell(f"no container is ready; waiting for one, at most {wait.seconds:g} s")
        while _asleep(reply):
            if clock() + wait.pause > ends:
                raise NoAnswer(f"no container was ready within {wait.seconds:g} s (--wait allows more)")
            await asyncio.sleep(wait.pause)
            reply = await self._asked(body, ends - clock() + self._timeout)
        wait.tell(f"a container answered after {clock() - began:.0f} s")
        return reply

    @contextmanager
    def _telling_of_silence(self) -> Iterator[None]:
        most = self._timeout + self._waiting.seconds
        line = f"no answer yet; a container may be starting. Waiting, at most {most:g} s"
        timer = asyncio.get_running_loop().call_later(self._waiting.silence, self._waiting.tell, line)
        try:
            yield
        finally:
            timer.cancel()

    async def _asked(self, body: Mapping[str, Any], seconds: float) -> Reply:
        try:
            async with asyncio.timeout(seconds), self._open(body) as answer:
                content = await _content(answer)
        except TimeoutError:
            raise NoAnswer(LATE) from None
        kind = answer.headers.get("content-type", "").partition(";")[0].strip().lower()
        return Reply(answer.status_code, kind, content)

    def _count(self) -> None:
        self.requests += 1
        if self.requests > MAX_REQUESTS:
            raise NoAnswer(f"{MAX_REQUESTS} requests were sent; no more are")

    async def leave(self, body: Mapping[str, Any], *, streamed: bool) -> None:
        """Ask, and close the connection: after a stream's first bytes, or without awaiting a whole answer."""
        self._count()
        with suppress(TimeoutError):
            async with asyncio.timeout(self._timeout if streamed else GLANCE), self._open(body) as answer:
                async for _ in answer.aiter_bytes():
                    break

    @asynccontextmanager
    async def _open(self, body: Mapping[str, Any]) -> AsyncIterator[httpx.Response]:
        request = self._http.build_request("POST", self._url, json=body)
        try:
            for _ in range(MAX_REDIRECTS):
                answer = await self._http.send(request, stream=True)
                try:
                    if answer.status_code != 303:
                        yield answer
                        return
                    request = self._http.build_request("GET", self._same_host(answer))
                finally:
                    await answer.aclose()
        except httpx.HTTPError as exc:
            raise NoAnswer(_why(exc)) from None
        raise NoAnswer(f"it answered with more than {MAX_REDIRECTS} redirects")

    def _same_host(self, answer: httpx.Response) -> httpx.URL:
        target = answer.url.join(answer.headers.get("location", ""))
        if (target.scheme, target.host, target.port) != (self._url.scheme, self._url.host, self._url.port):
            raise NoAnswer(f"it redirects to another host, {target.host}")
        return target


async def _content(answer: httpx.Response) -> bytes:
    parts: list[bytes] = []
    size = 0
    async for part in answer.aiter_bytes():
        parts.append(part)
        size += len(part)
        if size > MAX_BODY:
            raise NoAnswer(f"its answer is larger than {MAX_BODY >> 20} MiB")
    return b"".join(parts)


def _asleep(reply: Reply) -> bool:
    """The refusal of a Modal Server without a container; an app of its own says more, in JSON."""
    if reply.status != modal.NOT_READY:
        return False
    try:
        loads(reply.body)
    except JSONDecodeError:
        return True
    return False


def _why(exc: httpx.HTTPError) -> str:
    if isinstance(exc, httpx.TimeoutException):
        return LATE
    if isinstance(exc, httpx.ConnectError):
        refused = isinstance(_first(exc), ConnectionRefusedError)
        return f"cannot connect: {'nobody listens there' if refused else exc}"
    return f"the answer was cut: {type(exc).__name__}"


def _first(exc: BaseException) -> BaseException:
    """What went wrong first, below what was made of it."""
    while (below := exc.__cause__ or exc.__context__) is not None:
        exc = below
    return exc

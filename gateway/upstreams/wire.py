"""Calls and raw answers on standard error, for who looks for a fault; switched on by ``server.show_wire``.

Rule: no header and no address is shown, and every secret of the configuration, whosever it is, is blanked
wherever it stands. Lines are shown when they are whole, so that none is cut within a secret; each is bounded,
and so is a call.
Where it is off nothing of it runs but one look for each answer's headers.
"""

from __future__ import annotations

import json
import re
from collections.abc import AsyncGenerator, Callable, Collection, Iterator, Mapping
from contextlib import aclosing, suppress
from contextvars import ContextVar
from typing import TypeAlias
from urllib.parse import parse_qs, unquote, urlsplit

from pydantic import BaseModel, SecretStr

from gateway.core.call import Call, PromptCall
from gateway.core.events import Batch
from gateway.upstreams import Upstream
from gateway.upstreams.client import Response

MAX_LINE = 4096  # characters of one line
MAX_CALL = 256 << 10  # characters of one call and its answer
MAX_HELD = 1 << 20  # bytes of a line that has no end yet
SHORTEST = 4  # characters of a secret; what is shorter stands everywhere by chance
_SCHEME = re.compile(r"(?:basic|bearer|token) +(.+)", re.IGNORECASE)  # `Authorization` among `headers`

Print: TypeAlias = Callable[[str], object]


class Tap:
    """What is shown of one call; ``name`` begins each line."""

    def __init__(self, name: str, secrets: frozenset[str], show: Print) -> None:
        self._name = name
        self._secrets = sorted(secrets, key=len, reverse=True)  # one may hold another
        self._show = show
        self._held = b""
        self._left = MAX_CALL

    def say(self, mark: str, text: str) -> None:
        """Show every line of this; ``mark`` says what it is."""
        for line in text.split("\n"):
            if self._left <= 0:
                return
            self._left -= min(len(line), MAX_LINE) + 1
            self._show(f"{self._name} {mark} {self._plain(line)}")
            if self._left <= 0:
                self._show(f"{self._name} {mark} the rest of this call is not shown")

    def take(self, chunk: bytes) -> None:
        """Show what came of an answer, line by line; empty at its end."""
        *lines, held = (self._held + chunk).split(b"\n")
        if held and (not chunk or len(held) > MAX_HELD):
            lines.append(held)
            held = b""
        self._held = held
        for line in lines:
            if line:
                self.say("<", line.decode("utf-8", "replace"))

    def _plain(self, line: str) -> str:
        for secret in self._secrets:
            line = line.replace(secret, "***")
        if len(line) > MAX_LINE:
            line = f"{line[:MAX_LINE]} ... {len(line) - MAX_LINE} more characters"
        return "".join(each if each.isprintable() else ascii(each)[1:-1] for each in line)


TAP: ContextVar[Tap | None] = ContextVar("tap", default=None)
"""Of the call that runs here."""


class Tapped(Response):
    """An answer whose bytes are shown as they are read."""

    __slots__ = ("_tap",)

    def __init__(self, response: Response, tap: Tap) -> None:
        super().__init__(*response.parts())
        self._tap = tap
        tap.say("<", f"{self.status} {self.headers.get('content-type', '')}")

    async def read(self) -> bytes:
        chunk = await super().read()
        self._tap.take(chunk)
        if chunk and self.complete:
            self._tap.take(b"")
        return chunk


def tapped(response: Response) -> Response:
    """The same answer, shown if its call is."""
    tap = TAP.get()
    return response if tap is None else Tapped(response, tap)


def shown(
    upstream: Upstream, secrets: Callable[[], frozenset[str]], show: Print
) -> Callable[[Call], AsyncGenerator[Batch, None]]:
    """Like the upstream's ``events``, with all of it shown but the ``secrets`` known when a call begins."""

    async def events(call: Call) -> AsyncGenerator[Batch, None]:
        tap = Tap(f"{call.request_id} {upstream.name}", secrets(), show)
        if isinstance(call, PromptCall):
            tap.say("|", call.prompt)
        tap.say(">", upstream.body(call).decode("utf-8", "replace"))
        token = TAP.set(tap)
        try:
            async with aclosing(upstream.events(call)) as source:
                async for batch in source:
                    for event in batch:
                        tap.say("=", repr(event))
                    yield batch
        finally:
            with suppress(ValueError):  # another task closes this
                TAP.reset(token)

    return events


def secrets_in(value: object) -> frozenset[str]:
    """Every secret within a configuration, as lines may hold it, and those that are parts of it."""
    return frozenset(
        spelled
        for secret in _secrets(value)
        for each in (secret, *_parts(secret))
        for spelled in (each, json.dumps(each)[1:-1], json.dumps(each, ensure_ascii=False)[1:-1])
        if len(each) >= SHORTEST
    )


def _secrets(value: object) -> Iterator[str]:
    if isinstance(value, SecretStr):
        yield value.get_secret_value()
        return
    inner: object = value
    if isinstance(value, BaseModel):
        inner = [each for _, each in value]
    elif isinstance(value, Mapping):
        inner = value.values()
    if isinstance(inner, Collection) and not isinstance(inner, str):
        for each in inner:
            yield from _secrets(each)


def _parts(secret: str) -> Iterator[str]:
    """What is secret by itself in the value of a header, and in an address such as a database's."""
    if credentials := _SCHEME.fullmatch(secret):
        yield credentials[1]
    try:
        parts = urlsplit(secret)
    except ValueError:
        return
    if parts.password:
        yield from (parts.password, unquote(parts.password))
    options = parse_qs(parts.query)
    yield from (*options.get("password", ()), *options.get("sslpassword", ()))

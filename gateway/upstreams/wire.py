"""Calls and raw answers on standard error, for who looks for a fault; switched on by ``server.show_wire``.

Rule: no header and no address is shown, and the secrets of the configuration are blanked wherever they stand.
Lines are shown when they are whole, so that none is cut within a secret; each is bounded, and so is a call.
Where it is off nothing of it runs but one look for each answer's headers.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing, suppress
from contextvars import ContextVar
from typing import TypeAlias

from gateway.core.call import Call, PromptCall
from gateway.core.events import Batch
from gateway.upstreams import Upstream
from gateway.upstreams.client import Response
from gateway.upstreams.endpoint import Endpoint

MAX_LINE = 4096  # characters of one line
MAX_CALL = 256 << 10  # characters of one call and its answer
MAX_HELD = 1 << 20  # bytes of a line that has no end yet

Print: TypeAlias = Callable[[str], object]


class Tap:
    """What is shown of one call; ``name`` begins each line."""

    def __init__(self, name: str, secrets: tuple[str, ...], show: Print) -> None:
        self._name = name
        self._secrets = secrets
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


def shown(upstream: Upstream, config: object, show: Print) -> Callable[[Call], AsyncGenerator[Batch, None]]:
    """Like the upstream's ``events``, with everything shown. ``config`` is its entry, which has secrets."""
    secrets = _secrets(config)

    async def events(call: Call) -> AsyncGenerator[Batch, None]:
        tap = Tap(f"{call.request_id} {upstream.name}", secrets, show)
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


def _secrets(config: object) -> tuple[str, ...]:
    """The longest first: one may hold another."""
    if not isinstance(config, Endpoint):
        return ()
    given = (config.modal_key, config.modal_secret, config.api_key, *config.headers.values())
    known = {secret.get_secret_value() for secret in given if secret is not None}
    return tuple(sorted(filter(None, known), key=len, reverse=True))

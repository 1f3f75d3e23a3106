"""One input: its request, its answer as it comes, and who waits for it.

Rule: an answer begins once and ends once, whole or cut. It is read from the app at the pace of its reader,
plus ``AHEAD``. Every input has connections of its own to the app, closed when it ends or is cancelled: they
are what the app knows of it. Knows nothing about containers.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from urllib.parse import urlsplit

from gateway.simulate.faults import Answer, Wish
from gateway.upstreams.client import Client, Origin, Response

AHEAD = 4 << 20  # bytes of an answer that are kept for its reader
CONNECT_TIMEOUT = 5.0  # seconds
INTERRUPTIONS = ("crash", "cut", "stall")  # faults that come after an answer's first bytes
# Of one connection, not of the message (RFC 9110 7.6.1); `host` and the length are set anew.
HOP_BY_HOP = frozenset({
    "connection", "keep-alive", "proxy-connection", "te", "trailer", "transfer-encoding", "upgrade",
    "expect", "host", "content-length",
})  # fmt: skip


class Cut(Exception):
    """The answer ended before its end."""


class Interrupted(Exception):
    """A fault is due now; the message is its name."""


@dataclass(slots=True, frozen=True)
class App:
    """Where inputs go; ``prefix`` comes before their paths."""

    origin: Origin
    prefix: str = ""


def app_at(url: str) -> App:
    """The app of an ``http`` or ``https`` URL. Raises ``ValueError``."""
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.fragment:
        raise ValueError(url)
    tls = ssl.create_default_context() if parts.scheme == "https" else None
    port = parts.port or (443 if tls else 80)
    return App(Origin(parts.hostname, port, tls), parts.path.rstrip("/"))


@dataclass(slots=True, frozen=True)
class Asked:
    """A request, with headers that concern the app alone."""

    method: str
    target: str
    headers: Mapping[str, str]
    body: bytes


class Call:
    """One input."""

    def __init__(self, id: str, asked: Asked, wish: Wish) -> None:
        self.id = id
        self.asked = asked
        self.wish = wish
        self.status = 0
        self.headers: list[tuple[bytes, bytes]] = []
        self.runner: asyncio.Task[None] | None = None
        self.expiry: asyncio.TimerHandle | None = None
        self.readers = 0  # requests that wait for it, or are given it
        self.polls = 0
        self.reader: object = None  # the one that has the answer
        self.crashed = False
        self.ended = False
        self._cut = False
        self._forgotten = False  # whoever had the answer has left
        self._pieces: list[bytes] = []
        self._size = 0
        self._news = asyncio.Event()
        self._room = asyncio.Event()

    # --- who answers ---

    @property
    def begun(self) -> bool:
        return self.status != 0

    @property
    def finished(self) -> bool:
        """Nothing more will come."""
        return self.ended or self._cut

    def begin(self, status: int, headers: list[tuple[bytes, bytes]]) -> None:
        self.status, self.headers = status, headers
        self._news.set()

    async def put(self, piece: bytes) -> None:
        """Take in a piece; waits while the reader is far behind."""
        while self._size > AHEAD:
            self._room.clear()
            await self._room.wait()
        if self._forgotten:
            return
        self._pieces.append(piece)
        self._size += len(piece)
        self._news.set()

    def end(self) -> None:
        self.ended = not self._cut
        self._news.set()

    def cut(self) -> None:
        """End it here, whatever has come."""
        self._cut = not self.ended
        self._news.set()

    def answer(self, answer: Answer) -> None:
        """Answer with this instead; if the answer has begun, cut it."""
        if self.begun or self.finished:
            self.cut()
            return
        body = answer.text.encode()
        self._pieces.append(body)
        self.begin(answer.status, headers_of(answer))
        self.end()

    def stop(self) -> None:
        """Leave the app alone."""
        if self.runner is not None:
            self.runner.cancel()
            self.runner = None

    # --- who reads ---

    async def ready(self, seconds: float | None) -> bool:
        """Whether the answer began, or will never, within so many seconds; None waits for ever."""
        try:
            async with asyncio.timeout(seconds):
                while not self.begun and not self.finished:
                    self._news.clear()
                    await self._news.wait()
        except TimeoutError:
            return False
        return True

    def forget(self) -> None:
        """Nobody reads on: what comes from now is let go, so that the app is not held up."""
        self._forgotten = True
        self._pieces, self._size = [], 0
        self._room.set()

    async def read(self) -> bytes:
        """What came since the last read; ``b""`` at the end. Raises ``Cut``."""
        while not self._pieces:
            if self._cut:
                raise Cut
            if self.ended:
                return b""
            self._news.clear()
            await self._news.wait()
        data = b"".join(self._pieces)
        self._pieces, self._size = [], 0
        self._room.set()
        return data


def headers_of(answer: Answer) -> list[tuple[bytes, bytes]]:
    length = (b"content-length", b"%d" % len(answer.text.encode()))
    return [length, (b"content-type", answer.kind.encode())] if answer.text else [length]


async def ask(call: Call, app: App, began: Callable[[], None]) -> None:
    """Let the app answer; ``began`` is called when its answer does.

    Raises ``OSError`` or ``BadAnswer`` where the app fails, ``Interrupted`` for a fault.
    """
    asked = call.asked
    client = Client(app.origin, {}, CONNECT_TIMEOUT)
    headers = {**asked.headers, "connection": "close"}
    if asked.body and asked.method != "POST":  # the client gives a length to what it posts
        headers["content-length"] = str(len(asked.body))
    try:
        response = await client.request(asked.method, app.prefix + asked.target, headers, asked.body)
        call.begin(response.status, passed_on(response))
        began()
        await _copy(response, call)
    finally:
        client.close()


def passed_on(response: Response) -> list[tuple[bytes, bytes]]:
    """The headers of an answer without those of its connection."""
    kept = HOP_BY_HOP - {"content-length"}
    return [
        (name.encode("latin-1"), value.encode("latin-1"))
        for name, value in response.headers.items()
        if name not in kept
    ]


async def _copy(response: Response, call: Call) -> None:
    fault = call.wish.fault if call.wish.fault in INTERRUPTIONS else None
    while piece := await response.read():
        if fault is None:
            await call.put(piece)
        else:  # of an answer whose length is known, never all
            await call.put(piece[: len(piece) // 2] if "content-length" in response.headers else piece)
            break
    if fault == "stall":
        await asyncio.Event().wait()
    if fault is not None:
        raise Interrupted(fault)
    call.end()

"""What an endpoint answered: how it was framed, where its text is, what it said beside it.

Rule: looks, where the gateway trusts its configuration; what is found here becomes that configuration. An
answer without a text raises ``NoText``, one that reports an error ``Refused``.
Knows nothing about requests, or what the text should be.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, TypeAlias

from orjson import JSONDecodeError, loads

from gateway.conformance.client import NoAnswer, Reply
from gateway.core.decode.failure import reported
from gateway.core.errors import GatewayError
from gateway.core.sse import LineDecoder, SSEDecoder
from gateway.upstreams.framing import LINES, SSE, Framing

MAX_DEPTH = 5  # levels of an answer that are searched for its text
MAX_SHOWN = 100  # characters of a server's own words that are shown

Facts: TypeAlias = Mapping[str, Any]

TEXTS = (
    "prompt", "response", "prediction", "generated_text", "0.generated_text", "text", "text.0", "output",
    "result", "completion", "answer", "content", "predictions.0", "outputs.0.text", "choices.0.text",
    "choices.0.message.content", "choices.0.delta.content", "token.text", "delta",
)  # fmt: skip
"""Where endpoints put their text, the contract's place first."""

NO_TEXTS = frozenset({
    "created", "finish_reason", "history", "id", "model", "object", "request_id", "role", "status", "time",
    "timestamp", "type", "version",
})  # fmt: skip
"""Names of strings that are never the answer."""


class NoText(Exception):
    """An answer in which no text was found; the message is one line."""


class Refused(NoAnswer):
    """The endpoint reported an error. ``lasting``: the same request would fail again."""

    def __init__(self, reply: Reply) -> None:
        self.reply = reply
        self.lasting = reply.status < 300 or reply.status in (400, 415, 422, 500, 501)
        said = _said(reply.body)
        super().__init__(f"status {reply.status}" + (f": {said}" if said else ""))


@dataclass(frozen=True, slots=True)
class Answer:
    """``pieces``: the text of each event, in order; ``place``: where it was, None for bare text."""

    framing: Framing
    kind: str
    pieces: tuple[str, ...]
    place: str | None = None
    facts: Facts | None = None  # finish_reason, usage, ignored: the last of each that came
    done: bool = False  # [DONE] came

    @property
    def cumulative(self) -> bool:
        """Does each piece repeat those before it? Of fewer than two nobody can tell: False."""
        # A U+FFFD at the end is a character still in pieces, which the next piece has whole.
        ready = [piece.rstrip("\ufffd") for piece in self.pieces]
        pairs = list(pairwise(ready))
        return any(len(b) > len(a) for a, b in pairs) and all(b.startswith(a) for a, b in pairs)

    def text(self, *, cumulative: bool = False) -> str:
        return self.pieces[-1] if cumulative and self.pieces else "".join(self.pieces)

    def fact(self, name: str) -> Any:
        return (self.facts or {}).get(name)

    @property
    def marked(self) -> bool:
        """Does it say itself that it is complete?"""
        return self.done or self.fact("finish_reason") is not None


def read(reply: Reply, prompt: str, place: str | None = None) -> Answer:
    """The answer in ``reply``; its text is searched, at ``place`` first. Raises ``Refused``, ``NoText``."""
    if not 200 <= reply.status < 300:
        raise Refused(reply)
    framing = _framing(reply)
    if framing == "text":
        return Answer(framing, reply.kind, (_utf8(reply.body),))
    payloads = [reply.body] if framing == "whole" else _payloads(framing, reply.body)
    data = [_json(payload) for payload in payloads if payload.strip() not in (b"", b"[DONE]")]
    if any(reported(each) for each in data):
        raise Refused(reply)
    done = any(payload.strip() == b"[DONE]" for payload in payloads)
    found = _places(data, prompt, place)
    if found is None:
        raise NoText(_described(data))
    pieces = tuple(text for each in data if (text := at(each, found)))
    return Answer(framing, reply.kind, pieces, found, _facts(data, found), done)


def at(data: Any, place: str) -> str | None:
    """The text at a dotted path."""
    return dict(_leaves(data)).get(place)


def _framing(reply: Reply) -> Framing:
    """By content type; where that names no framing of texts, by how the body begins."""
    if reply.kind in SSE:
        return "sse"
    if reply.kind in LINES:
        return "ndjson"
    body = reply.body.strip()
    if _is_json(body):
        return "whole"
    if body.startswith((b"data:", b"event:", b":")):
        return "sse"
    lines = body.splitlines()
    if len(lines) > 1 and body.startswith(b"{") and all(_is_json(line) for line in lines if line.strip()):
        return "ndjson"
    if reply.kind == "text/html" and body.startswith(b"<"):
        raise NoText("its answer is a web page")
    if reply.kind.endswith("json"):
        raise NoText("it says that it is JSON and is not")
    return "text"


def _is_json(body: bytes) -> bool:
    """Is this a JSON object, array or string? A number alone may as well be bare text."""
    try:
        return body[:1] in (b"{", b"[", b'"') and loads(body) is not None
    except JSONDecodeError:
        return False


def _payloads(framing: Framing, body: bytes) -> list[bytes]:
    decoder = SSEDecoder() if framing == "sse" else LineDecoder()
    try:
        return [*decoder.feed(body), *decoder.feed(b"")] if body else []
    except GatewayError as error:
        raise NoText(error.message) from None


def _json(payload: bytes) -> Any:
    try:
        return loads(payload)
    except JSONDecodeError:
        raise NoText(f"an event of {len(payload)} bytes is not JSON{_why_not(payload)}") from None


def _why_not(payload: bytes) -> str:
    try:
        json.loads(payload)
    except ValueError:
        return ""
    return ": it holds half of a surrogate pair, or NaN"


def _utf8(body: bytes) -> str:
    try:
        return body.decode()
    except UnicodeDecodeError:
        raise NoText("its text is not UTF-8") from None


def _places(data: list[Any], prompt: str, first: str | None) -> str | None:
    """Where the text is; a copy of the prompt and nothing more is the text only if there is no other."""
    for each in data:
        leaves = {place: text for place, text in _leaves(each) if place.rpartition(".")[2] not in NO_TEXTS}
        if first in leaves:
            return first
        likely = [place for place in TEXTS if place in leaves]
        others = [place for place in likely if leaves[place] != prompt]
        if found := others or likely:
            return found[0]
        if len(leaves) == 1:
            return next(iter(leaves))
    return None


def _leaves(value: Any, path: str = "", depth: int = 0) -> Iterator[tuple[str, str]]:
    """Every text with its dotted path."""
    if isinstance(value, str):
        if path:
            yield path, value
        return
    inner: Iterable[tuple[Any, Any]] = ()
    if isinstance(value, dict):
        inner = value.items()
    elif isinstance(value, list):
        inner = enumerate(value[:8])
    for key, each in inner if depth < MAX_DEPTH else ():
        name = str(key)
        if name and not any(char == "." or char.isspace() for char in name):
            yield from _leaves(each, f"{path}.{name}" if path else name, depth + 1)


def _facts(data: list[Any], place: str) -> Facts:
    """What stands beside the text: at the top, next to it, or in ``details`` there (TGI)."""
    facts: dict[str, Any] = {}
    for each in data:
        holder = each
        for part in place.split(".")[:-1]:
            holder = _inner(holder, part)
        for beside in (each, holder):
            for object_ in (beside, _inner(beside, "details")):
                if isinstance(object_, dict):
                    known = {name: object_.get(name) for name in ("finish_reason", "usage", "ignored")}
                    facts |= {name: value for name, value in known.items() if value is not None}
    return facts


def _inner(value: Any, part: str) -> Any:
    if isinstance(value, dict):
        return value.get(part)
    if isinstance(value, list) and part.isdecimal() and int(part) < len(value):
        return value[int(part)]
    return None


def _described(data: list[Any]) -> str:
    first = data[0] if data else None
    if isinstance(first, str):
        return "its answer is a bare JSON string: give it as an object, or as text/plain"
    if isinstance(first, dict):
        return f"its answer holds no text that stands out; its keys: {shown(', '.join(first)) or 'none'}"
    return "its answer holds no text"


def _said(body: bytes) -> str:
    """What a refusal says, in one short line."""
    try:
        data = loads(body)
    except JSONDecodeError:
        return shown(body.decode(errors="replace")) if body[:1] != b"<" else ""
    if said := reported(data):
        return shown(said.message)
    match data:
        case {"detail": [{"msg": str(message), "loc": [*where]}, *_]}:  # FastAPI's 422
            return shown(f"{'.'.join(map(str, where))}: {message}")
        case {"detail": str(message)} | {"message": str(message)}:
            return shown(message)
    return ""


def shown(text: str) -> str:
    """A server's words as one line that a terminal can print."""
    line = " ".join("".join(char if char.isprintable() else " " for char in text).split())
    return line if len(line) <= MAX_SHOWN else line[:MAX_SHOWN] + "…"

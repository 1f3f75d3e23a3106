"""What a model says as output items of OpenAI's Responses API, and the events that tell of them.

Rule: one machine for both ways, so that a whole answer is the collected stream. A message or a reasoning item
ends when something else begins; function calls stay open until the end, because their arguments may come in
turns. After ``Finish`` every item has been ended, and none but the last is incomplete. Shapes:
https://platform.openai.com/docs/api-reference/responses-streaming Knows nothing of bytes or of the response
around the items.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from gateway.core.encode.bound import MAX_SIZE, PIECE
from gateway.core.errors import UpstreamError
from gateway.core.events import Event, Extra, Finish, Reasoning, Text, ToolArgs, ToolStart

Told: TypeAlias = tuple[str, dict[str, Any]]
"""The type of an event without ``response.``, and its fields but for type and number."""

HOLDER = {"output_text": "message", "refusal": "message", "reasoning_text": "reasoning"}
ID = {"message": "msg", "reasoning": "rs", "function_call": "fc"}
INCOMPLETE = {"length": "max_output_tokens", "content_filter": "content_filter"}
"""Finish reasons for which an answer is not complete, as this API calls them."""


@dataclass(slots=True)
class Part:
    """A piece of content that grows."""

    kind: str
    text: list[str] = field(default_factory=list)
    logprobs: list[Mapping[str, Any]] = field(default_factory=list)

    def fields(self) -> dict[str, Any]:
        text = "".join(self.text)
        if self.kind == "refusal":
            return {"type": "refusal", "refusal": text}
        if self.kind == "reasoning_text":
            return {"type": "reasoning_text", "text": text}
        return {"type": "output_text", "text": text, "annotations": [], "logprobs": list(self.logprobs)}


@dataclass(slots=True)
class Item:
    """An output item that grows; ``call`` and ``arguments`` are a function call's."""

    kind: str
    id: str
    index: int
    status: str = "in_progress"
    parts: list[Part] = field(default_factory=list)
    call: ToolStart | None = None
    arguments: list[str] = field(default_factory=list)

    def fields(self) -> dict[str, Any]:
        """The item as it is now."""
        same = {"id": self.id, "type": self.kind, "status": self.status}
        if self.call is not None:
            arguments = "".join(self.arguments)
            return {**same, "call_id": self.call.id, "name": self.call.name, "arguments": arguments}
        content = [part.fields() for part in self.parts]
        if self.kind == "reasoning":
            return {**same, "summary": [], "content": content}
        return {**same, "role": "assistant", "content": content}


class Output:
    """The items of one answer. ``suffix`` makes their ids unique."""

    def __init__(self, suffix: str) -> None:
        self._suffix = suffix
        self._items: list[Item] = []
        self._calls: dict[int, Item] = {}
        self._growing: Item | None = None  # the message or reasoning that the next piece may belong to
        self._size = 0
        self.reason: str | None = None  # why it ended

    @property
    def incomplete(self) -> str | None:
        """Why the answer is not complete, in this API's words."""
        return INCOMPLETE.get(self.reason or "")

    def items(self) -> list[dict[str, Any]]:
        """The items as they are now."""
        return [item.fields() for item in self._items]

    def ended(self) -> list[dict[str, Any]]:
        """Those items that will not change."""
        return [item.fields() for item in self._items if item.status != "in_progress"]

    def abandon(self) -> None:
        """Nothing more comes: what was still growing stays incomplete."""
        for item in self._items:
            if item.status == "in_progress":
                item.status = "incomplete"

    def growing(self) -> tuple[Item, str] | None:
        """The message or reasoning that grows, and the kind of its last part."""
        return (self._growing, self._growing.parts[-1].kind) if self._growing else None

    def feed(self, event: Event) -> Iterator[Told]:
        """What this event changes; run it to its end. Raises ``UpstreamError`` if there is too much."""
        self._bound(event)
        match event:
            case Text(text, logprobs) if text or logprobs:
                yield from self._say("output_text", text, logprobs or ())
            case Reasoning(text) if text:
                yield from self._say("reasoning_text", text)
            case Extra(fields) if isinstance(refusal := fields.get("refusal"), str) and refusal:
                yield from self._say("refusal", refusal)
            case ToolStart():
                yield from self._call(event)
            case ToolArgs(call, text) if text:
                item = self._calls[call]
                item.arguments.append(text)
                place = {"item_id": item.id, "output_index": item.index}
                yield "function_call_arguments.delta", {**place, "delta": text}
            case Finish(reason):
                yield from self._finish(reason)

    def _bound(self, event: Event) -> None:
        """A backend that never ends must not fill the memory: the last events repeat the whole text."""
        self._size += PIECE + len(getattr(event, "text", ""))
        if self._size > MAX_SIZE:
            raise UpstreamError("The upstream's answer is too large.", code="upstream_bad_response")

    def _say(self, kind: str, text: str, logprobs: tuple[Mapping[str, Any], ...] = ()) -> Iterator[Told]:
        item = yield from self._open(kind)
        entries = [token(entry) for entry in logprobs]
        item.parts[-1].text.append(text)
        item.parts[-1].logprobs += entries
        fields = {**place_of(item), "delta": text}
        yield f"{kind}.delta", {**fields, "logprobs": entries} if kind == "output_text" else fields

    def _open(self, kind: str) -> Generator[Told, None, Item]:
        """The item whose last part is of this kind."""
        item = self._growing
        if item is None or item.kind != HOLDER[kind]:
            yield from self._close()
            item = self._growing = self._add(HOLDER[kind])
            yield "output_item.added", {"output_index": item.index, "item": item.fields()}
        if not item.parts or item.parts[-1].kind != kind:
            yield from _part_done(item)
            item.parts.append(Part(kind))
            yield "content_part.added", {**place_of(item), "part": item.parts[-1].fields()}
        return item

    def _call(self, call: ToolStart) -> Iterator[Told]:
        yield from self._close()
        item = self._calls[call.index] = self._add("function_call")
        item.call = call
        yield "output_item.added", {"output_index": item.index, "item": item.fields()}

    def _add(self, kind: str) -> Item:
        index = len(self._items)
        item = Item(kind, f"{ID[kind]}_{self._suffix}{index:02x}", index)
        self._items.append(item)
        return item

    def _close(self, status: str = "completed") -> Iterator[Told]:
        """End the message or reasoning that grows."""
        if (item := self._growing) is not None:
            self._growing = None
            yield from _part_done(item)
            item.status = status
            yield "output_item.done", {"output_index": item.index, "item": item.fields()}

    def _finish(self, reason: str) -> Iterator[Told]:
        self.reason = reason
        if not self._items:  # an answer of no words is still an answer
            yield from self._open("output_text")
        status = "incomplete" if self.incomplete else "completed"
        yield from self._close(status)
        for item in self._items:
            if item.status == "in_progress":
                item.status = status if item is self._items[-1] else "completed"
                fields = item.fields()
                place = {"item_id": item.id, "output_index": item.index}
                yield "function_call_arguments.done", {**place, "arguments": fields["arguments"]}
                yield "output_item.done", {"output_index": item.index, "item": fields}


def place_of(item: Item) -> dict[str, Any]:
    """Where the last part of an item is."""
    return {"item_id": item.id, "output_index": item.index, "content_index": len(item.parts) - 1}


def _part_done(item: Item) -> Iterator[Told]:
    """End the last part of an item, if it has one."""
    if item.parts:
        part = item.parts[-1].fields()
        said = {name: value for name, value in part.items() if name in ("text", "refusal", "logprobs")}
        yield f"{part['type']}.done", {**place_of(item), **said}
        yield "content_part.done", {**place_of(item), "part": part}


def token(entry: Mapping[str, Any]) -> dict[str, Any]:
    """A chat's logprobs entry as this API has it: nothing but these fields, and bytes always."""
    top = [_bare(each) for each in entry.get("top_logprobs") or ()]
    return {**_bare(entry), "top_logprobs": top}


def _bare(entry: Mapping[str, Any]) -> dict[str, Any]:
    text = entry.get("token", "")
    raw = entry.get("bytes")
    return {
        "token": text,
        "logprob": entry.get("logprob", 0.0),
        "bytes": list(text.encode("utf-8", "surrogatepass")) if raw is None else raw,
    }

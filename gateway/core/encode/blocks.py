"""What a model says as content blocks of Anthropic's Messages API, one after the other.

Rule: one machine for both ways, so that a whole answer is the collected stream. One block is open at a time:
readers take the last for the one that grows. While a call of a tool is not complete, what is said beside it
waits; calls whose arguments come in turns are told one after the other at the end. A call's arguments are
one JSON object, or the answer is a failure; only where it was cut short they may break off. Shapes:
https://docs.anthropic.com/en/api/messages-streaming Knows nothing of bytes or of the message around them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, TypeAlias

import orjson

from gateway.core.encode.bound import Bound
from gateway.core.errors import UpstreamError
from gateway.core.events import Event, Extra, Finish, Reasoning, Text, ToolArgs, ToolStart

Told: TypeAlias = tuple[str, int, Any]
"""What becomes of the block with this index: ``start`` and the block as it begins, the kind of a delta and
its text, ``stop`` and the input of a call (None for other blocks)."""

_EMPTY = {
    "text": {"type": "text", "text": ""},
    "thinking": {"type": "thinking", "thinking": "", "signature": ""},
}


class Blocks:
    """The blocks of one answer; ``thinks``: with what it thought."""

    def __init__(self, *, thinks: bool) -> None:
        self.called = False
        self.finish = Finish()  # once it came
        self._thinks = thinks
        self._kind: str | None = None  # of the open block
        self._index = -1  # of the last block
        self._call: ToolStart | None = None  # whose block is open
        self._arguments: list[str] = []
        self._held: list[Event] = []
        self._bound = Bound()

    def feed(self, event: Event) -> Iterator[Told]:
        """What this event changes; run it to its end. Raises ``UpstreamError`` where there is too much."""
        if isinstance(event, Finish):
            yield from self._finish(event)
        elif not self._matters(event):
            return
        elif self._call is None or self._goes_on(self._call, event):
            yield from self._tell(event)
        else:
            self._bound.count(event)
            self._held.append(event)

    def _matters(self, event: Event) -> bool:
        """Whether it becomes part of a block."""
        if isinstance(event, Text | ToolArgs):
            return bool(event.text)
        if isinstance(event, Reasoning):
            return self._thinks and bool(event.text)
        return isinstance(event, ToolStart) or bool(_refusal(event))

    def _goes_on(self, call: ToolStart, event: Event) -> bool:
        """Whether it belongs to the open call, or that one is complete and nothing waits."""
        if isinstance(event, ToolArgs) and event.index == call.index:
            return True
        return not self._held and bool(self._arguments) and _object("".join(self._arguments)) is not None

    def _tell(self, event: Event) -> Iterator[Told]:
        match event:
            case Text(text):
                yield from self._say("text", text)
            case Reasoning(text):
                yield from self._say("thinking", text)
            case Extra():
                yield from self._say("text", _refusal(event))
            case ToolStart():
                yield from self._begin(event)
            case ToolArgs():
                yield from self._argue(event)

    def _say(self, kind: str, text: str) -> Iterator[Told]:
        if self._kind != kind:
            yield from self._close()
            yield self._open(kind, dict(_EMPTY[kind]))
        yield kind, self._index, text

    def _begin(self, call: ToolStart) -> Iterator[Told]:
        yield from self._close()
        self.called = True
        self._call, self._arguments = call, []
        yield self._open("tool_use", {"type": "tool_use", "id": call.id, "name": call.name, "input": {}})

    def _argue(self, event: ToolArgs) -> Iterator[Told]:
        if self._call is not None and self._call.index == event.index:
            self._bound.count(event)
            self._arguments.append(event.text)
            yield "tool_use", self._index, event.text
        elif not event.text.isspace():
            raise _broken()

    def _open(self, kind: str, block: dict[str, Any]) -> Told:
        self._kind = kind
        self._index += 1
        return "start", self._index, block

    def _close(self, *, cut: bool = False) -> Iterator[Told]:
        """End the open block. ``cut``: a call may break off."""
        if self._kind is None:
            return
        given = None
        if self._call is not None:
            given = _object("".join(self._arguments))
            if given is None and not cut:
                raise _broken()
        elif self._kind == "thinking":
            yield "signature", self._index, ""  # some clients give no thought back without one
        yield "stop", self._index, given
        self._kind = self._call = None

    def _finish(self, finish: Finish) -> Iterator[Told]:
        self.finish = finish
        held, self._held = self._held, []
        cut = finish.reason == "length"
        if held:
            yield from self._close(cut=cut)
        for event in _in_turn(held):
            if isinstance(event, ToolStart):
                yield from self._close(cut=cut)
            yield from self._tell(event)
        yield from self._close(cut=cut)


def _in_turn(held: Sequence[Event]) -> Iterator[Event]:
    """The same events, with the arguments of each call right behind its start."""
    begun = {event.index for event in held if isinstance(event, ToolStart)}
    for event in held:
        if not isinstance(event, ToolArgs) or event.index not in begun:
            yield event
        if isinstance(event, ToolStart):
            pieces = [a.text for a in held if isinstance(a, ToolArgs) and a.index == event.index]
            if pieces:
                yield ToolArgs(event.index, "".join(pieces))


def _refusal(event: Event) -> str:
    said = event.fields.get("refusal") if isinstance(event, Extra) else None
    return said if isinstance(said, str) else ""


def _object(text: str) -> dict[str, Any] | None:
    """The object that this text is, or none; no text at all is an empty one."""
    if not text or text.isspace():
        return {}
    try:
        value = orjson.loads(text)
    except orjson.JSONDecodeError:
        return None
    return value if isinstance(value, dict) else None


def _broken() -> UpstreamError:
    return UpstreamError(
        "The model called a tool with arguments that are no JSON object.", code="upstream_bad_response"
    )

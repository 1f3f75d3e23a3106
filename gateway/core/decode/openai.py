"""Answers of OpenAI-compatible servers to chats and bare texts -> events: whole and in chunks.

Rule: one choice, the one with index 0, because a call asks for one. Nothing is trusted; fields of a delta
that we do not know go through as ``Extra``. A stream that ends without a finish reason or ``[DONE]`` was
cut.
Knows FastChat 0.2.36's ways: errors as text with ``error_code`` in a stream, chunks without ``object``, no
usage.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from orjson import JSONDecodeError, dumps, loads

from gateway.core.decode import fields
from gateway.core.decode.failure import Place, failure, reported
from gateway.core.errors import GatewayError, UpstreamError
from gateway.core.events import Event, Extra, Finish, Reasoning, Text, ToolArgs, ToolStart, Usage

MAX_TOOLS = 128  # calls in one answer; OpenAI takes as many tools in one request

_DONE = b"[DONE]"
_OURS = frozenset({"role", "content", "reasoning_content", "reasoning", "tool_calls", "function_call"})


class OpenAIDecoder:
    """One answer of such a server. ``ids`` makes those of calls that came without."""

    def __init__(self, place: Place, ids: Callable[[], str]) -> None:
        self.failed: GatewayError | None = None
        self.said = False
        self.done = False
        self._place = place
        self._seen = False
        self._reason: str | None = None
        self._usage: Usage | None = None
        self._tools = _Tools(ids)

    def feed(self, payloads: list[bytes]) -> list[Event]:
        events: list[Event] = []
        try:
            for payload in payloads:
                try:
                    data = loads(payload)
                except JSONDecodeError:
                    if self._marker(payload):
                        continue
                    break
                if (text := _plain(data)) is not None:
                    events.append(Text(text))
                else:
                    self._chunk(data, events)
        except GatewayError as error:
            if not events:
                raise
            self.failed = error
        self._seen = self._seen or bool(payloads)
        return events

    def whole(self, body: bytes) -> list[Event]:
        try:
            data = loads(body)
        except JSONDecodeError:
            raise _not_json(body) from None
        events: list[Event] = []
        for choice in self._choices(data):
            if not isinstance(message := choice.get("message") or _written(choice), dict):
                break
            self._delta(message, choice, events)
            return [*events, *self._ended()]
        raise self._misshapen()

    def end(self) -> list[Event]:
        if self._reason is None and not self.done:
            why = "its stream ended without an end marker" if self._seen else "its stream was empty"
            raise fields.cut(why)
        return self._ended()

    def _ended(self) -> list[Event]:
        """The end; a call without arguments has an empty object of them, unless it was cut."""
        reason = self._reason or "stop"
        missing = self._tools.bare() if reason != "length" else ()
        return [*(ToolArgs(number, "{}") for number in missing), Finish(reason, self._usage)]

    def _marker(self, payload: bytes) -> bool:
        """For what is not JSON: True for a blank, False for the end marker; else it raises."""
        word = payload.strip()
        if word == _DONE:
            self.done = True
        elif word:
            raise _not_json(payload)
        return not word

    def _chunk(self, data: Any, events: list[Event]) -> None:
        for choice in self._choices(data):
            delta = choice.get("delta") or _written(choice)
            if delta is not None and not isinstance(delta, dict):
                raise self._misshapen()
            self._delta(delta or {}, choice, events)

    def _choices(self, data: Any) -> list[dict[str, Any]]:
        """The one choice we asked for, or none; usage is noted."""
        if error := reported(data):
            raise failure(error, self._place)
        choices = data.get("choices") if isinstance(data, dict) else None
        if choices is None and isinstance(data, dict) and (not data or "usage" in data):
            choices = []
        if not isinstance(choices, list) or not all(isinstance(choice, dict) for choice in choices):
            raise self._misshapen()
        self._usage = fields.usage(data.get("usage")) or self._usage
        return [choice for choice in choices if not choice.get("index")][:1]

    def _delta(self, delta: Mapping[str, Any], choice: Mapping[str, Any], events: list[Event]) -> None:
        thought = delta.get("reasoning_content") or delta.get("reasoning")
        if thought and isinstance(thought, str):
            events.append(Reasoning(thought))
        text = self._text(delta.get("content"))
        found = choice.get("logprobs")
        logprobs = None
        if isinstance(found, dict):
            logprobs = fields.logprobs(found.get("content")) or fields.text_logprobs(found)
        if text or logprobs:
            events.append(Text(text, logprobs))
        if calls := delta.get("tool_calls"):
            self._calls(calls, events)
        elif call := delta.get("function_call"):  # before tools, OpenAI's API had one function call
            self._calls([{"index": 0, "function": call}], events)
        rest = {name: value for name, value in delta.items() if name not in _OURS and value is not None}
        if rest:
            events.append(Extra(rest))
        self._reason = fields.finish_reason(choice.get("finish_reason")) or self._reason
        self.said = self._reason is not None

    def _text(self, content: Any) -> str:
        if isinstance(content, list):  # parts, as Mistral sends them
            parts = [part.get("text") for part in content if isinstance(part, dict)]
            content = "".join(part for part in parts if isinstance(part, str))
        if content is None or isinstance(content, str):
            return content or ""
        raise self._misshapen()

    def _calls(self, calls: Any, events: list[Event]) -> None:
        if not isinstance(calls, list) or not self._tools.feed(calls, events):
            raise self._misshapen()

    def _misshapen(self) -> UpstreamError:
        return UpstreamError(
            "The upstream's answer is not a chat completion of OpenAI's API: "
            f"check {self._place.at}.url and {self._place.at}.kind.",
            code="upstream_bad_response",
        )


def _written(choice: Mapping[str, Any]) -> dict[str, Any] | None:
    """The answer to a bare text, in the form of a chat's."""
    return {"content": choice["text"]} if "text" in choice else None


def _plain(data: Any) -> str | None:
    """The text of a chunk that holds nothing else, as nearly all do."""
    if type(data) is not dict or type(choices := data.get("choices")) is not list or len(choices) != 1:
        return None
    choice = choices[0]
    if type(choice) is not dict or type(delta := choice.get("delta")) is not dict or len(delta) != 1:
        return None
    get = choice.get
    if get("finish_reason") or get("logprobs") or get("index") or data.get("usage") or data.get("error"):
        return None
    return text if type(text := delta.get("content")) is str else None


def _not_json(payload: bytes) -> UpstreamError:
    return UpstreamError(
        f"The upstream sent {len(payload)} bytes that are not JSON where JSON was expected.",
        code="upstream_bad_response",
    )


class _Tools:
    """Tool calls of one answer, numbered from 0 as they begin; id and name are given once each.

    Servers differ: some repeat ids or make a new one for every delta (vLLM before 0.7), some send none, some
    give every call index 0 or none (Gemini's and Ollama's APIs). A new call has a new index, or a name and
    another id.
    """

    def __init__(self, ids: Callable[[], str]) -> None:
        self._new = ids
        self._ids: list[str | None] = []
        self._argued: set[int] = set()  # calls whose arguments have begun
        self._numbers: dict[int, int] = {}  # the server's index -> ours

    def bare(self) -> Iterator[int]:
        """The calls without arguments."""
        return (number for number in range(len(self._ids)) if number not in self._argued)

    def feed(self, calls: list[Any], events: list[Event]) -> bool:
        """Append the events of these deltas; False if they are not tool calls."""
        for call in calls:
            function = call.get("function") if isinstance(call, dict) else None
            if not isinstance(function, dict):
                return False
            number = self._number(call, function.get("name"), events)
            if number is None:
                return False
            arguments = function.get("arguments")
            if isinstance(arguments, dict):  # Ollama
                arguments = dumps(arguments).decode()
            if arguments and isinstance(arguments, str):
                self._argued.add(number)
                events.append(ToolArgs(number, arguments))
        return True

    def _number(self, call: Mapping[str, Any], name: Any, events: list[Event]) -> int | None:
        index, own = call.get("index"), call.get("id")
        index = index if type(index) is int else None
        number = self._numbers.get(index) if index is not None else len(self._ids) - 1 if self._ids else None
        same = number is not None and not (name and own and self._ids[number] != own)
        if same and (index is not None or not name or own):
            return number
        if not isinstance(name, str) or not name or len(self._ids) == MAX_TOOLS:
            return None
        number = len(self._ids)
        self._ids.append(own if isinstance(own, str) and own else None)
        if index is not None:
            self._numbers[index] = number
        events.append(ToolStart(number, self._ids[number] or self._new(), name))
        return number

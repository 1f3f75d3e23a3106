"""Answers of the prompt contract, version 1 -> events; with ``Shape``, also answers that only resemble it.

Rule: nothing is trusted. Text that is not a string, or is not where it should be, is an error that says
what was expected and which config key to set. A stream that ends without a finish reason or ``[DONE]`` was
cut.
Knows nothing about how payloads were framed.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from orjson import JSONDecodeError, loads

from gateway.core.decode import fields
from gateway.core.decode.failure import Place, failure, reported
from gateway.core.errors import GatewayError, UpstreamError
from gateway.core.events import Event, Finish, Logprobs, Text, Usage

_DONE = b"[DONE]"
_KNOWN = frozenset({"finish_reason", "usage", "logprobs", "ignored"})
_SHOWABLE = re.compile(r"[\w.-]{1,40}", re.ASCII)


@dataclass(slots=True, frozen=True)
class Shape:
    """Where a backend puts its text (``prompt``, ``0.generated_text``) and how it sends it."""

    path: tuple[str | int, ...] = ("prompt",)
    cumulative: bool = False  # each event repeats the text so far
    ends_at_eof: bool = False  # the backend marks no end: the end of a complete body is one

    @classmethod
    def of(cls, field: str, *, cumulative: bool = False, ends_at_eof: bool = False) -> Shape:
        path = tuple(int(part) if part.isdecimal() else part for part in field.split("."))
        return cls(path, cumulative, ends_at_eof)

    def __str__(self) -> str:
        return ".".join(map(str, self.path))


class PromptDecoder:
    """One answer of a prompt backend, whole or in events."""

    def __init__(self, shape: Shape, place: Place) -> None:
        self.failed: GatewayError | None = None
        self.said = False
        self.done = False
        self._shape = shape
        self._place = place
        self._key = None if shape.cumulative or len(shape.path) > 1 else shape.path[0]
        self._text = ""  # cumulative only: the latest text
        self._given = 0  # and how many characters of it were handed on
        self._seen = False  # any event came
        self._reason: str | None = None
        self._usage: Usage | None = None
        self._ignored: tuple[str, ...] = ()

    def feed(self, payloads: list[bytes]) -> list[Event]:
        events: list[Event] = []
        key = self._key
        try:
            for payload in payloads:
                try:
                    data = loads(payload)
                except JSONDecodeError:
                    if self._marker(payload):
                        continue
                    break
                # Nearly all events are {"prompt": "..."}.
                if type(data) is dict and len(data) == 1 and type(text := data.get(key)) is str:
                    events.append(Text(text))
                else:
                    self._event(data, events)
        except GatewayError as error:
            if not events:
                raise
            self.failed = error
        self._seen = self._seen or bool(events)
        return events

    def whole(self, body: bytes) -> list[Event]:
        try:
            data = loads(body)
        except JSONDecodeError:
            raise self._not_json(body) from None
        if error := reported(data):
            raise failure(error, self._place)
        holder, text = self._find(data)
        if not isinstance(text, str):
            raise self._misshapen(data, holder, text)
        logprobs = self._facts(data, holder)
        finish = Finish(self._reason or "stop", self._usage, ignored=self._ignored)
        return [Text(text, logprobs), finish] if text or logprobs else [finish]

    def end(self) -> list[Event]:
        if self._reason is None and not self.done and not (self._shape.ends_at_eof and self._seen):
            why = "its stream ended without an end marker" if self._seen else "its stream was empty"
            raise fields.cut(f"{why} (if this backend marks no end: {self._place.at}.ends: eof)")
        rest = self._text[self._given :]
        finish = Finish(self._reason or "stop", self._usage, ignored=self._ignored)
        return [Text(rest), finish] if rest else [finish]

    def _marker(self, payload: bytes) -> bool:
        """For what is not JSON: True for a blank, False for the end marker; else it raises."""
        word = payload.strip()
        if word == _DONE:
            self.done = True
        elif word:
            raise self._not_json(payload)
        return not word

    def _event(self, data: Any, events: list[Event]) -> None:
        if error := reported(data):
            raise failure(error, self._place)
        holder, text = self._find(data)
        if not isinstance(text, str) and (text is not None or not self._bare(data)):
            raise self._misshapen(data, holder, text)
        logprobs = self._facts(data, holder)
        if text and self._shape.cumulative:
            text = self._more(text)
        if text or logprobs:
            events.append(Text(text or "", logprobs))
        self._seen = True

    def _bare(self, data: Any) -> bool:
        """An event without text that is still one of ours: the end, or nothing but a sign of life."""
        return isinstance(data, dict) and (not data or not _KNOWN.isdisjoint(data))

    def _find(self, data: Any) -> tuple[Any, Any]:
        """The value at ``response_field`` and what holds it; None where the path leads nowhere."""
        holder = None
        for part in self._shape.path:
            holder = data
            if isinstance(data, dict):
                data = data.get(str(part))
            elif isinstance(data, list) and isinstance(part, int) and part < len(data):
                data = data[part]
            else:
                return None, None
        return holder, data

    def _facts(self, data: Any, holder: Any) -> Logprobs | None:
        """Note what came beside the text, at the top or next to it; its logprobs are returned."""
        logprobs = None
        for place in _beside(data, holder):
            if found := place.get("logprobs"):
                logprobs = logprobs or fields.logprobs(found)
            if found := place.get("finish_reason"):
                self._reason = fields.finish_reason(found) or self._reason
            if found := place.get("usage"):
                self._usage = fields.usage(found) or self._usage
            if found := place.get("ignored"):
                self._ignored = fields.names(found) or self._ignored
        self.said = self._reason is not None
        return logprobs

    def _more(self, text: str) -> str:
        """What a cumulative text adds. A U+FFFD at its end is a character still in pieces: it waits."""
        before = self._text[: self._given]
        if before.startswith(text):
            return ""
        if not text.startswith(before):
            raise UpstreamError(
                "The upstream's text did not go on from the text before it: is it sent in deltas? "
                f"Then set {self._place.at}.cumulative: false.",
                code="upstream_bad_response",
            )
        self._text = text
        self._given = len(text.rstrip("\ufffd")) if text.endswith("\ufffd") else len(text)
        self._given = max(self._given, len(before))
        return text[len(before) : self._given]

    def _not_json(self, payload: bytes) -> UpstreamError:
        return UpstreamError(
            f"The upstream sent {len(payload)} bytes that are not JSON where JSON was expected "
            f"(if it sends bare text: {self._place.at}.stream: text).",
            code="upstream_bad_response",
        )

    def _misshapen(self, data: Any, holder: Any, found: Any) -> UpstreamError:
        what = f"{_kind(data)} without `{self._shape}`"
        nulled = isinstance(holder, dict) and str(self._shape.path[-1]) in holder
        if found is not None or nulled:
            what = f"{_kind(found)} at `{self._shape}`"
        return UpstreamError(
            f"The upstream's answer holds no text where it was expected: it is {what}. "
            f"Set {self._place.at}.response_field to where its text is.",
            code="upstream_bad_response",
        )


def _beside(data: Any, holder: Any) -> list[dict[str, Any]]:
    places: list[dict[str, Any]] = []
    for place in (data,) if holder is data else (data, holder):
        if isinstance(place, dict):
            places.append(place)
            if isinstance(details := place.get("details"), dict):  # TGI
                places.append(details)
    return places


def _kind(value: Any) -> str:
    """What a JSON value is, for people; of an object also its first keys: the text may be at one of them."""
    if isinstance(value, dict):
        keys = [key for key in value if _SHOWABLE.fullmatch(key)][:5]
        return f"an object with {', '.join(f'`{key}`' for key in keys)}" if keys else "an object"
    if isinstance(value, list):
        first = value[0] if value else None
        return f"an array whose first item is {_kind(first)}" if isinstance(first, dict) else "an array"
    if isinstance(value, str):
        return "a string"
    return "null" if value is None else "a number or boolean"

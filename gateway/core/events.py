"""What a model can say, piece by piece: the one vocabulary between upstreams, filters and encoders.

Rule: an answer is any number of events and then exactly one ``Finish``. The end is an event, so a filter
that holds text back releases it when it sees ``Finish``; there is no flush to forget.
Knows nothing about wire formats or who asked.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Protocol, TypeAlias

from gateway.core.value import value

Logprobs: TypeAlias = tuple[Mapping[str, Any], ...]
"""One entry a token, in OpenAI's chat shape: ``{"token", "logprob", "bytes", "top_logprobs": [...]}``."""


@value
class Text:
    """Visible text, any number of characters; ``logprobs`` covers the tokens that are wholly in this text.

    ``starts`` are the places in the text where those tokens begin; None where they follow one another from
    its first character on.
    """

    text: str
    logprobs: Logprobs | None = None
    starts: tuple[int, ...] | None = None


@value
class Reasoning:
    """Text the model thought and did not say."""

    text: str


@value
class ToolStart:
    """A tool call begins; ``index`` counts the calls of one answer from 0."""

    index: int
    id: str
    name: str


@value
class ToolArgs:
    """A piece of the JSON arguments of the call with this ``index``."""

    index: int
    text: str


@value
class Extra:
    """Fields of a delta that we do not know, passed on as they came (``annotations``, ``refusal``, ...)."""

    fields: Mapping[str, Any]


@value
class Vectors:
    """What texts became: one vector each, in their order, as 32-bit floats."""

    vectors: tuple[array[float], ...]


@value
class Usage:
    """Tokens of one call. ``source`` says who counted."""

    prompt_tokens: int
    completion_tokens: int
    source: str = "upstream"  # upstream | tokenizer | estimate
    details: Mapping[str, Any] | None = None  # OpenAI's *_tokens_details, as the upstream gave them


@value
class Finish:
    """The end of one choice. ``reason`` is OpenAI's: stop, length, tool_calls, content_filter.

    ``stopped_by`` is the stop string that ended the text here in the gateway, if one did: the upstream is
    still generating then and must be closed. ``ignored`` are extra arguments the upstream did not use.
    """

    reason: str = "stop"
    usage: Usage | None = None
    stopped_by: str | None = None
    ignored: tuple[str, ...] = ()


Event: TypeAlias = Text | Reasoning | ToolStart | ToolArgs | Extra | Vectors | Finish
Batch: TypeAlias = Sequence[Event]


class Filter(Protocol):
    """A transformation of one choice's events, made anew for each request.

    Once it has returned a ``Finish`` it is not fed again.
    """

    def feed(self, batch: Batch) -> Batch: ...


def visible(event: Event) -> bool:
    """True if a person would see this event: text that is not empty, or a tool call."""
    return (
        bool(event.text) if isinstance(event, Text | Reasoning) else isinstance(event, ToolStart | ToolArgs)
    )


def tells(event: Event) -> bool:
    """True if a client is sent anything for this event: all but empty text."""
    return bool(event.text) if isinstance(event, Text | Reasoning) else True


def split(event: Text, at: int) -> tuple[Text, Text]:
    """Cut a text event after ``at`` characters. A token that straddles the cut belongs to neither part."""
    if event.logprobs is None:
        return Text(event.text[:at]), Text(event.text[at:])
    before: list[Token] = []
    after: list[Token] = []
    for start, end, entry in tokens(event):
        if end <= at and (start < at or at == len(event.text)):
            before.append((start, entry))
        elif start >= at:
            after.append((start - at, entry))
    return _covered(event.text[:at], before), _covered(event.text[at:], after)


Token: TypeAlias = tuple[int, Mapping[str, Any]]
"""Where it begins, and its entry."""


def tokens(event: Text) -> Iterator[tuple[int, int, Mapping[str, Any]]]:
    """Start and end of each token of this text, with its entry."""
    entries = event.logprobs or ()
    if event.starts is not None:
        for start, entry in zip(event.starts, entries, strict=True):
            yield start, start + len(entry.get("token", "")), entry
        return
    start = 0
    for entry in entries:
        end = start + len(entry.get("token", ""))
        yield start, end, entry
        start = end


def whole_tokens(event: Text, at: int) -> int:
    """The last place up to ``at`` that lies in no token; ``at`` itself if the tokens are not known."""
    if event.logprobs is None:
        return at
    for start, end, _ in tokens(event):
        if end > at:
            return min(start, at)
    return at  # tokens that are used up bind nothing


def joined(pieces: Sequence[Text]) -> Text:
    """Pieces of text as one, with the logprobs of all."""
    text = "".join([piece.text for piece in pieces])
    if not [piece for piece in pieces if piece.logprobs is not None]:  # nearly always
        return Text(text)
    found: list[Token] = []
    before = 0
    for piece in pieces:
        found += [(before + start, entry) for start, _, entry in tokens(piece)]
        before += len(piece.text)
    return _covered(text, found)


def _covered(text: str, found: Sequence[Token]) -> Text:
    """A text with these of its tokens."""
    entries = tuple(entry for _, entry in found)
    following = 0
    for start, entry in found:
        if start != following:
            return Text(text, entries, tuple(start for start, _ in found))
        following += len(entry.get("token", ""))
    return Text(text, entries)

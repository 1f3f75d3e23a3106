"""Tell what a model thought from what it said: ``<think>...</think>`` before the answer.

Rules: the opening tag counts only at the beginning, behind white space; a second one is text. White space
right behind either tag belongs to the tag, so that an answer does not begin with empty lines; an empty
thought is none. An answer that ends inside is all reasoning. Only what could still become a tag is held
back, and the result does not depend on how the text was cut. Knows nothing about models or templates.
"""

from __future__ import annotations

from enum import Enum

from gateway.core.events import Batch, Event, Finish, Reasoning, Text, joined, split

MAX_SPACE = 64  # characters of white space before the opening tag


class Place(Enum):
    BEFORE = "before"
    INSIDE = "inside"
    BEHIND = "behind"
    SAYING = "saying"


class Thinking:
    """A filter that makes the text between ``start`` and ``end`` into ``Reasoning``.

    ``starts_open``: the prompt ends with the opening tag, so the answer begins inside; a model that writes
    the tag nevertheless is understood.
    """

    def __init__(self, start: str = "<think>", end: str = "</think>", starts_open: bool = False) -> None:
        self._start, self._end, self._open = start, end, starts_open
        self._place = Place.BEFORE
        self._waiting: list[Text] = []  # before: what may still become the opening tag
        self._held = ""  # inside: what may still become the closing tag
        self._blank = True  # inside: nothing but white space has come

    def feed(self, batch: Batch) -> Batch:
        if self._place is Place.SAYING:
            return batch
        out: list[Event] = []
        for event in batch:
            if type(event) is Text:
                self._read(event, out)
                continue
            if isinstance(event, Finish):
                self._release(out)
            out.append(event)
        return out

    def _read(self, event: Text, out: list[Event]) -> None:
        rest: Text | None = event
        if self._place is Place.BEFORE:
            rest = self._before(event)
        if rest is not None and self._place is Place.INSIDE:
            rest = self._inside(rest, out)
        if rest is not None and self._place is Place.BEHIND:
            rest = _stripped(rest)
            if rest.text:
                self._place = Place.SAYING
        if rest is not None and self._place is Place.SAYING:
            out.append(rest)

    def _before(self, event: Text) -> Text | None:
        """What comes behind the opening tag, or everything if it cannot come any more; None while it can."""
        self._waiting.append(event)
        whole = joined(self._waiting)
        body = whole.text.lstrip()
        lead = len(whole.text) - len(body)
        if lead <= MAX_SPACE:
            if body.startswith(self._start):
                self._place, self._waiting = Place.INSIDE, []
                return split(whole, lead + len(self._start))[1]
            if self._start.startswith(body):
                return None
        self._place, self._waiting = Place.INSIDE if self._open else Place.SAYING, []
        return whole if len(whole.text) > len(event.text) else event

    def _inside(self, event: Text, out: list[Event]) -> Text | None:
        """Emit what was surely thought; what comes behind the closing tag, or None."""
        if self._blank:
            event = _stripped(event)
            if not event.text:
                return None
            self._blank = False
        text = self._held + event.text
        found = text.find(self._end)
        if found < 0:
            found = _safe(text, self._end)
            self._think(text[:found], out)
            self._held = text[found:]
            return None
        self._think(text[:found], out)
        behind = found + len(self._end) - len(self._held)
        self._place, self._held = Place.BEHIND, ""
        return split(event, behind)[1]

    def _release(self, out: list[Event]) -> None:
        if self._place is Place.BEFORE and self._waiting:
            whole = joined(self._waiting)
            if self._open:
                self._think(whole.text.lstrip(), out)
            else:
                out.append(whole)
        elif self._place is Place.INSIDE:
            self._think(self._held, out)

    def _think(self, text: str, out: list[Event]) -> None:
        if text:
            out.append(Reasoning(text))


def _stripped(event: Text) -> Text:
    """The text without white space before it."""
    lead = len(event.text) - len(event.text.lstrip())
    return split(event, lead)[1] if lead else event


def _safe(text: str, tag: str) -> int:
    """Up to where ``text`` can no longer become part of ``tag``."""
    start = text.find(tag[0], max(0, len(text) - len(tag) + 1))
    while start >= 0 and not tag.startswith(text[start:]):
        start = text.find(tag[0], start + 1)
    return len(text) if start < 0 else start

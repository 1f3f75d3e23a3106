"""End the text at the first stop string, even when it arrives in pieces.

Rule: literal strings, never patterns. The stop that completes first wins, a tie goes to the longest. A
character that could still become part of a stop is never emitted, and the result does not depend on how the
text was cut. Knows nothing about tokens, HTTP, or who asked.
"""

from __future__ import annotations

from functools import lru_cache

from gateway.core.events import Batch, Event, Finish, Text, ToolStart, joined, split, whole_tokens


class Stops:
    """A filter that cuts ``Text`` at the first of ``stops`` and ends the answer there.

    An answer that called a tool before that ends as one that did.
    """

    def __init__(self, stops: tuple[str, ...]) -> None:
        self._stops, self._firsts = _prepared(stops)
        self._held: Text | None = None  # the longest tail that may still become a stop
        self._reason = "stop"

    def feed(self, batch: Batch) -> Batch:
        out: list[Event] = []
        for position, event in enumerate(batch):
            if type(event) is not Text:
                self._release(out)
                out.append(event)
                if type(event) is ToolStart:
                    self._reason = "tool_calls"
            elif self._held is None and not self._may_begin(event.text):
                out.append(event)
            elif stop := self._cut(event, out):
                out.append(_finish(self._reason, stop, batch[position + 1 :]))
                return out
        return out

    def _may_begin(self, text: str) -> bool:
        for first in self._firsts:  # a plain loop: any() with a generator costs 5 times as much here
            if first in text:
                return True
        return False

    def _cut(self, event: Text, out: list[Event]) -> str | None:
        """Emit what is safe of the held text and this one; the stop that ended it, if one did."""
        whole = event if self._held is None else joined((self._held, event))
        text = whole.text
        if found := self._first_complete(text):
            start, stop = found
            if start:
                out.append(split(whole, start)[0])
            return stop
        keep = whole_tokens(whole, self._safe_length(text))
        if keep == len(text):
            self._held = None
            out.append(whole)
        elif keep:
            emit, self._held = split(whole, keep)
            out.append(emit)
        else:
            self._held = whole
        return None

    def _first_complete(self, text: str) -> tuple[int, str] | None:
        """Start and string of the stop that completes first in ``text``; of several, the longest."""
        best: tuple[int, int, str] | None = None
        for stop in self._stops:
            start = text.find(stop)
            if start >= 0 and (best is None or (start + len(stop), start) < best[:2]):
                best = (start + len(stop), start, stop)
        return None if best is None else (best[1], best[2])

    def _safe_length(self, text: str) -> int:
        """How many leading characters can no longer become part of a stop."""
        safe = len(text)
        for stop in self._stops:
            start = text.find(stop[0], max(0, len(text) - len(stop) + 1))
            while 0 <= start < safe:
                if stop.startswith(text[start:]):
                    safe = start
                    break
                start = text.find(stop[0], start + 1)
        return safe

    def _release(self, out: list[Event]) -> None:
        if self._held is not None:
            out.append(self._held)
            self._held = None


@lru_cache(maxsize=1024)  # most requests of a model come with the same stops
def _prepared(stops: tuple[str, ...]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The stops that can match, and the characters they begin with."""
    kept = tuple(dict.fromkeys(stop for stop in stops if stop))
    return kept, tuple({stop[0] for stop in kept})


def _finish(reason: str, stop: str, rest: Batch) -> Finish:
    """The end that a stop makes; the upstream's own count is kept if it has already come."""
    for event in rest:
        if isinstance(event, Finish):
            return Finish(reason, usage=event.usage, stopped_by=stop, ignored=event.ignored)
    return Finish(reason, stopped_by=stop)

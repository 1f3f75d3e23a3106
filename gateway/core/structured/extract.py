"""Of what a model says, only the JSON: no prose around it, no code fence.

Rule: the first value of a type that was asked for is passed on as it comes, and what follows it is dropped.
Text without any such value is given back whole. The result does not depend on how the text was cut.
Knows nothing about schemas beyond the types that the whole value may have.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from gateway.core.events import Batch, Event, Finish, Text, ToolStart, joined, split
from gateway.core.structured.opening import Found, Seeker
from gateway.core.structured.scan import Scanner

MAX_PROSE = 256 << 10  # characters before the value; beyond them nothing is looked for
MAX_REST = 256  # characters behind the value after which a model is not listened to any longer


class Extract:
    """A filter that passes on one JSON value of the types ``kinds`` (``Format.opens``)."""

    def __init__(self, kinds: frozenset[str]) -> None:
        self._take: Callable[[Text, list[Event]], None] = self._seek
        self._seeker = Seeker(kinds)
        self._scanner = Scanner()
        self._held: list[Text] = []  # prose, in case no value follows
        self._whole = False
        self._rest = 0  # characters behind the value
        self._reason = "stop"  # of an end that is made here

    def feed(self, batch: Batch) -> Batch:
        out: list[Event] = []
        for position, event in enumerate(batch):
            if type(event) is Text:
                self._take(event, out)
                if self._rest > MAX_REST:
                    out.append(self._enough(batch[position + 1 :]))
                    break
            elif type(event) is Finish:
                out.append(self._end(event, out))
            else:
                out.append(event)
                if type(event) is ToolStart:
                    self._reason = "tool_calls"
        return out

    def _enough(self, rest: Batch) -> Finish:
        """The end of an answer that talks on; the upstream's own count is kept if it has already come."""
        for event in rest:
            if isinstance(event, Finish):
                return Finish(self._reason, usage=event.usage, ignored=event.ignored)
        return Finish(self._reason)

    def _seek(self, event: Text, out: list[Event]) -> None:
        self._held.append(event)
        found = self._seeker.feed(event.text)
        if self._seeker.passed > MAX_PROSE or (found is not None and found.start > MAX_PROSE):
            self._give_back(out)
        elif found is not None:
            self._begin(found, out)

    def _begin(self, found: Found, out: list[Event]) -> None:
        """Drop what stands before the value and pass on what has come of it."""
        value = split(joined(self._held), found.start)[1]
        self._held = []
        if found.length is None:
            self._take = self._inside
            self._inside(value, out)
        else:
            self._close(value, found.length, out)

    def _inside(self, event: Text, out: list[Event]) -> None:
        end = self._scanner.end(event.text)
        if end < 0:
            out.append(event)
        else:
            self._close(event, end, out)

    def _close(self, event: Text, end: int, out: list[Event]) -> None:
        """The value ends after ``end`` characters of this event."""
        value, rest = (event, Text("")) if end == len(event.text) else split(event, end)
        self._whole = True
        self._take = self._drop
        if value.text:
            out.append(value)
        self._drop(rest, out)

    def _drop(self, event: Text, out: list[Event]) -> None:
        self._rest += len(event.text)

    def _give_back(self, out: list[Event]) -> None:
        out.extend(self._held)
        self._held = []
        self._take = self._pass

    def _pass(self, event: Text, out: list[Event]) -> None:
        out.append(event)

    def _end(self, finish: Finish, out: list[Event]) -> Finish:
        if self._held:
            found = self._seeker.feed("", final=True)
            if found is not None and found.start <= MAX_PROSE:
                self._begin(found, out)
            else:
                self._give_back(out)
        # A whole value is a whole answer, even if its model would have talked on.
        return replace(finish, reason="stop") if self._whole and finish.reason == "length" else finish

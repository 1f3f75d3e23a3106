"""The filter that drives a dialect's grammar: text of the model in; text, calls and the end out.

Rule: if a call came, ``stop`` becomes ``tool_calls`` at the end; every other reason stays. Arguments that
break off once their call has begun go on as they came. Other events pass by at once.
Knows nothing about any dialect.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from gateway.core.events import Batch, Event, Finish, Text, split
from gateway.core.tools.reader import MAX_HELD, Broken, Enough, Reader, Reading, pieces

ONE_CALL = "parallel_tool_calls"  # ``Finish.stopped_by`` of an answer that ends behind its only call


class Watcher:
    """Finds the calls in one choice. ``begin`` is read first, as if the model had said it."""

    def __init__(self, grammar: Callable[[Reader], Reading[None]], reader: Reader, begin: str = "") -> None:
        self._reader = reader
        self._grammar: Reading[None] | None = grammar(reader)
        self._enough = False
        self._go_on()
        if begin:
            self._read(Text(begin))

    def feed(self, batch: Batch) -> Batch:
        reader = self._reader
        for position, event in enumerate(batch):
            if type(event) is not Text:
                reader.out.append(self._ended(event) if isinstance(event, Finish) else event)
            elif self._only_text(event.text):
                reader.out.append(event)
            else:
                self._read(event)
                if self._enough:
                    reader.out.append(_finish(batch[position + 1 :]))
                    break
        out: list[Event] = reader.out
        reader.out = []
        return out

    def _only_text(self, text: str) -> bool:
        firsts = self._reader.quiet
        if firsts is None or text[-1:].isspace():  # white space may belong to a call that follows
            return self._grammar is None
        for first in firsts:
            if first in text:
                return False
        self._reader.spoke = self._reader.spoke or bool(text)
        return True

    def _read(self, event: Text) -> None:
        """Give the text to the grammar, never more than may be held."""
        for piece in pieces(event):
            rest: Text | None = piece
            while rest is not None and not self._enough:
                room = MAX_HELD - self._reader.held
                part, rest = split(rest, room) if len(rest.text) > room else (rest, None)
                self._reader.add(part)
                self._go_on()
                if self._reader.held >= MAX_HELD:
                    self._go_on(Broken())

    def _go_on(self, broken: Broken | None = None) -> None:
        """Resume the grammar; when it is done, or was wrong, the rest is text."""
        if self._grammar is not None:
            try:
                if broken is None:
                    next(self._grammar)
                else:
                    self._grammar.throw(broken)
                return
            except (StopIteration, Broken):
                self._grammar = None
            except Enough:
                self._enough = True
                return
        self._reader.release()

    def _ended(self, finish: Finish) -> Finish:
        self._reader.ended = True
        self._go_on()
        if self._enough:
            return replace(finish, reason="tool_calls")
        if self._reader.calls and finish.reason == "stop":
            return replace(finish, reason="tool_calls")
        return finish


def _finish(rest: Batch) -> Finish:
    """The end behind the only call that was wanted; the upstream's own count is kept if it has come."""
    for event in rest:
        if isinstance(event, Finish):
            return replace(event, reason="tool_calls", stopped_by=ONE_CALL)
    return Finish("tool_calls", stopped_by=ONE_CALL)

"""The text of one answer as a grammar reads it: from left to right, waiting where more must come.

Strategy: a grammar is a generator. It ``yield``s where it needs more text and is resumed when some has come,
or when none will. What it has read since its last decision is kept: markup that turns out to be no call goes
back to the client as text, to the character.
Rules: what is made of a text depends on the text alone, never on its cuts. White space before a call, and
between the last call and the end, belongs to the markup. At most ``MAX_HELD`` characters are kept; longer
markup is text. Work is linear in the text.
Knows nothing about any dialect.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterator, Mapping
from typing import Any, TypeAlias, TypeVar

from gateway.core.events import Event, Reasoning, Text, ToolArgs, ToolStart, joined, split, tokens

T = TypeVar("T")
Reading: TypeAlias = Generator[None, None, T]
Sink: TypeAlias = Callable[[str], object]

MAX_VALUE = 1 << 20  # characters of a value that is looked at as a whole
MAX_NAME = 128  # characters; OpenAI allows 64 for the name of a tool
MAX_SPACE = 64  # characters of white space that may belong to the markup
MAX_REREAD = 256  # characters behind a call; with more, calls nested in each other would cost their square
SLICE = 4096  # characters looked at in one go, so that a whole answer at once is no slower than its pieces
MAX_HELD = MAX_VALUE + 4 * SLICE  # characters: such a value, or arguments that come before their name


class Broken(Exception):
    """What looked like a call is none, or breaks off."""


class Enough(Exception):
    """The one call that was wanted is complete."""


class Reader:
    """What has come of one answer and is not read yet, and the events that were made of the rest."""

    def __init__(self, tools: Mapping[str, Mapping[str, Any]], ids: Callable[[], str], single: bool) -> None:
        self.tools = tools  # the schema of each tool's parameters, by name
        self.text = ""
        self.at = 0  # characters of ``text`` that are read
        self.ended = False
        self.out: list[Event] = []
        self.calls = 0
        self.quiet: tuple[str, ...] | None = None  # set while text without these characters is only text
        self.spoke = False  # something was said since the last call
        self._closed = 0  # calls whose closing tag has come
        self._ids, self._single = ids, single
        self._pieces: deque[Text] = deque()  # what is undecided, then what is unread
        self.held = 0  # characters in them
        self._lead = 0  # of these, characters that are text: of a token that is part text, part not yet known

    def add(self, piece: Text) -> None:
        """More text: at most ``SLICE`` characters, and one token if its logprobs are known."""
        self.text = self.text[self.at :] + piece.text
        self.at = 0
        self._pieces.append(piece)
        self.held += len(piece.text)

    # --- decisions about what has been read ---

    def _undecided(self) -> int:
        return self.held - len(self.text) + self.at

    def _settle(self, count: int, whole: bool = False) -> list[Text]:
        """The first ``count`` characters kept, no longer kept; with ``whole`` only tokens that end there."""
        taken: list[Text] = []
        while self._pieces and (count or not self._pieces[0].text):
            piece = self._pieces.popleft()
            if len(piece.text) > count:
                if whole and piece.logprobs is not None:
                    self._pieces.appendleft(piece)
                    break
                piece, rest = split(piece, count)
                self._pieces.appendleft(rest)
            count -= len(piece.text)
            self.held -= len(piece.text)
            taken.append(piece)
        return taken

    def _say(self, pieces: list[Text]) -> int:
        """Show these pieces; how many characters they have."""
        if not pieces:
            return 0
        said = joined(pieces)
        self.out.append(said)
        self.spoke = self.spoke or bool(said.text)
        return len(said.text)

    def drop(self) -> None:
        """What has been read was markup."""
        if self._lead:
            self._say(self._settle(self._lead))
            self._lead = 0
        self._settle(self._undecided())

    def give_back(self) -> None:
        """What has been read was text."""
        self._is_text(self._undecided())

    def _is_text(self, count: int) -> int:
        """The first ``count`` characters kept are text; how many of them are shown: a token is not parted."""
        shown = self._say(self._settle(count, whole=True))
        self._lead = count - shown
        self.spoke = self.spoke or count > 0
        return shown

    def rewind(self) -> None:
        """What has been read is to be read again as text."""
        self.text = "".join([piece.text for piece in self._pieces])
        self.at = self._lead = 0

    def release(self) -> None:
        """All that is kept, read or not, is text."""
        self.at = len(self.text)
        self.give_back()

    def start(self, name: str) -> None:
        """A call begins. What has been read was its markup."""
        self.drop()
        self.out.append(ToolStart(self.calls, self._ids(), name))
        self.calls += 1
        self.spoke = False

    def pass_on(self, text: str) -> None:
        """A piece of the call's arguments. What has been read was made into it."""
        self.drop()
        if text:
            self.out.append(ToolArgs(self.calls - 1, text))

    def think(self, text: str) -> None:
        """A piece of reasoning. What has been read was made into it."""
        self.drop()
        self.out.append(Reasoning(text))

    def spill(self) -> None:
        """What has been read belongs to arguments that broke: they go on as they came."""
        self.pass_on("".join([piece.text for piece in self._settle(self._undecided())]))

    def end(self) -> None:
        """The call's arguments are complete. Raises ``Enough`` if only one call was wanted."""
        self.drop()
        if self._single:
            raise Enough

    def attempt(self, reading: Reading[None]) -> Reading[None]:
        """Read a call behind its opening marker. If there is none, it was text.

        What follows a call in vain, such as white space, is read anew: markup may begin in it.
        """
        before = self.calls
        try:
            yield from reading
        except Broken:
            if self.calls > before and self._undecided() <= MAX_REREAD:
                self.rewind()
            else:
                self.give_back()

    def opening(self, reading: Reading[None]) -> Reading[None]:
        """Read a call that only the beginning of an answer can be. If there is none, it is read anew."""
        try:
            yield from reading
        except Broken:
            self.rewind()

    def close(self) -> None:
        """A closing tag has been read: the last call's, or without one, text."""
        if self.calls > self._closed:
            self._closed = self.calls
            self.drop()
        else:
            self.give_back()

    # --- text ---

    def text_until(self, *markers: str) -> Reading[str]:
        """Show text up to the first of ``markers`` and read that; which it was, "" at the end of the answer.

        No marker may be part of another.
        """
        firsts = tuple({marker[0] for marker in markers})
        while True:
            found, marker = self._first(markers)
            if marker:
                self._is_text(self._lead + self._before_space(found) - self.at)
                self.at = found + len(marker)
                return marker
            if self.ended:
                self._last_words()
                return ""
            safe = self._before_space(self._safe(markers))
            self._show(safe)
            self.quiet = None if self._pieces else firsts
            yield
            self.quiet = None

    def _show(self, safe: int) -> None:
        """Show the unread text up to ``safe``, as far as its tokens end there."""
        shown = self._say(self._settle(self._lead + safe - self.at, whole=True))
        if shown:
            self.at += shown - self._lead
            self._lead = 0

    def raw_until(self, markers: tuple[str, ...], sink: Sink, trim: str = "") -> Reading[str]:
        """Hand text up to the first of ``markers`` to ``sink`` and read that marker; which it was.

        ``trim`` directly before the marker is left out. Raises ``Broken`` at the end of the answer.
        """
        while True:
            found, marker = self._first(markers)
            safe = found if marker else self._safe(markers)
            if trim and self.text.endswith(trim, self.at, safe):
                safe -= len(trim)
            if safe > self.at:
                start, self.at = self.at, safe
                sink(self.text[start:safe])
            if marker:
                self.at = found + len(marker)
                return marker
            if self.ended:
                rest, self.at = self.text[self.at :], len(self.text)
                if rest:
                    sink(rest)
            yield from self.wait()

    def _first(self, markers: tuple[str, ...]) -> tuple[int, str]:
        best, which = len(self.text), ""
        for marker in markers:
            start = self.text.find(marker, self.at)
            if 0 <= start < best:
                best, which = start, marker
        return best, which

    def _safe(self, markers: tuple[str, ...]) -> int:
        """Up to where the unread text can no longer become part of a marker."""
        text, safe = self.text, len(self.text)
        for marker in markers:
            start = text.find(marker[0], max(self.at, len(text) - len(marker) + 1))
            while 0 <= start < safe:
                if marker.startswith(text[start:]):
                    safe = start
                    break
                start = text.find(marker[0], start + 1)
        return safe

    def _before_space(self, position: int) -> int:
        floor = max(self.at, position - MAX_SPACE)
        while position > floor and self.text[position - 1].isspace():
            position -= 1
        return position

    def _last_words(self) -> None:
        rest = self.text[self.at :]
        self.at = len(self.text)
        if self.calls and not self.spoke and (not rest or rest.isspace()):
            self.drop()
        else:
            self.give_back()

    # --- markup ---

    def wait(self) -> Reading[None]:
        """More text. Raises ``Broken`` if none will come."""
        if self.ended:
            raise Broken
        yield

    def peek(self) -> Reading[str]:
        """The next character, not read."""
        while self.at >= len(self.text):
            yield from self.wait()
        return self.text[self.at]

    def spaces(self) -> Reading[None]:
        """White space, if any; something must follow."""
        while (yield from self.peek()).isspace():
            self.at = len(self.text) - len(self.text[self.at :].lstrip())

    def expect(self, literal: str) -> Reading[None]:
        """Read this, or raise ``Broken``."""
        for wanted in literal:
            if (yield from self.peek()) != wanted:
                raise Broken
            self.at += 1

    def sees(self, *literals: str) -> Reading[str]:
        """Which of these comes next, "" if none; not read. No literal may begin another."""
        while True:
            rest = self.text[self.at :]
            for literal in literals:
                if rest.startswith(literal):
                    return literal
            if self.ended or not any(literal.startswith(rest) for literal in literals):
                return ""
            yield

    def takes(self, *literals: str) -> Reading[str]:
        """Which of these comes next, "" if none; read."""
        literal = yield from self.sees(*literals)
        self.at += len(literal)
        return literal

    def word(self) -> Reading[str]:
        """A name: letters, digits, ``_``, ``-``, ``.``; something must follow. Raises ``Broken`` without."""
        letters: list[str] = []
        while (letter := (yield from self.peek())) in _WORD:
            letters.append(letter)
            self.at += 1
            if len(letters) > MAX_NAME:
                raise Broken
        if not letters:
            raise Broken
        return "".join(letters)


_WORD = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-.")


def pieces(event: Text) -> Iterator[Text]:
    """The text as a reader takes it: token by token where tokens are known, else in slices."""
    if event.logprobs is None:
        if len(event.text) <= SLICE:
            yield event
            return
        for start in range(0, len(event.text), SLICE):
            yield Text(event.text[start : start + SLICE])
        return
    at = 0
    for start, end, entry in tokens(event):
        if start > at:
            yield from pieces(Text(event.text[at:start]))
        yield Text(event.text[start:end], (entry,))
        at = end
    if at < len(event.text):
        yield from pieces(Text(event.text[at:]))

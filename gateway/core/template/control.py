"""User text never becomes control tokens.

A template writes control strings (`<|im_end|>`) that the tokenizer turns into control tokens. The same
characters in text from outside would end a turn or start a system one. Here they get a zero-width space
(U+200B) after their first character: a reader sees the same text, a tokenizer sees plain text.

Rule: afterwards no control string is left, however the text overlapped or repeated itself; a second pass
changes nothing; the time is linear in the text. Earlier answers of the assistant may hold what a model
writes by itself (a tool call), so there only the delimiters of turns and the tokens of images count. Markers
that are plain words (`USER:`) are no control strings.

Knows nothing about templates, requests or tokenizers: it is told the strings.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Literal, TypeAlias

from gateway.core.template.errors import ControlStringError, TemplateError

Mode: TypeAlias = Literal["neutralise", "reject", "pass"]
Message: TypeAlias = Mapping[str, Any]

BREAK: Final = "\u200b"  # ZERO WIDTH SPACE: no control token has it inside, and no `strip` removes it


_PIECE: Final = re.compile(r"<[^\s<>]{1,64}>|\[/?[A-Z_]{2,32}\]")


def pieces(form: str) -> tuple[str, ...]:
    """The control tokens in a text that a prompt is made with; of one with a blank in it (`{n}`), its head.

    A text without any is one itself.
    """
    found = _PIECE.findall(form) or filter(None, [form.strip()])
    return tuple(dict.fromkeys(each.partition("{")[0] for each in found))


def pattern(strings: Iterable[str]) -> re.Pattern[str] | None:
    """What matches the first character of each occurrence, overlapping ones included; None for no strings.

    The strings become a trie, so that a text that almost matches hundreds of them costs no more than one
    that almost matches one. Raises ``ValueError`` for a string with no inside to break.
    """
    heads: dict[str, Any] = {}
    for string in strings:
        if len(string) < 2 or BREAK in string:
            raise ValueError(f"{string!r} cannot be a control string: it needs two characters and no U+200B")
        node = heads
        for character in string:
            node = node.setdefault(character, {})
        node[""] = {}
    if not heads:
        return None
    return re.compile("|".join(f"{re.escape(head)}(?={_rest(node)})" for head, node in heads.items()))


def _rest(node: Mapping[str, Any]) -> str:
    """The strings below ``node`` as a regular expression. One that begins with another adds nothing."""
    if "" in node:
        return ""
    branches = [re.escape(character) + _rest(child) for character, child in node.items()]
    return branches[0] if len(branches) == 1 else f"(?:{'|'.join(branches)})"


@dataclass(frozen=True, slots=True)
class Guard:
    """The control strings of one template, compiled.

    ``turns`` are those that delimit turns, ``images`` those of which a prompt has one for each image: neither
    may stand in earlier answers.
    """

    control: tuple[str, ...] = ()
    turns: tuple[str, ...] = ()
    images: tuple[str, ...] = ()
    _everywhere: _Net = field(init=False, repr=False, compare=False)
    _history: _Net = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_everywhere", _Net((*self.control, *self.turns, *self.images)))
        object.__setattr__(self, "_history", _Net((*self.turns, *self.images)))

    def messages(
        self, messages: Sequence[Message], mode: Mode = "neutralise"
    ) -> tuple[Sequence[Message], int]:
        """The messages without control strings, and how many there were; untouched ones are the same objects.

        Raises ``ControlStringError`` in mode ``reject``.
        """
        if mode == "pass" or self._everywhere.found is None:
            return messages, 0
        total = 0
        safe: list[Message] = []
        for message in messages:
            cleaned, count = self._message(message, mode)
            safe.append(cleaned)
            total += count
        return (safe, total) if total else (messages, 0)

    def value(self, value: Any, mode: Mode = "neutralise", role: str = "tools") -> tuple[Any, int]:
        """The same for any JSON value that a template may print: tool definitions, documents. Names count."""
        if mode == "pass":
            return value, 0
        return self._everywhere.clean(value, mode, role)

    def _message(self, message: Message, mode: Mode) -> tuple[Message, int]:
        role = message.get("role", "user")
        history = self._history if role == "assistant" else self._everywhere
        changed: dict[str, Any] = {}
        total = 0
        for key, value in message.items():
            if value is None or key == "role":
                continue
            net = history if key in ("content", "reasoning_content") else self._everywhere
            if type(value) is str and not net.finds(value):
                continue  # nearly all texts
            cleaned, count = net.clean(value, mode, role)
            if count:
                changed[key] = cleaned
                total += count
        return ({**message, **changed}, total) if total else (message, 0)


class _Net:
    """One set of control strings, and how to take them out of texts, lists and objects."""

    __slots__ = ("found", "strings")

    def __init__(self, strings: Iterable[str]) -> None:
        self.strings = sorted(set(strings), key=len, reverse=True)
        self.found = pattern(self.strings)

    def finds(self, text: str) -> bool:
        """Whether any of the strings is in this text."""
        return self.found is not None and self.found.search(text) is not None

    def clean(self, value: Any, mode: Mode, role: str) -> tuple[Any, int]:
        if isinstance(value, str):
            return self._text(value, mode, role)
        if isinstance(value, Mapping):
            return self._object(value, mode, role)
        if isinstance(value, list | tuple):
            pairs = [self.clean(item, mode, role) for item in value]
            count = sum(found for _, found in pairs)
            return ([item for item, _ in pairs], count) if count else (value, 0)
        return value, 0

    def _text(self, text: str, mode: Mode, role: str) -> tuple[str, int]:
        if self.found is None or (first := self.found.search(text)) is None:
            return text, 0
        if mode == "reject":
            at = first.start()
            raise ControlStringError(role, next(s for s in self.strings if text.startswith(s, at)))
        return self.found.subn(rf"\g<0>{BREAK}", text)

    def _object(self, value: Mapping[str, Any], mode: Mode, role: str) -> tuple[Mapping[str, Any], int]:
        cleaned: dict[str, Any] = {}
        total = 0
        for key, item in value.items():
            name, in_name = self._text(key, mode, role)
            clean = self._arguments if key == "arguments" else self.clean
            content, in_item = clean(item, mode, role)
            cleaned[name] = content
            total += in_name + in_item
        return (cleaned, total) if total else (value, 0)

    def _arguments(self, value: Any, mode: Mode, role: str) -> tuple[Any, int]:
        """Arguments are JSON text: what is escaped in it becomes plain once a template prints it."""
        if not isinstance(value, str) or "\\" not in value:
            return self.clean(value, mode, role)
        try:
            cleaned, count = self.clean(json.loads(value), mode, role)
        except RecursionError:
            raise TemplateError("the arguments of a tool call are nested too deeply") from None
        except json.JSONDecodeError:
            return self._text(value, mode, role)
        return (json.dumps(cleaned, ensure_ascii=False), count) if count else self._text(value, mode, role)

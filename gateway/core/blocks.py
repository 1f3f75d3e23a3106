"""Content blocks of Anthropic's Messages API as chat messages.

Rule: pure; a block is translated, or refused by its place. What one speaker says in a row is one message, as
that API has it; results of tools become messages of their own, where they stood. Texts of two blocks have an
empty line between them. Shapes: https://docs.anthropic.com/en/api/messages Knows nothing about what a model
can read.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import orjson

from gateway.core.errors import BadRequest
from gateway.core.places import AT

Block: TypeAlias = Mapping[str, Any]
Message: TypeAlias = dict[str, Any]
Content: TypeAlias = str | list[dict[str, Any]]

ROLES = ("user", "assistant", "system")
BETWEEN = "\n\n"  # two blocks of text
FAILED = "Error: "  # before what a tool said that failed: chat models know no other mark


def conversation(system: Any, messages: Sequence[Mapping[str, Any]]) -> list[Message]:
    """The messages of a chat, images with their places. Raises ``BadRequest`` that names the block."""
    said = _Conversation()
    if system:
        said.say("system", content_of(system, "system", texts_only=True))
    for index, message in enumerate(messages):
        said.add(message, f"messages[{index}]")
    return said.messages


class _Conversation:
    """The messages so far; the last may still grow."""

    def __init__(self) -> None:
        self.messages: list[Message] = []

    def add(self, message: Mapping[str, Any], at: str) -> None:
        role, content = message.get("role"), message.get("content")
        if role == "user":
            self._asked(_blocks(content, f"{at}.content"))
        elif role == "assistant":
            self._answered(_blocks(content, f"{at}.content"))
        elif role == "system":
            self.say("system", content_of(content, f"{at}.content", texts_only=True))
        else:
            raise _wrong(f"{at}.role", f"must be one of {', '.join(ROLES)}")

    def say(self, role: str, content: Content) -> None:
        """Add to the message of this speaker, or begin one."""
        last = self.messages[-1] if self.messages else None
        if last is not None and last["role"] == role:
            last["content"] = _both(last["content"], content)
        else:
            self.messages.append({"role": role, "content": content})

    def _asked(self, blocks: Sequence[tuple[Block, str]]) -> None:
        """What the user says; results of tools end the message before them."""
        parts: list[dict[str, Any]] = []
        for block, at in blocks:
            if block["type"] != "tool_result":
                parts.append(_part(block, at))
                continue
            if parts:
                self.say("user", _joined(parts))
            parts = []
            self.messages.append(_result(block, at))
        if parts:
            self.say("user", _joined(parts))

    def _answered(self, blocks: Sequence[tuple[Block, str]]) -> None:
        """What the assistant said, thought and called: one message."""
        texts, thoughts, calls = [], [], []
        for block, at in blocks:
            kind = block["type"]
            if kind == "text":
                texts.append(_text(block, "text", at))
            elif kind == "thinking":
                thoughts.append(_text(block, "thinking", at))
            elif kind == "tool_use":
                calls.append(_call(block, at))
            elif kind != "redacted_thinking":  # which only its maker can read
                raise _foreign(kind, at, "text, thinking and calls of tools")
        self.say("assistant", _paragraphs(texts))
        turn = self.messages[-1]
        if thoughts:
            turn["reasoning_content"] = _paragraphs([turn.get("reasoning_content", ""), *thoughts])
        if calls:
            turn["tool_calls"] = [*turn.get("tool_calls", ()), *calls]


def content_of(content: Any, where: str, *, texts_only: bool = False) -> Content:
    """A content as chat has it: text, or a list of parts if it holds an image. Raises ``BadRequest``."""
    blocks = _blocks(content, where)
    if texts_only and (other := next((each for each in blocks if each[0]["type"] != "text"), None)):
        raise _foreign(other[0]["type"], other[1], "text")
    return _joined([_part(block, at) for block, at in blocks])


def _blocks(content: Any, where: str) -> list[tuple[Block, str]]:
    """The blocks of a content, each with its place; a text is one block."""
    if isinstance(content, str):
        return [({"type": "text", "text": content}, where)]
    if not isinstance(content, list) or not content:
        raise _wrong(where, "must be a text or a list of blocks")
    blocks = [(block, f"{where}[{index}]") for index, block in enumerate(content)]
    for block, at in blocks:
        if not isinstance(block, dict) or not isinstance(block.get("type"), str):
            raise _wrong(at, 'must be an object with a type, such as {"type": "text", "text": ...}')
    return blocks


def _part(block: Block, at: str) -> dict[str, Any]:
    if block["type"] == "text":
        return {"type": "text", "text": _text(block, "text", at)}
    if block["type"] == "image":
        image = {"url": _address(block.get("source"), f"{at}.source")}
        return {"type": "image_url", "image_url": image, AT: at}
    raise _foreign(block["type"], at, "text, images and results of tools")


def _address(source: Any, at: str) -> str:
    """Where an image is; what it is made of is an address too."""
    kind = source.get("type") if isinstance(source, dict) else None
    if kind == "url":
        return _text(source, "url", at)
    if kind == "base64":
        return f"data:{_text(source, 'media_type', at)};base64,{_text(source, 'data', at)}"
    raise BadRequest(
        f"{at}: an image is given as base64, or by its url.", param=at, code="unsupported_content"
    )


def _result(block: Block, at: str) -> Message:
    """What a tool said. One that failed says so before its own words."""
    content: Content = ""
    if block.get("content"):
        content = content_of(block["content"], f"{at}.content")
    if block.get("is_error") is True:
        if isinstance(content, str):
            content = FAILED + content
        else:
            content = [{"type": "text", "text": FAILED}, *content]
    return {"role": "tool", "tool_call_id": _text(block, "tool_use_id", at), "content": content}


def _call(block: Block, at: str) -> dict[str, Any]:
    if not isinstance(given := block.get("input"), dict):
        raise _wrong(f"{at}.input", "must be an object")
    function = {"name": _text(block, "name", at), "arguments": orjson.dumps(given).decode()}
    return {"id": _text(block, "id", at), "type": "function", "function": function}


def _joined(parts: list[dict[str, Any]]) -> Content:
    if all(part["type"] == "text" for part in parts):
        return _paragraphs([part["text"] for part in parts])
    return parts


def _both(first: Content, second: Content) -> Content:
    if isinstance(first, str) and isinstance(second, str):
        return _paragraphs([first, second])
    return [*_parts(first), *_parts(second)]


def _parts(content: Content) -> list[dict[str, Any]]:
    if isinstance(content, str):
        return [{"type": "text", "text": content}] if content else []
    return content


def _paragraphs(texts: Sequence[str]) -> str:
    return BETWEEN.join(filter(None, texts))


def _text(block: Block, name: str, at: str) -> str:
    value = block.get(name)
    if not isinstance(value, str):
        raise _wrong(f"{at}.{name}", "must be a text")
    return value


def _wrong(where: str, why: str) -> BadRequest:
    return BadRequest(f"{where} {why}.", param=where, code="invalid_value")


def _foreign(kind: str, at: str, known: str) -> BadRequest:
    named = kind if kind.isidentifier() and len(kind) <= 64 else "unknown"
    return BadRequest(
        f"{at}: blocks of type {named!r} are not accepted here; there are {known}.",
        param=f"{at}.type",
        code="unsupported_content",
    )

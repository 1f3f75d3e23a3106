"""Items of OpenAI's Responses API as chat messages.

Rule: pure; an item is translated, or refused by its place. What an assistant did in a row (reasoning, text,
calls) becomes one message, as chat models know it. Shapes:
https://platform.openai.com/docs/api-reference/responses/create Knows nothing about what is stored where.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeAlias

from gateway.core.errors import BadRequest
from gateway.core.places import AT

Item: TypeAlias = Mapping[str, Any]
Message: TypeAlias = dict[str, Any]
Recall: TypeAlias = Callable[[str], Item]
"""The stored item with this id. Raises ``BadRequest``."""

ROLES = ("user", "assistant", "system", "developer")
_TEXTS = ("input_text", "output_text", "text", "reasoning_text", "summary_text")


def messages(items: Iterable[Any], recall: Recall, where: str = "input") -> list[Message]:
    """The messages of a conversation, images with their places. Raises ``BadRequest`` that names the item."""
    said = _Conversation()
    for index, item in enumerate(items):
        at = f"{where}[{index}]"
        if kind_of(item, at) == "item_reference":
            item = recall(_text(item, "id", at))
        said.add(item, at)
    return said.messages


def kind_of(item: Any, at: str) -> str:
    """The type of an item; a message and a reference may leave it out."""
    if not isinstance(item, dict):
        raise _wrong(at, "must be an object with a type")
    kind = item.get("type")
    if kind is None:
        kind = "message" if "role" in item else "item_reference" if "id" in item else None
    if not isinstance(kind, str):
        raise _wrong(f"{at}.type", "must be a text")
    return kind


class _Conversation:
    """Messages so far; ``_turn`` is the assistant's while it may still grow."""

    def __init__(self) -> None:
        self.messages: list[Message] = []
        self._turn: Message | None = None

    def add(self, item: Item, at: str) -> None:
        kind = kind_of(item, at)
        if kind == "message":
            self._message(item, at)
        elif kind == "function_call":
            self._call(item, at)
        elif kind == "function_call_output":
            content = content_of(item.get("output"), f"{at}.output")
            self._say({"role": "tool", "tool_call_id": _text(item, "call_id", at), "content": content})
        elif kind == "reasoning":
            self._reason(item, at)
        else:
            named = kind if kind.isidentifier() and len(kind) <= 64 else "unknown"
            raise BadRequest(
                f"{at}.type: items of type {named!r} are not accepted; there are messages, function calls, "
                "their outputs, reasoning, and references to stored items.",
                param=f"{at}.type",
                code="invalid_value",
            )

    def _message(self, item: Item, at: str) -> None:
        role = item.get("role")
        if role not in ROLES:
            raise _wrong(f"{at}.role", f"must be one of {', '.join(ROLES)}")
        content = content_of(item.get("content"), f"{at}.content")
        if role != "assistant":
            self._say({"role": role, "content": content})
        elif not isinstance(content, str):
            raise _wrong(f"{at}.content", "of an assistant must be text")
        elif self._turn is None or ("tool_calls" not in self._turn and self._turn["content"]):
            self._turn = self._say({"role": "assistant", "content": content})
        else:
            self._turn["content"] = (self._turn["content"] or "") + content

    def _call(self, item: Item, at: str) -> None:
        function = {"name": _text(item, "name", at), "arguments": _text(item, "arguments", at)}
        call = {"id": _text(item, "call_id", at), "type": "function", "function": function}
        turn = self._open()
        turn["content"] = turn["content"] or None
        turn.setdefault("tool_calls", []).append(call)

    def _reason(self, item: Item, at: str) -> None:
        """Reasoning that only its maker can read is as good as none."""
        parts = item.get("content") or item.get("summary") or ()
        text = content_of(parts, f"{at}.content") if parts else ""
        if not isinstance(text, str):
            raise _wrong(f"{at}.content", "must be text")
        if text:
            turn = self._open(fresh=True)
            turn["reasoning_content"] = turn.get("reasoning_content", "") + text

    def _open(self, *, fresh: bool = False) -> Message:
        """The assistant's turn. ``fresh``: not one that has ended with its text."""
        turn = self._turn
        if turn is None or (fresh and turn["content"] and "tool_calls" not in turn):
            turn = self._turn = self._say({"role": "assistant", "content": ""})
        return turn

    def _say(self, message: Message) -> Message:
        self.messages.append(message)
        self._turn = None
        return message


def content_of(content: Any, where: str) -> str | list[dict[str, Any]]:
    """A content as chat has it: text, or a list of parts if it holds an image. Raises ``BadRequest``."""
    if isinstance(content, str):
        return content
    if not isinstance(content, list):
        raise _wrong(where, "must be a text or a list of parts")
    parts = [_part(part, f"{where}[{index}]") for index, part in enumerate(content)]
    if all(part["type"] == "text" for part in parts):
        return "".join(part["text"] for part in parts)
    return parts


def _part(part: Any, at: str) -> dict[str, Any]:
    kind = part.get("type") if isinstance(part, dict) else None
    if kind in _TEXTS:
        return {"type": "text", "text": _text(part, "text", at)}
    if kind == "refusal":
        return {"type": "text", "text": _text(part, "refusal", at)}
    if kind == "input_image" and part.get("image_url") is not None:
        image = {"url": _text(part, "image_url", at)}
        if part.get("detail") is not None:
            image["detail"] = _text(part, "detail", at)
        return {"type": "image_url", "image_url": image, AT: at}
    if not isinstance(kind, str):
        raise _wrong(at, 'must be an object with a type, such as {"type": "input_text", "text": ...}')
    named = kind if kind.isidentifier() and len(kind) <= 64 else "unknown"
    raise BadRequest(
        f"{at}: parts of type {named!r} are not accepted; send text, or images by URL.",
        param=f"{at}.type",
        code="unsupported_content",
    )


def _text(item: Item, name: str, at: str) -> str:
    value = item.get(name)
    if not isinstance(value, str):
        raise _wrong(f"{at}.{name}", "must be a text")
    return value


def _wrong(where: str, why: str) -> BadRequest:
    return BadRequest(f"{where} {why}.", param=where, code="invalid_value")

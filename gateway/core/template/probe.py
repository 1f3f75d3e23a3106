"""Asks a template that came with a model what it does, with conversations made for the purpose.

Rule: a template that raises has said so aloud, and its error goes to whoever sends such messages; one that
drops a message without a word is given that message in a form it shows.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any, Final, Literal

from gateway.core.template.arrange import Arguments, Habits, Manner, Message
from gateway.core.template.errors import TemplateError
from gateway.core.template.sandbox import Program

# Words that no template writes by itself.
_SYSTEM: Final = {"role": "system", "content": "qzsystem"}
_USER: Final = {"role": "user", "content": "qzuser"}
_ANSWER: Final = {"role": "assistant", "content": "qzanswer"}
_AGAIN: Final = {"role": "user", "content": "qzagain"}
_CALL_ID: Final = "qzcall123"  # nine characters: Mistral's templates refuse any other length
_RESULT: Final = {"role": "tool", "content": "qzresult", "tool_call_id": _CALL_ID, "name": "qztool"}
_ARGUMENTS: Final = Arguments('{"a": "qzargument"}', {"a": "qzargument"})
_CALL: Final = {
    "id": _CALL_ID,
    "type": "function",
    "function": {"name": "qztool", "arguments": _ARGUMENTS},
}
_PARAMETERS: Final = {
    "type": "object",
    "properties": {"a": {"type": "string", "description": "qz"}},
    "required": ["a"],
}
_TOOL: Final = {
    "type": "function",
    "function": {"name": "qzdefined", "description": "qz", "parameters": _PARAMETERS},
}
_NOW: Final = datetime(2024, 7, 26)


def ask(program: Program) -> Habits:
    """What this template does with messages that many templates know nothing of."""
    return Habits(
        developer="developer" in program.literals,  # it is compared with, so it is known
        system=_system(program, [_SYSTEM, _USER]),
        late_system=_system(program, [_USER, _ANSWER, _SYSTEM, _AGAIN]),
        calls=_calls(program),
        results=_shows_call(program, "", "qzresult"),
        tools=_shows(program, [_USER], "qzdefined", [_TOOL]),
    )


def turn_marks(program: Program, special: Iterable[str]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The special strings that the template writes around plain turns, and the first one after an answer."""
    turns = [_USER, _ANSWER, _AGAIN]
    text = _prompt(program, [_SYSTEM, *turns]) or _prompt(program, turns) or ""
    written = tuple(string for string in special if string in text)
    after = text.partition("qzanswer")[2].partition("qzagain")[0]
    ends = sorted((s for s in written if s in after), key=lambda s: (after.index(s), -len(s)))
    return written, tuple(ends[:1])


def written(program: Program) -> str:
    """Everything that the template writes around a plain conversation, and its literal texts."""
    return "\0".join([_prompt(program, [_USER, _ANSWER, _AGAIN]) or "", *program.literals])


def _calls(program: Program) -> Literal["text", "none"] | None:
    if _shows_call(program, "", "qzargument"):
        return "text"
    return "none" if _shows_call(program, None, "qzargument") else None


def _shows_call(program: Program, content: str | None, word: str) -> bool:
    """Whether the word is in the prompt of a call and its result; some templates need the tools for that."""
    calling: Message = {"role": "assistant", "content": content, "tool_calls": [_CALL]}
    messages = [_USER, calling, _RESULT]
    return _shows(program, messages, word) or _shows(program, messages, word, [_TOOL])


def _system(program: Program, messages: Sequence[Message]) -> Manner:
    text = _prompt(program, messages)
    if text is None:
        return "refuses"
    return "shows" if "qzsystem" in text else "drops"


def _shows(program: Program, messages: Sequence[Message], word: str, tools: list[Any] | None = None) -> bool:
    return word in (_prompt(program, messages, tools) or "")


def _prompt(program: Program, messages: Sequence[Message], tools: list[Any] | None = None) -> str | None:
    """What the template makes of this; None where it refuses the messages."""
    variables = {
        "messages": messages,
        "tools": tools,
        "documents": None,
        "add_generation_prompt": True,
        "strftime_now": _NOW.strftime,
    }
    try:
        return program.run(variables)
    except TemplateError:
        return None

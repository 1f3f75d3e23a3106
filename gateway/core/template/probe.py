"""Asks a template that came with a model what it does, with conversations made for the purpose.

Rule: a template that raises has said so aloud, and its error goes to whoever sends such messages; one that
drops a message without a word is given that message in a form it shows.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any, Final, Literal

from gateway.core.template.arrange import Arguments, Habits, Manner, Message
from gateway.core.template.errors import TemplateError
from gateway.core.template.parts import IMAGE, AnyProgram, text

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
_TOLD: Final = (text("qzuser"), text("qzmore"))
_BRACKETS: Final = re.compile(r"\s*[<\[(].*[>\])]\s*", re.DOTALL)
_NOW: Final = datetime(2024, 7, 26)


def ask(program: AnyProgram) -> Habits:
    """What this template does with messages that many templates know nothing of."""
    return Habits(
        developer="developer" in program.literals,  # it is compared with, so it is known
        system=_system(program, [_SYSTEM, _USER]),
        late_system=_system(program, [_USER, _ANSWER, _SYSTEM, _AGAIN]),
        calls=_calls(program),
        results=_shows_call(program, "", "qzresult"),
        tools=_shows(program, [_USER], "qzdefined", [_TOOL]),
        image=_image(program),
    )


def wants_parts(program: AnyProgram) -> bool:
    """Whether it shows a content only where that is a list of parts."""
    return not _shows(program, [_USER], "qzuser") and _shows_parts(program)


def turn_marks(program: AnyProgram, special: Iterable[str]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The special strings that the template writes around plain turns, and the first one after an answer."""
    turns = [_USER, _ANSWER, _AGAIN]
    text = _prompt(program, [_SYSTEM, *turns]) or _prompt(program, turns) or ""
    written = tuple(string for string in special if string in text)
    after = text.partition("qzanswer")[2].partition("qzagain")[0]
    ends = sorted((s for s in written if s in after), key=lambda s: (after.index(s), -len(s)))
    return written, tuple(ends[:1])


def written(program: AnyProgram) -> str:
    """Everything that the template writes around a plain conversation, and its literal texts."""
    return "\0".join([_prompt(program, [_USER, _ANSWER, _AGAIN]) or "", *program.literals])


def _image(program: AnyProgram) -> str | None:
    """What it writes for a part that is an image; None where it does not look at parts, or numbers images.

    Two images are compared with one: some templates write another beginning where there is any.
    """
    if not _shows_parts(program):
        return None
    first, last = _TOLD
    asked = [[{"role": "user", "content": [first, *[IMAGE] * images, last]}] for images in range(3)]
    none, one, two = (_prompt(program, messages) or "" for messages in asked)
    token = _inserted(one, two)
    return token if token.strip() and token.strip() in one and token.strip() not in none else None


def _shows_parts(program: AnyProgram) -> bool:
    """Whether it shows the text of parts, and not the list as Python or JSON writes it."""
    shown = _prompt(program, [{"role": "user", "content": list(_TOLD)}]) or ""
    return "qzuser" in shown and "{'type'" not in shown and '{"type"' not in shown


def _inserted(before: str, after: str) -> str:
    """The one text that ``after`` has more than ``before``, or an empty one.

    Among texts of which each is another turned around, one between brackets is the token.
    """
    more = max(len(after) - len(before), 0)
    places = [at for at in range(len(before) + 1) if after[:at] + after[at + more :] == before]
    found = [after[at : at + more] for at in places]
    return next((text for text in found if _BRACKETS.fullmatch(text)), found[0] if found else "")


def _calls(program: AnyProgram) -> Literal["text", "none"] | None:
    if _shows_call(program, "", "qzargument"):
        return "text"
    return "none" if _shows_call(program, None, "qzargument") else None


def _shows_call(program: AnyProgram, content: str | None, word: str) -> bool:
    """Whether the word is in the prompt of a call and its result; some templates need the tools for that."""
    calling: Message = {"role": "assistant", "content": content, "tool_calls": [_CALL]}
    messages = [_USER, calling, _RESULT]
    return _shows(program, messages, word) or _shows(program, messages, word, [_TOOL])


def _system(program: AnyProgram, messages: Sequence[Message]) -> Manner:
    text = _prompt(program, messages)
    if text is None:
        return "refuses"
    return "shows" if "qzsystem" in text else "drops"


def _shows(
    program: AnyProgram, messages: Sequence[Message], word: str, tools: list[Any] | None = None
) -> bool:
    return word in (_prompt(program, messages, tools) or "")


def _prompt(program: AnyProgram, messages: Sequence[Message], tools: list[Any] | None = None) -> str | None:
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

"""A template as a value: the facts of a family, and the function from messages to the prompt.

Rule: the prompt is the complete text, special tokens written out; at its start stands one BOS or none (then
the backend's tokenizer adds its own). The turn of the assistant is always opened at the end, also after a
message of the assistant. A ``Template`` is frozen and may be shared between threads.

Knows nothing about files, requests or models.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any, Final

from gateway.core.template.arrange import Habits, Message, Shape, Tools
from gateway.core.template.control import Guard, Mode
from gateway.core.template.errors import TemplateError
from gateway.core.template.fill_in import FillIn
from gateway.core.template.image import ImageToken
from gateway.core.template.parts import AnyProgram

# An option of one of these names would replace what `render` passes, or looks like a setting of a renderer.
_RESERVED: Final = frozenset(
    {"messages", "tools", "documents", "raise_exception", "strftime_now", "chat_template", "tokenize"}
)


@dataclass(frozen=True, slots=True)
class Form:
    """A program, and what it can show."""

    program: AnyProgram
    shape: Shape | Habits


@dataclass(frozen=True, slots=True)
class Template:
    """One chat template. ``render`` makes the prompt; everything else is data.

    ``stops`` end an answer; ``stop_token_ids`` are the same as token ids, where they were published.
    ``ignores_system``: the family's format has a fixed system message, so the client's has no effect and
    should be reported as ignored. ``renders_tools``: tools have the model's own form; otherwise they are
    rendered as text. ``dialect`` is how the family writes its calls, ``states_dialect`` that this was
    said of it. ``image`` stands for an image in the
    content of messages, ``fill_in`` asks for the text between two others; None where the family has neither.
    """

    name: str
    form: Form = field(repr=False)
    tool_form: Form | None = field(default=None, repr=False)  # for requests with tools, if it is another
    aliases: tuple[str, ...] = ()
    stops: tuple[str, ...] = ()
    stop_token_ids: tuple[int, ...] = ()
    guard: Guard = field(default_factory=Guard, repr=False)
    default_system: str | None = None
    ignores_system: bool = False
    renders_tools: bool = False
    dialect: str = "hermes"
    states_dialect: bool = False
    image: ImageToken | None = None
    fill_in: FillIn | None = None
    notes: str = ""

    @property
    def control(self) -> tuple[str, ...]:
        """Strings that the tokenizer turns into control tokens; text from outside must not hold them."""
        return self.guard.control

    @property
    def turns(self) -> tuple[str, ...]:
        """Those of ``control`` that delimit turns."""
        return self.guard.turns

    @property
    def variables(self) -> frozenset[str]:
        """Names that the template looks up: an option of any other name changes nothing."""
        forms = (self.form, self.tool_form) if self.tool_form else (self.form,)
        return frozenset().union(*(form.program.variables for form in forms))

    def teaches(self, dialect: str) -> bool:
        """Whether its own form for tools is, as far as is known, that of this dialect."""
        return self.renders_tools and (not self.states_dialect or dialect == self.dialect)

    def with_image(self, text: str) -> Template:
        """The template with another token for images. Raises ``ValueError`` for one of a single character."""
        token = ImageToken(text)
        return replace(self, image=token, guard=Guard(self.control, self.turns, token.pieces))

    def render(
        self,
        messages: Sequence[Message],
        *,
        tools: Tools | None = None,
        documents: Sequence[Mapping[str, Any]] | None = None,
        options: Mapping[str, Any] | None = None,
        now: datetime | None = None,
    ) -> str:
        """The prompt for these messages, ready for the assistant to answer.

        ``messages`` are dicts of ``role``, ``content`` (text) and optionally ``name``, ``tool_calls``,
        ``tool_call_id``, ``reasoning_content``; ``tools`` are OpenAI's definitions, or a text about them for
        a template without a form of its own; ``options`` are variables of the template
        (``enable_thinking``); ``now`` is for templates that write a date. Control strings are not looked
        for here: see ``neutralise``. Raises ``TemplateError``.
        """
        form = self.tool_form if tools and self.tool_form else self.form
        said = form.shape.arrange(messages, tools or None)
        variables: dict[str, Any] = {"add_generation_prompt": True}
        if options:
            variables |= _allowed(options)
        variables["messages"] = said.messages
        variables["tools"] = said.tools
        variables["documents"] = documents
        if said.system is not None:
            variables["system"] = said.system
        if now is not None:
            variables["strftime_now"] = now.strftime
        return form.program.run(variables)


def neutralise(messages: Sequence[Message], template: Template, mode: Mode) -> tuple[Sequence[Message], int]:
    """The messages without control strings of this template, and how many there were.

    ``mode`` is ``neutralise`` (each gets U+200B after its first character), ``reject`` (a
    ``ControlStringError`` says which role and which string) or ``pass``. For tool definitions and documents
    there is ``template.guard.value``.
    """
    return template.guard.messages(messages, mode)


def _allowed(options: Mapping[str, Any]) -> Mapping[str, Any]:
    if taken := _RESERVED.intersection(options):
        raise TemplateError(f"{min(taken)!r} is no option of a template")
    return options

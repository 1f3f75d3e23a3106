"""From the text of a template file, or of a model's own template, to a ``Template``.

Rule: a file with data at its head says what is true of it. A template that came with a model says nothing,
so it is asked once what it does with system messages, tools and the end of a turn (``probe.py``).

Knows nothing about folders and file formats: texts and token strings are passed in.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final

from gateway.core.template.arrange import Habits, Shape
from gateway.core.template.control import BREAK, Guard
from gateway.core.template.errors import TemplateError
from gateway.core.template.front import Front, read, split
from gateway.core.template.image import ImageToken
from gateway.core.template.parts import AnyProgram, Parted
from gateway.core.template.probe import ask, turn_marks, wants_parts, written
from gateway.core.template.sandbox import Program
from gateway.core.template.template import Form, Template

# What control tokens look like: the best there is for a template whose tokenizer nobody has shown us.
_TOKEN: Final = re.compile(
    r"<\|[^\s<>|]{1,64}\|>|<｜[^\s<>｜]{1,64}｜>|</?s>|<(?:start|end)_of_turn>|<[be]os>|\[/?[A-Z_]{3,32}\]"
)


@dataclass(frozen=True, slots=True)
class Tokens:
    """What a model's tokenizer files say.

    ``named``: ``bos_token`` and its like, given to the template. ``special``: the special added tokens; None
    where no file lists them.
    """

    named: Mapping[str, str] = field(default_factory=dict)
    special: tuple[str, ...] | None = None


def compile_template(name: str, source: str, family: str | None = None) -> Template:
    """The template in the text of a ``.jinja`` file; ``family`` is the text of the family file it names.

    A file without data at its head, or whose ``system`` is ``model``, is a Hugging Face template. Raises
    ``TemplateError``.
    """
    data, body = split(source)
    if data is None:
        return compile_model(name, body)
    shared: Mapping[str, Any] = {}
    if family is not None:
        if body.strip():
            raise TemplateError("a template that names a family has no body of its own")
        head, body = split(family)
        shared = head or {}
        _known_values(data, shared)
    front = read(data, shared)
    tokens = {key: token for key, token in (("bos_token", front.bos), ("eos_token", front.eos)) if token}
    if front.system == "model":
        return _as_told(compile_model(name, body, Tokens(tokens)), front)
    program = Program(body, {**front.values, **tokens}, {})
    shape = Shape(front.system, front.default_system, front.tools)
    return _as_told(Template(name, Form(program, shape), renders_tools=front.tools), front)


def compile_model(
    name: str, source: str, tokens: Tokens | None = None, tool_source: str | None = None
) -> Template:
    """A template that came with a model. ``tool_source`` is used instead where a request has tools."""
    tokens = tokens or Tokens()
    form = _model_form(source, tokens)
    tool_form = _model_form(tool_source, tokens) if tool_source is not None else None
    control = _control(form.program, tokens)
    turns, ends = turn_marks(form.program, control)
    eos = [tokens.named["eos_token"]] if tokens.named.get("eos_token") in control else []
    shape = form.shape
    image = ImageToken(shape.image) if isinstance(shape, Habits) and shape.image else None
    return Template(
        name,
        form,
        tool_form,
        stops=tuple(dict.fromkeys([*eos, *ends])),
        guard=_guard(control, tuple(dict.fromkeys([*turns, *eos])), image),
        renders_tools=(tool_form or form).shape.tools,
        image=image,
    )


def _model_form(source: str, tokens: Tokens) -> Form:
    program = Program(source, {}, tokens.named)
    shown = Parted(program) if wants_parts(program) else program
    return Form(shown, ask(shown))


def _control(program: AnyProgram, tokens: Tokens) -> tuple[str, ...]:
    """The special tokens; where no file lists them, the named ones and what looks like one."""
    found = [*tokens.named.values(), *(tokens.special or ())]
    if tokens.special is None:
        found += _TOKEN.findall(written(program))
    breakable = (t for t in found if len(t) > 1 and not t.isspace() and BREAK not in t)
    return tuple(dict.fromkeys(breakable))


def _known_values(data: Mapping[str, Any], shared: Mapping[str, Any]) -> None:
    known = shared.get("values", {})
    if unknown := data.get("values", {}).keys() - known.keys():
        raise TemplateError(f"its family has no values {sorted(unknown)}, only {sorted(known)}")


def _as_told(template: Template, front: Front) -> Template:
    """The template with everything that the data at its head says."""
    image = template.image if front.image is None else ImageToken(front.image)
    return replace(
        template,
        aliases=front.aliases,
        stops=front.stops or template.stops,
        stop_token_ids=front.stop_token_ids,
        guard=_guard(front.control or template.control, front.turns or template.turns, image),
        default_system=front.default_system,
        ignores_system=front.system == "ignored",
        dialect=front.dialect,
        states_dialect=front.tools or "dialect" in front.model_fields_set,
        image=image,
        fill_in=front.fill_in,
        notes=front.notes,
    )


def _guard(control: tuple[str, ...], turns: tuple[str, ...], image: ImageToken | None) -> Guard:
    try:
        return Guard(control, turns, image.pieces if image else ())
    except ValueError as exc:
        raise TemplateError(str(exc)) from None

"""Jinja as Hugging Face gives it to chat templates: sandboxed, with the same helpers, and bounded.

Source: ``transformers.utils.chat_template_utils`` (trim_blocks, lstrip_blocks, loop controls, a ``tojson``
that does not escape HTML, ``raise_exception``, ``strftime_now``, the ``generation`` block).

Rule: compiled once, then rendered at the cost of its own statements; constants are folded in when it is
compiled. Nothing here reads a file or a clock: ``strftime_now`` exists only where a time was passed in.
Knows nothing about messages.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Final

import jinja2
from jinja2 import nodes
from jinja2.ext import Extension
from jinja2.meta import find_undeclared_variables
from jinja2.parser import Parser
from jinja2.runtime import Context
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.visitor import NodeTransformer

from gateway.core.template.errors import TemplateError

MAX_PROMPT: Final = 1 << 25  # characters: four times the largest request body accepted by default

# What a statement of a template can raise beside Jinja's own errors, all of them the fault of the template
# or of the messages: a wrong type, a missing key, a division by zero, an endless recursion, a huge string.
_FAULTS: Final = (
    ArithmeticError,
    AttributeError,
    LookupError,
    MemoryError,
    RecursionError,
    TypeError,
    ValueError,
)


class Program:
    """One compiled template. Holds no state, so threads may share it."""

    __slots__ = ("_compiled", "literals", "variables")

    def __init__(self, source: str, constants: Mapping[str, Any], defaults: Mapping[str, Any]) -> None:
        """``constants`` are folded in; ``defaults`` are variables that ``run`` may override.

        Raises ``TemplateError`` for bad syntax, with the line.
        """
        try:
            tree = _ENVIRONMENT.parse(source)
            self.literals: frozenset[str] = frozenset(_literals(tree))
            self.variables: frozenset[str] = frozenset(find_undeclared_variables(tree))
            code = _ENVIRONMENT.compile(_Fold(constants).visit(tree), "template", "template")
        except jinja2.TemplateSyntaxError as exc:
            raise TemplateError(f"line {exc.lineno} of the template: {exc.message}") from None
        self._compiled = jinja2.Template.from_code(_ENVIRONMENT, code, {**_ENVIRONMENT.globals, **defaults})

    def run(self, variables: dict[str, Any]) -> str:
        """The text it writes. Raises ``TemplateError``."""
        pieces: list[str] = []
        size = 0
        try:
            for piece in self._compiled.root_render_func(self._compiled.new_context(variables)):
                size += len(piece)
                if size > MAX_PROMPT:
                    _within(size)
                pieces.append(piece)
        except TemplateError:
            raise
        except jinja2.TemplateError as exc:
            raise TemplateError(exc.message or "it gave no reason") from None
        except _FAULTS as exc:
            raise TemplateError(f"{type(exc).__name__}: {str(exc)[:200]}") from None
        return "".join(pieces)


class _Generation(Extension):
    """``{% generation %}`` marks the assistant's words for training; for a prompt it is only a scope."""

    tags = {"generation"}  # noqa: RUF012 - as the base class declares it

    def parse(self, parser: Parser) -> nodes.Node:
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return nodes.Scope(body, lineno=line)


class _Sandbox(ImmutableSandboxedEnvironment):
    """The sandbox, in which ``*`` cannot make a text or list that is larger than any prompt."""

    intercepted_binops = frozenset({"*"})

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        for sequence, times in ((left, right), (right, left)):
            if isinstance(sequence, str | list | tuple) and isinstance(times, int):
                _within(len(sequence) * times)
        return super().call_binop(context, operator, left, right)


class _Fold(NodeTransformer):
    """Replaces names by constants."""

    def __init__(self, constants: Mapping[str, Any]) -> None:
        self.constants = constants

    def visit_Name(self, node: nodes.Name) -> nodes.Node:
        if node.ctx == "load" and node.name in self.constants:
            return nodes.Const(self.constants[node.name], lineno=node.lineno, environment=node.environment)
        return node


def _within(size: int) -> None:
    if size > MAX_PROMPT:
        raise TemplateError(f"the prompt would be longer than {MAX_PROMPT} characters")


def _literals(tree: nodes.Template) -> list[str]:
    """The texts that a template holds: what it writes as it stands, and its string constants."""
    texts = [data.data for data in tree.find_all(nodes.TemplateData)]
    return texts + [c.value for c in tree.find_all(nodes.Const) if isinstance(c.value, str)]


def _raise_exception(message: str) -> None:
    raise jinja2.TemplateError(message)


def _tojson(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    return json.dumps(
        value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys
    )


def _environment() -> ImmutableSandboxedEnvironment:
    made = _Sandbox(trim_blocks=True, lstrip_blocks=True, extensions=[_Generation, "jinja2.ext.loopcontrols"])
    made.filters["tojson"] = _tojson
    made.globals["raise_exception"] = _raise_exception
    del made.globals["lipsum"]  # random text has no place in a prompt
    return made


_ENVIRONMENT: Final = _environment()

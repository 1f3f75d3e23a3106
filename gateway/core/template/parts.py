"""Contents as lists of parts, for templates that came with a model that sees.

Rule: parts are `{"type": "text", "text": ...}` and `{"type": "image"}`, as transformers passes them. Knows
nothing about images.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, TypeAlias

from gateway.core.template.sandbox import Program

IMAGE: Final[Mapping[str, Any]] = {"type": "image"}


def text(said: str) -> dict[str, Any]:
    """A part that is text."""
    return {"type": "text", "text": said}


class Parted:
    """A program that shows parts and no plain text: every text becomes a part."""

    __slots__ = ("_program", "literals", "variables")

    def __init__(self, program: Program) -> None:
        self._program = program
        self.literals = program.literals
        self.variables = program.variables

    def run(self, variables: dict[str, Any]) -> str:
        """The text it writes. Raises ``TemplateError``."""
        messages = [_in_parts(message) for message in variables["messages"]]
        return self._program.run({**variables, "messages": messages})


AnyProgram: TypeAlias = Program | Parted


def _in_parts(message: Mapping[str, Any]) -> Mapping[str, Any]:
    content = message.get("content")
    return {**message, "content": [text(content)]} if isinstance(content, str) else message


def split(content: str, token: str) -> list[Mapping[str, Any]]:
    """A content as parts, with an image in place of each ``token``."""
    parts: list[Mapping[str, Any]] = []
    for said in content.split(token):
        parts += [text(said)] * bool(said) + [IMAGE]
    return parts[:-1]

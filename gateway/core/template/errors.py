"""What goes wrong with a template, as one small tree of ``ValueError``s.

Rule: a message says what and what to do; it shows neither a path nor more of a prompt than a control string.
"""

from __future__ import annotations


class TemplateError(ValueError):
    """A template cannot be read, or refuses these messages."""


class ControlStringError(TemplateError):
    """Text from outside holds a control string and the mode is ``reject``."""

    def __init__(self, role: str, control: str) -> None:
        super().__init__(f"text of role {role!r} holds the control string {control!r}, which is refused")
        self.role = role
        self.control = control

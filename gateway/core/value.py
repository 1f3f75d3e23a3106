"""Values that are made for every request or event: frozen for who writes the code, plain for the interpreter.

Rule: for values of the hot path alone; anything else is a frozen dataclass. Creating one of those calls
``object.__setattr__`` for each field, which takes four times as long as assigning, and an answer is made of
thousands. The type checker reads every line that could assign to one, so nothing is lost.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TypeVar, dataclass_transform

T = TypeVar("T")


@dataclass_transform(frozen_default=True, field_specifiers=(field,))
def value(cls: type[T]) -> type[T]:
    """A dataclass with slots that can be compared and hashed; to assign to a field is a type error."""
    return dataclass(slots=True, unsafe_hash=True)(cls)

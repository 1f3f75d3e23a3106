"""How a model is asked for the text between two others.

Rule: data of a template, or of a model's entry. What is before and behind stands in the form as it came; the
strings of the form are control strings there. Knows nothing about requests.
"""

from __future__ import annotations

import re

from pydantic import BaseModel, ConfigDict, Field, field_validator

from gateway.core.template.control import pieces

_BLANK = re.compile(r"\{(prefix|suffix)\}")


class FillIn(BaseModel):
    """The form of one family of models."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    form: str = Field(description="the prompt, in which {prefix} and {suffix} stand once each")
    stops: tuple[str, ...] = Field((), description="boundary stops of what is filled in")

    @field_validator("form")
    @classmethod
    def _has_both(cls, form: str) -> str:
        if sorted(_BLANK.findall(form)) != ["prefix", "suffix"]:
            raise ValueError("must have {prefix} once and {suffix} once")
        return form

    @field_validator("stops")
    @classmethod
    def _stop_something(cls, stops: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(stop for stop in stops if stop)

    @property
    def control(self) -> tuple[str, ...]:
        """The control strings of the form; a single character is none."""
        parts = _BLANK.split(self.form)[::2]
        return tuple(piece for part in parts for piece in pieces(part) if len(piece) > 1)

    def prompt(self, prefix: str, suffix: str) -> str:
        """The prompt that asks for what stands between these."""
        return _BLANK.sub(lambda blank: prefix if blank[1] == "prefix" else suffix, self.form)

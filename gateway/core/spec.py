"""What a model is like: facts, never code paths.

Rule: a quirk of a model is a value here; nothing asks ``if name == ...``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from gateway.core.call import Marks
from gateway.core.template import FillIn, Template


@dataclass(slots=True, frozen=True)
class ModelSpec:
    """One entry of ``models:`` after its template was loaded. Lengths are in tokens."""

    name: str
    template: Template
    stops: tuple[str, ...] = ()  # boundary stops beside the template's own
    system_default: str | None = None
    context_length: int | None = None
    max_output_tokens: int | None = None
    logprobs: bool = False
    images: bool = False
    fill_in: FillIn | None = None  # how it is asked for the text between two others
    dialect: str | None = None  # how it writes calls of tools; None: as its template says
    reasoning: Marks | None = None
    guided: bool = False  # the backend constrains decoding by a schema
    control_tokens: Literal["neutralise", "reject", "pass"] = "neutralise"
    defaults: Mapping[str, Any] = field(default_factory=dict)
    embedding_batch: int = 32  # texts in one call
    matryoshka: bool = False  # vectors may be cut to fewer numbers

"""The data a template file begins with: a Jinja comment that holds TOML between two lines of plus signs.

    {#+++
    aliases = ["vicuna"]
    stops = ["</s>", "USER:"]
    +++#}

Rule: what is true of a family beside the text it writes is data here, never code: its stops, its control
strings, its default system message. An unknown key is an error that names the nearest one. A file without
such a comment is a plain Hugging Face template.
"""

from __future__ import annotations

import difflib
import re
import tomllib
from collections.abc import Mapping
from typing import Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from gateway.core.template.errors import TemplateError
from gateway.core.template.fill_in import FillIn

_BLOCK: Final = re.compile(
    r"\A\s*\{#\+\+\+[ \t]*\r?\n(.*?)^\+\+\+#\}[ \t]*(?:\r?\n)?", re.DOTALL | re.MULTILINE
)


class Front(BaseModel):
    """What the comment says. Strings are as the tokenizer knows them.

    ``system`` is how system messages reach the body. ``model``: messages stay as Hugging Face gives them;
    ``inline``: one may stand anywhere, those that lead are merged; ``hoist``: all system text is in the
    variable `system`; ``ignored``: the default one is, and the client's has no effect.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    aliases: tuple[str, ...] = Field((), description="other names, in any case")
    family: str | None = Field(None, description="the body in families/ that this file gives values to")
    values: Mapping[str, str | bool | int] = Field(default_factory=dict, description="constants of the body")
    system: Literal["model", "inline", "hoist", "ignored"] = "model"
    default_system: str | None = Field(None, description="the system message where the client sends none")
    stops: tuple[str, ...] = Field((), description="boundary stops: text that only a next turn begins with")
    stop_token_ids: tuple[int, ...] = Field((), description="the same as token ids, where published")
    control: tuple[str, ...] = Field((), description="strings that the tokenizer turns into control tokens")
    turns: tuple[str, ...] = Field((), description="those of `control` that delimit turns")
    bos: str | None = Field(None, description="bos_token of the body")
    eos: str | None = Field(None, description="eos_token of the body")
    tools: bool = Field(False, description="the body renders tool definitions, calls and results")
    dialect: str = Field("hermes", description="how the model writes calls of tools: gateway/core/tools/")
    image: str | None = Field(None, description="what stands for an image; {n} in it is the image's number")
    fill_in: FillIn | None = Field(None, description="how the text between two others is asked for")
    notes: str = Field("", description="for the reader of the documentation")

    @model_validator(mode="after")
    def _turns_are_control(self) -> Front:
        if stray := set(self.turns) - set(self.control):
            raise ValueError(f"turns must be among control, {sorted(stray)} are not")
        return self


def split(source: str) -> tuple[dict[str, Any] | None, str]:
    """The data of a template file (None if it has none) and its body. Raises ``TemplateError``."""
    if (block := _BLOCK.match(source)) is None:
        return None, source
    try:
        return tomllib.loads(block[1]), source[block.end() :]
    except tomllib.TOMLDecodeError as exc:
        raise TemplateError(f"the data at the head of the template is no TOML: {exc}") from None


def read(data: Mapping[str, Any], family: Mapping[str, Any]) -> Front:
    """The data of a file over that of its family (empty if it has none). Raises ``TemplateError``."""
    merged = {**family, **data}
    if values := {**family.get("values", {}), **data.get("values", {})}:
        merged["values"] = values
    try:
        return Front.model_validate(merged)
    except ValidationError as exc:
        first = exc.errors(include_url=False)[0]
        raise TemplateError(_explained(first["type"], first["loc"], first["msg"])) from None


def _explained(kind: str, place: tuple[int | str, ...], message: str) -> str:
    key = ".".join(str(part) for part in place)
    if kind != "extra_forbidden":
        return f"the data at the head of the template: {key or 'it'}: {message}"
    near = difflib.get_close_matches(key, Front.model_fields, n=1, cutoff=0)
    return f"the data at the head of the template has no key {key!r}; the nearest is {near[0]!r}"

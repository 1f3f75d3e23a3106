"""What is known of an endpoint, as keys of the configuration.

Rule: pure; only what was observed is written, and no secret: a credential becomes the name of an environment
variable.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

import yaml

from gateway.conformance.reading import Answer
from gateway.upstreams.framing import framing

NAME = "my-model"

Stream: TypeAlias = Literal["auto", "none", "sse", "ndjson", "text"]


@dataclass(frozen=True, slots=True)
class Credentials:
    """How the endpoint lets us in. ``headers``: names and values, as they were given."""

    modal_key: str | None = None
    modal_secret: str | None = None
    headers: tuple[tuple[str, str], ...] = ()

    def sent(self) -> list[tuple[str, str]]:
        modal = [("Modal-Key", self.modal_key), ("Modal-Secret", self.modal_secret)]
        return [*((name, value) for name, value in modal if value), *self.headers]

    def lines(self) -> dict[str, Any]:
        """Keys of the configuration that send the same, from environment variables."""
        lines: dict[str, Any] = {}
        if self.modal_key and self.modal_secret:
            lines |= {"modal_key": "${MODAL_KEY}", "modal_secret": "${MODAL_SECRET}"}
        headers = {}
        for name, value in self.headers:
            if name.lower() == "authorization" and value.startswith("Bearer "):
                lines["api_key"] = "${UPSTREAM_API_KEY}"
            else:
                headers[name] = f"${{{re.sub(r'[^A-Z0-9]', '_', name.upper())}}}"
        return {**lines, "headers": headers} if headers else lines


@dataclass(frozen=True, slots=True)
class Fit:
    """Keys of an upstream whose value is not the default, or was observed."""

    request_fields: Mapping[str, str | None] = field(default_factory=dict)
    response_field: str | None = None  # None: bare text
    stream: Stream = "auto"
    cumulative: bool = False
    ends: Literal["marker", "eof"] = "marker"
    echo: Literal["auto", "always", "never"] = "auto"
    whole: Literal["auto", "stream", "plain"] = "auto"

    def lines(self) -> dict[str, Any]:
        lines: dict[str, Any] = {}
        if self.request_fields:
            lines["request_fields"] = dict(self.request_fields)
        if self.response_field not in (None, "prompt"):
            lines["response_field"] = self.response_field
        usual = {"stream": "auto", "cumulative": False, "ends": "marker", "echo": "auto", "whole": "auto"}
        own = {key: getattr(self, key) for key in usual}
        return lines | {key: value for key, value in own.items() if value != usual[key]}


def configuration(url: str, credentials: Credentials, fit: Fit | None) -> dict[str, Any]:
    """``{"models": ...}`` with one entry. The template is the caller's to choose: no answer shows it.

    ``fit`` is None for an endpoint of embeddings, which needs none.
    """
    upstream = {"url": url, **credentials.lines()}
    if fit is None:
        return {"models": {NAME: {"upstream": upstream}}}
    return {"models": {NAME: {"template": "plain", "upstream": {**upstream, **fit.lines()}}}}


def as_yaml(data: Mapping[str, Any]) -> str:
    text = yaml.safe_dump(data, sort_keys=False, allow_unicode=True, width=1000)
    return text.replace("template: plain\n", "template: plain # or the model's own, where it needs one\n", 1)


def stream_mode(whole: Answer, streamed: Answer | None) -> Stream | None:
    """The ``stream:`` under which the gateway reads both answers as they are; None if there is none.

    ``streamed`` is None where no stream is asked for.
    """
    modes: Sequence[Stream] = ("auto", "sse", "ndjson", "text")
    if streamed is None:
        modes = ("none", "auto", "text")
    elif streamed.framing == "whole":
        modes = ("none", *modes)
    for mode in modes:
        if framing(mode, whole.kind, False) != whole.framing:
            continue
        if mode == "none" or streamed is None or framing(mode, streamed.kind, True) == streamed.framing:
            return mode
    return None

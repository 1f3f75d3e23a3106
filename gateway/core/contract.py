"""Requests of the prompt contract, which the gateway serves as well as it speaks it.

Rule: fields of the contract are checked and bounded as in chats; every other field goes to the upstream as it
came. The prompt is sent verbatim. A copy of it in front of the answer is made here, for those who ask.
Knows nothing about paths or query strings.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Annotated, Any

from pydantic import Field

from gateway.core.body import checked, few, read_json
from gateway.core.call import Call, Traits
from gateway.core.completions import verbatim, with_alternatives
from gateway.core.errors import BadRequest
from gateway.core.parameters import SAMPLING
from gateway.core.plan import Origin
from gateway.core.spec import ModelSpec
from gateway.core.wire import ChatRequest, Message

FIELDS = frozenset({"prompt", "stream", "echo", "logprobs", "max_tokens", "stop", *SAMPLING.values()})
"""What the gateway reads of a request; the rest is for the container."""


class ContractRequest(ChatRequest):
    """What the caller asked. ``None`` means that it did not say."""

    messages: list[Message] = Field(default_factory=list, exclude=True)  # chats alone have them
    prompt: str
    echo: bool | None = None
    logprobs: Annotated[int, Field(ge=0, le=20)] | None = None  # type: ignore[assignment]
    extras: Mapping[str, Any] = Field(default_factory=dict)  # fields for the container


def parse_contract(body: bytes) -> ContractRequest:
    """The request in these bytes. Raises ``BadRequest`` that names the first wrong field or JSON position."""
    data = read_json(body)
    if not isinstance(data, dict):
        raise BadRequest("The request body must be a JSON object.")
    if "input" in data and "prompt" not in data:
        raise BadRequest(
            "input: embeddings are at /v1/embeddings; send a prompt here.",
            param="input",
            code="unsupported_parameter",
        )
    extras = {name: value for name, value in data.items() if name not in FIELDS and value is not None}
    few(extras)
    known = {name: value for name, value in data.items() if name in FIELDS}
    return checked(ContractRequest, {**known, "extras": extras})


def contract_calls(
    request: ContractRequest, spec: ModelSpec, traits: Traits, origin: Origin
) -> tuple[Call, ...]:
    """The one call of this request."""
    call = verbatim(with_alternatives(request, request.logprobs), request.prompt, spec, traits, origin)
    return (replace(call, unknown=request.extras),)

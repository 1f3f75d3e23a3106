"""FastChat's own requests (0.2.36): a chat whose messages are a finished prompt, and the check of tokens.

Rule: a text in place of messages is the prompt, as it is there; anything else is a chat like any other.
Knows nothing about tokenizers.
"""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

from gateway.core.body import checked, read_json
from gateway.core.call import Call, Traits, for_choices
from gateway.core.completions import no_chat, verbatim
from gateway.core.plan import Origin, plan
from gateway.core.spec import ModelSpec
from gateway.core.wire import ChatRequest, Message, parse_chat

MAX_CHECKS = 128  # prompts in one check


class TextChat(ChatRequest):
    """A chat with a finished prompt in place of its messages."""

    messages: list[Message] = Field(default_factory=list, exclude=True)
    text: str


class Check(BaseModel):
    """One prompt whose tokens are counted."""

    model_config = ConfigDict(strict=True, frozen=True, extra="ignore", protected_namespaces=())

    model: Annotated[str, Field(max_length=512)]
    prompt: str
    max_tokens: Annotated[int, Field(ge=0, le=1 << 31)]


class Checks(BaseModel):
    """The body of ``/api/v1/token_check``."""

    model_config = ConfigDict(strict=True, frozen=True, extra="ignore")

    prompts: Annotated[list[Check], Field(max_length=MAX_CHECKS)]


def parse_fastchat(body: bytes) -> ChatRequest:
    """The chat in these bytes. Raises ``BadRequest`` as ``parse_chat`` does."""
    data = read_json(body)
    if isinstance(data, dict) and isinstance(text := data.get("messages"), str):
        chat = checked(TextChat, {**_without(data, "messages"), "text": text})
        no_chat(chat)
        return chat
    return parse_chat(body)


def _without(data: dict[str, Any], name: str) -> dict[str, Any]:
    return {key: value for key, value in data.items() if key != name}


def fastchat_calls(
    request: ChatRequest, spec: ModelSpec, traits: Traits, origin: Origin
) -> tuple[Call, ...]:
    """One call for each choice."""
    if isinstance(request, TextChat):
        call: Call = verbatim(request, request.text, spec, traits, origin)
    else:
        call = plan(request, spec, traits, origin)
    return for_choices(call, request.n or 1)


def parse_checks(body: bytes) -> Checks:
    """What is to be checked. Raises ``BadRequest`` that names the first wrong field."""
    return checked(Checks, read_json(body))

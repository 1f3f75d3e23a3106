"""Chats as FastChat takes them (0.2.36), their messages or a finished prompt, and its check of tokens.

Rule: a text in place of messages is the prompt, as it is there; anything else is a chat like any other.
Knows nothing about tokenizers.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from gateway.core.body import checked, read_json
from gateway.core.call import Call, Traits, for_choices
from gateway.core.completions import no_chat, verbatim
from gateway.core.errors import BadRequest
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
    try:
        return parse_chat(body)
    except BadRequest as error:
        if error.param != "messages":
            raise
        data = read_json(body)
        if not isinstance(data, dict) or not isinstance(text := data.pop("messages", None), str):
            raise
    chat = checked(TextChat, {**data, "text": text})
    no_chat(chat)
    return chat


def fastchat_calls(request: ChatRequest, spec: ModelSpec, traits: Traits, origin: Origin) -> tuple[Call, ...]:
    """The same chat or text for every choice, but for its seed."""
    if isinstance(request, TextChat):
        call: Call = verbatim(request, request.text, spec, traits, origin)
    else:
        call = plan(request, spec, traits, origin)
    return for_choices(call, request.n or 1)


def parse_checks(body: bytes) -> Checks:
    """What is to be checked. Raises ``BadRequest`` that names the first wrong field."""
    return checked(Checks, read_json(body))

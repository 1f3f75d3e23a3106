"""The APIs that are served: how each reads a body, and how it writes an answer.

Rule: a new one is a parser to ``ChatRequest``, two encoders and one row here; what happens in between is the
same for all (``serve.py``). Knows nothing about models or upstreams.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from operator import methodcaller
from typing import TypeAlias

from gateway.core.call import Call, Traits, for_choices
from gateway.core.encode import Head, StreamEncoder, WholeEncoder
from gateway.core.encode.chunks import Chunks
from gateway.core.encode.whole import Collector
from gateway.core.errors import GatewayError
from gateway.core.plan import Origin, plan
from gateway.core.spec import ModelSpec
from gateway.core.wire import ChatRequest, parse_chat

Parse: TypeAlias = Callable[[bytes], ChatRequest]
Plan: TypeAlias = Callable[[ChatRequest, ModelSpec, Traits, Origin], tuple[Call, ...]]
"""The calls of a request, one a choice."""


def chat_calls(request: ChatRequest, spec: ModelSpec, traits: Traits, origin: Origin) -> tuple[Call, ...]:
    """The same chat for every choice, but for its seed."""
    return for_choices(plan(request, spec, traits, origin), request.n or 1)


@dataclass(slots=True, frozen=True)
class Surface:
    """One API. ``stream`` and ``whole`` make the encoder of one answer with this many choices."""

    route: str  # metric label
    ids: str  # what the ids of its answers begin with
    parse: Parse
    stream: Callable[[Head, ChatRequest, int], StreamEncoder]
    whole: Callable[[Head, ChatRequest, int], WholeEncoder]
    plan: Plan = chat_calls
    error: Callable[[GatewayError], bytes] = methodcaller("json")  # the body of a refusal


def _chunks(head: Head, request: ChatRequest, choices: int) -> Chunks:
    options = request.stream_options
    return Chunks(head, choices, include_usage=bool(options and options.include_usage))


def _collector(head: Head, request: ChatRequest, choices: int) -> Collector:
    return Collector(head, choices)


CHAT = Surface("chat", "chatcmpl-", parse_chat, _chunks, _collector)

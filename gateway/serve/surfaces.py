"""The APIs that are served: how each reads a body, and how it writes an answer.

Rule: a new one is a parser to ``ChatRequest``, two encoders and one row here; what happens in between is the
same for all (``api.py``). Knows nothing about models or upstreams.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Generic, TypeAlias, TypeVar
from urllib.parse import parse_qs

from gateway.core.call import Call, Traits, for_choices
from gateway.core.completions import CompletionRequest, completion_calls, parse_completion, with_texts
from gateway.core.contract import ContractRequest, contract_calls, parse_contract
from gateway.core.encode import PING, Head, StreamEncoder, WholeEncoder, messages
from gateway.core.encode.chunks import Chunks
from gateway.core.encode.completions import CompletionChunks, CompletionCollector
from gateway.core.encode.prompt import ContractStream, ContractWhole, contract_error
from gateway.core.encode.whole import Collector
from gateway.core.errors import BadRequest, GatewayError
from gateway.core.fastchat import fastchat_calls, parse_fastchat
from gateway.core.message_calls import message_calls
from gateway.core.messages import parse_messages, reworded
from gateway.core.plan import Origin, plan
from gateway.core.spec import ModelSpec
from gateway.core.wire import ChatRequest
from gateway.http.exchange import NAMED
from gateway.routing.routes import Deployment

R = TypeVar("R", bound=ChatRequest)
Plan: TypeAlias = Callable[[R, ModelSpec, Traits, Origin], tuple[Call, ...]]
"""The calls of a request, one a choice."""


def chat_calls(request: ChatRequest, spec: ModelSpec, traits: Traits, origin: Origin) -> tuple[Call, ...]:
    """The same chat for every choice, but for its seed."""
    return for_choices(plan(request, spec, traits, origin), request.n or 1)


def _envelope(error: GatewayError, _: str) -> bytes:
    return error.json()


@dataclass(slots=True, frozen=True)
class Surface(Generic[R]):
    """One API. ``stream`` and ``whole`` make the encoder of one answer with this many choices."""

    route: str  # metric label
    ids: str  # what the ids of its answers begin with
    parse: Callable[[bytes], R]
    stream: Callable[[Head, R, int], StreamEncoder]
    whole: Callable[[Head, R, int], WholeEncoder]
    plan: Plan[R] = chat_calls
    error: Callable[[GatewayError, str], bytes] = _envelope  # the body of a refusal, with the request's id
    reworded: Callable[[BadRequest, R], BadRequest] = lambda error, _: error  # in the names of its fields
    addressed: Callable[[R, str, bytes], R] | None = None  # adds what path and query string say
    recalled: Callable[[R, str], R] | None = None  # adds what it refers to, for the key of this id
    settled: Callable[[R, Deployment], Awaitable[R]] | None = None  # once it is known which model is meant
    named: tuple[bytes, ...] = NAMED  # headers that tell the request's id
    ping: bytes = PING  # a sign of life in a silent stream
    counted: bool = False  # its streams open with the tokens of the prompt


def _chunks(head: Head, request: ChatRequest, choices: int) -> Chunks:
    options = request.stream_options
    usage = bool(options and options.include_usage)
    return Chunks(head, choices, include_usage=usage, functions=bool(request.functions and not request.tools))


def _collector(head: Head, request: ChatRequest, choices: int) -> Collector:
    return Collector(head, choices, functions=bool(request.functions and not request.tools))


CHAT = Surface("chat", "chatcmpl-", parse_fastchat, _chunks, _collector, fastchat_calls)


async def _as_texts(request: CompletionRequest, deployment: Deployment) -> CompletionRequest:
    """Token ids are those of the model that was asked for, whichever answers in the end."""
    if not request.has_ids:
        return request
    return await asyncio.to_thread(with_texts, request, deployment.detokenize)


def _of_address(request: ContractRequest, path: str, query: bytes) -> ContractRequest:
    """The model that the path names, and ``?echo=1`` for callers whose bodies are made by a library."""
    said: dict[str, Any] = {"model": path.partition("/prompt/")[2]}
    if asked := parse_qs(query.decode("latin-1"), keep_blank_values=True).get("echo"):
        if asked[-1] not in _SWITCH:
            raise BadRequest("echo: must be 0 or 1 in an address.", param="echo", code="invalid_value")
        if request.echo is None:
            said["echo"] = _SWITCH[asked[-1]]
    return request.model_copy(update=said)


_SWITCH = {"1": True, "true": True, "0": False, "false": False}

COMPLETIONS = Surface(
    "completions",
    "cmpl-",
    parse_completion,
    CompletionChunks,
    CompletionCollector,
    completion_calls,
    settled=_as_texts,
)
PROMPT = Surface(
    "prompt",
    "prompt-",
    parse_contract,
    ContractStream,
    ContractWhole,
    contract_calls,
    lambda error, _: contract_error(error),
    addressed=_of_address,
)
MESSAGES = Surface(
    "messages",
    "msg_",
    parse_messages,
    messages.MessageStream,
    messages.MessageWhole,
    message_calls,
    messages.messages_error,
    reworded,
    named=(*NAMED, b"request-id"),
    ping=messages.PING,
    counted=True,
)

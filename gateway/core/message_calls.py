"""What is asked of a model for a request of Anthropic's Messages API, and what of it had no effect.

Rule: a chat's plan, but that the answer must tell which stop sequence ended it: where the answer is watched,
the client's are left to the gateway. Knows nothing about how a call is sent or an answer written.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from gateway.core.call import MAX_NOTED, Call, ChatCall, PromptCall, Traits, notable
from gateway.core.errors import BadRequest
from gateway.core.messages import WORDING, MessagesBody, MessagesRequest, reworded
from gateway.core.options import KWARGS
from gateway.core.plan import Origin, plan
from gateway.core.spec import ModelSpec
from gateway.core.thought import SWITCHES
from gateway.core.wire import ChatRequest


def message_calls(
    request: MessagesRequest, spec: ModelSpec, traits: Traits, origin: Origin
) -> tuple[Call, ...]:
    """The one call of a request. Raises ``BadRequest`` that names the field as the client called it."""
    if request.messages[-1]["role"] == "assistant":
        raise BadRequest(
            "messages: the last one is the assistant's, and answers here do not go on from one (prefill); "
            "end with a message of the user.",
            param="messages",
            code="unsupported_parameter",
        )
    return (_watched(message_call(request, spec, traits, origin), request.stop),)


def message_call(request: MessagesRequest, spec: ModelSpec, traits: Traits, origin: Origin) -> Call:
    """The call whose prompt is this conversation, whoever spoke last."""
    asked = request.asked.thinking
    able = traits.speaks == "chat" or spec.reasoning is not None
    try:
        call = plan(_thinking(request) if asked and able else request, spec, traits, origin)
    except BadRequest as error:
        raise reworded(error, request) from None
    given = (request.model_extra or {}).get("chat_template_kwargs") or {}
    said = [name for name in call.notes.ignored if name.removeprefix(KWARGS) in (name, *given)]
    names = (*_unheard(request, call, able), *without_effect(request.asked), *map(WORDING.text, said))
    ignored = tuple(dict.fromkeys(names))[:MAX_NOTED]
    return replace(call, notes=replace(call.notes, ignored=ignored))


def _thinking(request: MessagesRequest) -> ChatRequest:
    """The chat, with thinking as the variables that templates have for it."""
    asked = request.asked.thinking
    assert asked is not None
    told: dict[str, Any] = {"enable_thinking": request.shows_thinking, "thinking": request.shows_thinking}
    if request.shows_thinking and asked.budget_tokens is not None:
        told["thinking_budget"] = asked.budget_tokens
    given = (request.model_extra or {}).get("chat_template_kwargs")
    if isinstance(given, dict | None):
        return request.model_copy(update={"chat_template_kwargs": {**told, **(given or {})}})
    return request


def _unheard(request: MessagesRequest, call: Call, able: bool) -> tuple[str, ...]:
    """``thinking``, where a model was asked for it that has none, or one forbidden it that cannot hear."""
    asked = request.asked.thinking
    if asked is None:
        return ()
    if not able:
        return ("thinking",) if request.shows_thinking else ()
    deaf = {KWARGS + name for name in SWITCHES}.issubset(call.notes.ignored)
    return ("thinking",) if deaf and not request.shows_thinking else ()


def _watched(call: Call, stops: Sequence[str] | None) -> Call:
    """The call without the client's stops for the upstream, which would not say which of them it met.

    Only where it is asked for a stream, which ends when one is found here.
    """
    if not stops or not call.stream or not isinstance(call, PromptCall | ChatCall):
        return call
    fields = dict(call.arguments if isinstance(call, PromptCall) else call.body)
    fields.pop("stop", None)
    if call.watch.boundary:
        fields["stop"] = list(dict.fromkeys(call.watch.boundary))
    return replace(call, arguments=fields) if isinstance(call, PromptCall) else replace(call, body=fields)


_KNOWN = frozenset({"name", "description", "input_schema", "type", "strict", "cache_control"})


def without_effect(asked: MessagesBody) -> tuple[str, ...]:
    """Names of fields that changed nothing, or whose effect nobody here sees to."""
    thinking = asked.thinking
    idle = {
        "cache_control": asked.cache_control or _marked([asked.system, asked.messages, asked.tools]),
        "service_tier": asked.service_tier,
        "thinking.budget_tokens": thinking and thinking.type != "disabled" and thinking.budget_tokens,
        "thinking.display": thinking and thinking.display,
    }
    named = [name for name, given in idle.items() if given]
    extra = (f"tools.{name}" for tool in asked.tools or () for name in tool if name not in _KNOWN)
    return (*named, *notable(dict.fromkeys(extra)))


def _marked(value: Any, depth: int = 5) -> bool:
    """Whether a block down to a tool's result asks to be cached."""
    if isinstance(value, list):
        return any(_marked(each, depth - 1) for each in value) if depth else False
    if not isinstance(value, dict):
        return False
    return bool(value.get("cache_control")) or _marked(value.get("content"), depth)

"""From what the client asked to what we ask the upstream.

Rule: pure. The same request, model and traits always give the same call; every refusal names its field;
what has no effect is noted for the client. Knows nothing about how a call is sent.
"""

from __future__ import annotations

import hmac
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from gateway.core.call import MAX_NOTED, Call, ChatCall, Notes, PromptCall, Sender, Traits, Watch, notable
from gateway.core.errors import BadRequest
from gateway.core.parameters import IGNORED, KNOWN, OPENAI, REJECTED, SAMPLING
from gateway.core.spec import ModelSpec
from gateway.core.template import TemplateError, neutralise
from gateway.core.wire import ChatRequest, text_of


@dataclass(slots=True, frozen=True)
class Origin:
    """What a call takes from outside the request: its id, the clock that templates may print, its key."""

    request_id: str
    now: datetime
    key: str = ""  # name of the API key


def plan(request: ChatRequest, spec: ModelSpec, traits: Traits, origin: Origin) -> Call:
    """The call for this request on this model. Raises ``BadRequest`` and its like, naming the field."""
    _check(request, spec)
    if traits.speaks == "chat":
        return _chat_call(request, spec, traits, origin)
    return _prompt_call(request, spec, traits, origin)


def _prompt_call(request: ChatRequest, spec: ModelSpec, traits: Traits, origin: Origin) -> PromptCall:
    ignored = _unavailable(request) + _unheard(request, spec)
    passed, unknown = _unknown(request, traits)
    messages, neutralised = _messages(request, spec)
    prompt = _render(spec, messages, origin.now)
    verbatim = len(messages) == 1 and prompt == messages[0]["content"]
    watch = Watch(
        echo=_echoes(prompt, spec, traits, verbatim),
        boundary=spec.stops if verbatim else (*spec.template.stops, *spec.stops),
        stops=_client_stops(request, spec),
    )
    return PromptCall(
        prompt=prompt,
        arguments=_arguments(request, spec, (*watch.boundary, *watch.stops)),
        unknown=passed,
        stream=_ask_for_stream(request, traits, watch),
        request_id=origin.request_id,
        sender=_sender(request, spec, origin),
        watch=watch,
        notes=Notes((ignored + unknown)[:MAX_NOTED], neutralised),
    )


def _check(request: ChatRequest, spec: ModelSpec) -> None:
    """What the model's facts forbid, whatever the upstream speaks."""
    asked = request.max_completion_tokens or request.max_tokens
    if asked and spec.max_output_tokens and asked > spec.max_output_tokens:
        name = "max_completion_tokens" if request.max_completion_tokens else "max_tokens"
        raise BadRequest(
            f"{name} is {asked}, but this model answers with at most {spec.max_output_tokens} tokens.",
            param=name,
            code="invalid_value",
        )
    if request.logprobs and not spec.logprobs:
        raise BadRequest(
            "logprobs are not available for this model.", param="logprobs", code="unsupported_parameter"
        )
    if request.top_logprobs is not None and not request.logprobs:
        raise BadRequest("top_logprobs needs logprobs: true.", param="top_logprobs", code="invalid_value")


def _unavailable(request: ChatRequest) -> tuple[str, ...]:
    """Reject what cannot be done over a prompt; the names of what is ignored."""
    given = request.model_fields_set & _WITHOUT_EFFECT
    if not given:
        return ()
    for row in REJECTED:
        value = _value(request, row.name) if row.name in given else None
        if value and not (row.name == "response_format" and value.get("type") == "text"):
            raise BadRequest(f"{row.name}: {row.why}.", param=row.name, code="unsupported_parameter")
    return tuple(sorted(name for name in given & IGNORED if _value(request, name) is not None))


def _unheard(request: ChatRequest, spec: ModelSpec) -> tuple[str, ...]:
    """A few families have a fixed system message and no place for the client's; that must not go unsaid."""
    said = spec.template.ignores_system and any(m["role"] in SYSTEM for m in request.messages)
    return ("system",) if said else ()


SYSTEM = ("system", "developer")
_WITHOUT_EFFECT = IGNORED | {row.name for row in REJECTED}


def _value(request: ChatRequest, name: str) -> Any:
    extra = request.model_extra or {}
    return extra[name] if name in extra else getattr(request, name, None)


def _unknown(request: ChatRequest, traits: Traits) -> tuple[Mapping[str, Any], tuple[str, ...]]:
    """Fields that nobody here knows: those to pass on, and the names of those that are not."""
    if not request.model_extra:
        return {}, ()
    fields = {k: v for k, v in request.model_extra.items() if v is not None and k not in KNOWN}
    passed = fields if traits.forward == "all" else {k: v for k, v in fields.items() if k in traits.forward}
    return passed, notable(name for name in fields if name not in passed)


def _messages(request: ChatRequest, spec: ModelSpec) -> tuple[list[dict[str, Any]], int]:
    """Messages as templates take them (content as text), control strings in user text defused."""
    messages: list[dict[str, Any]] = [
        {**message, "content": text_of(message.get("content"), f"messages[{index}].content")}
        for index, message in enumerate(request.messages)
    ]
    try:
        safe, count = neutralise(messages, spec.template, spec.control_tokens)
    except TemplateError as exc:
        raise BadRequest(str(exc), param="messages", code="control_tokens") from None
    if count:
        messages = [dict(message) for message in safe]
    if spec.system_default and not any(m["role"] in SYSTEM for m in messages):
        messages.insert(0, {"role": "system", "content": spec.system_default})
    return messages, count


def _render(spec: ModelSpec, messages: list[dict[str, Any]], now: datetime) -> str:
    try:
        prompt = spec.template.render(messages, now=now)
        prompt.encode()
    except UnicodeEncodeError:  # JSON inside the arguments of a tool call can spell one
        raise BadRequest("A message holds half of a surrogate pair.", param="messages") from None
    except TemplateError as exc:
        raise BadRequest(f"The model's template refused these messages: {exc}", param="messages") from None
    return prompt


def _echoes(prompt: str, spec: ModelSpec, traits: Traits, verbatim: bool) -> tuple[str, ...]:
    """Forms in which the prompt may come back. Without a template "hello" -> "hello world" is an answer."""
    if traits.echo == "never" or (traits.echo == "auto" and verbatim):
        return ()
    bare = prompt
    for control in spec.template.control:
        bare = bare.replace(control, "")
    return (prompt,) if bare == prompt else (prompt, bare)


def _client_stops(request: ChatRequest, spec: ModelSpec) -> tuple[str, ...]:
    return tuple(request.stop if request.stop is not None else spec.defaults.get("stop", ()))


def _arguments(request: ChatRequest, spec: ModelSpec, stops: tuple[str, ...]) -> dict[str, Any]:
    """The contract's arguments: the model's defaults, then what the client set."""
    arguments = dict(spec.defaults)
    for field in request.model_fields_set & SAMPLING.keys():
        if (value := getattr(request, field)) is not None:
            arguments[SAMPLING[field]] = value
    if asked := request.max_completion_tokens or request.max_tokens:
        arguments["max_tokens"] = asked
    if request.logprobs:
        arguments["logprobs"] = request.top_logprobs or 0
    arguments.pop("stop", None)
    if stops:
        arguments["stop"] = list(dict.fromkeys(stops))
    return arguments


def _ask_for_stream(request: ChatRequest, traits: Traits, watch: Watch) -> bool:
    """A whole answer is asked for as a stream only where that lets a stop end the generation early."""
    if not traits.streams:
        return False
    if request.stream or traits.whole == "stream":
        return True
    return traits.whole == "auto" and bool(watch.stops)


def _sender(request: ChatRequest, spec: ModelSpec, origin: Origin) -> Sender:
    """The requests of one conversation share a session, so that one container's cache serves them all."""
    given = request.model_extra.get("prompt_cache_key") if request.model_extra else None
    if not isinstance(given, str):
        told = _beginning(request.messages)
    elif _TOKEN.fullmatch(given):
        return Sender(origin.key, given)
    else:
        told = given
    text = f"{spec.name}\0{told}".encode("utf-8", "surrogatepass")
    return Sender(origin.key, hmac.digest(origin.key.encode() or b"-", text, "sha256").hex()[:32])


def _beginning(messages: Sequence[Mapping[str, Any]]) -> str:
    """The system messages and the first of the user: what a conversation keeps as it grows."""
    said = []
    for message in messages:
        said.append(str(message.get("content")))
        if message["role"] == "user":
            break
    return "\0".join(said)


_TOKEN = re.compile(r"[!-~]{1,128}")  # what a header carries as it stands


def _chat_call(request: ChatRequest, spec: ModelSpec, traits: Traits, origin: Origin) -> ChatCall:
    """Everything the client set, as it was: the server at the other end has its own template."""
    if not spec.images:
        for index, message in enumerate(request.messages):
            text_of(message.get("content"), f"messages[{index}].content")
    passed, unknown = _unknown(request, traits)
    given = {name: _value(request, name) for name in OPENAI}
    body: dict[str, Any] = {
        **spec.defaults,
        **{name: value for name, value in given.items() if value is not None},
        **passed,
    }
    if "max_tokens" in body and request.max_completion_tokens:
        del body["max_tokens"]
    if spec.system_default and not any(m["role"] in SYSTEM for m in request.messages):
        body["messages"] = [{"role": "system", "content": spec.system_default}, *request.messages]
    watch = Watch(boundary=spec.stops, stops=_client_stops(request, spec))
    if watch.boundary or watch.stops:
        body["stop"] = list(dict.fromkeys((*watch.boundary, *watch.stops)))
    return ChatCall(
        body=body,
        stream=_ask_for_stream(request, traits, watch),
        request_id=origin.request_id,
        sender=_sender(request, spec, origin),
        watch=watch,
        notes=Notes(unknown[:MAX_NOTED]),
    )

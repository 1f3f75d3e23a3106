"""From what the client asked to what we ask the upstream.

Rule: pure. The same request, model and traits always give the same call; every refusal names its field;
what has no effect is noted for the client. Knows nothing about how a call is sent.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime
from typing import Any

from gateway.core.affinity import sender
from gateway.core.call import (
    MAX_NOTED,
    Call,
    ChatCall,
    Marks,
    Notes,
    PromptCall,
    Traits,
    Watch,
    notable,
)
from gateway.core.conversation import SYSTEM, Conversation, conversation, refuse_images
from gateway.core.errors import BadRequest
from gateway.core.offer import Offer, offer
from gateway.core.options import heard
from gateway.core.parameters import IGNORED, KNOWN, OPENAI, REJECTED, SAMPLING
from gateway.core.spec import ModelSpec
from gateway.core.structured import parse_format
from gateway.core.template import TemplateError
from gateway.core.thought import closed, thought
from gateway.core.toolset import toolset
from gateway.core.value import value
from gateway.core.wire import ChatRequest, text_of


@value
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
    ignored = _unavailable(request) + _unheard(request, spec) + _idle(request)
    passed, unknown = _unknown(request, traits)
    form = parse_format(request.response_format)
    tools = toolset(request)
    held = spec.guided and tools is None  # a schema for the whole answer would leave no way to call a tool
    said = conversation(request, spec, None if held else form)
    offered = offer(said.messages, tools, spec)
    chosen, unheard = heard(request, spec.template)
    prompt = _render(spec, offered, origin.now, chosen)
    _check_images(prompt, said, spec)
    verbatim = len(said.messages) == 1 and prompt == said.messages[0]["content"]
    marks = thought(prompt, spec.reasoning, chosen)
    if offered.forces or (held and form is not None):
        prompt, marks = closed(prompt, marks)
    prompt += offered.ending
    watch = _hearing(_watch(request, spec, traits, (prompt, verbatim), offered), offered, marks)
    ignored += unheard
    if form is not None:
        ignored += form.ignored
        watch = replace(watch, guaranteed=held, json=None if held else form)
    arguments = _arguments(request, spec, watch)
    if watch.guaranteed and form is not None:
        arguments["json_schema"] = form.schema or {"type": "object"}
    if offered.schema is not None:
        arguments["json_schema"] = offered.schema
    if said.images:
        arguments["images"] = list(said.images)
    return PromptCall(
        prompt=prompt,
        arguments=arguments,
        unknown=passed,
        stream=_ask_for_stream(request, traits, watch),
        request_id=origin.request_id,
        sender=sender(request, spec.name, origin.key),
        watch=watch,
        notes=Notes(
            (ignored + offered.ignored + unknown)[:MAX_NOTED], said.neutralised + offered.neutralised
        ),
    )


def _watch(
    request: ChatRequest, spec: ModelSpec, traits: Traits, shown: tuple[str, bool], offered: Offer
) -> Watch:
    """What to look for in the answer; ``shown``: the prompt, and whether it is a message as it is."""
    prompt, verbatim = shown
    boundary = spec.stops if verbatim else (*spec.template.stops, *spec.stops)
    return Watch(
        echo=_echoes(prompt, spec, traits, verbatim),
        boundary=(*boundary, *offered.stops),
        tooling=offered.tooling,
        stops=_client_stops(request, spec),
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
        if row.name in given and _value(request, row.name):
            raise BadRequest(f"{row.name}: {row.why}.", param=row.name, code="unsupported_parameter")
    return tuple(sorted(name for name in given & IGNORED if _value(request, name) is not None))


def _hearing(watch: Watch, offered: Offer, marks: Marks | None) -> Watch:
    """The same watch, with what the prompt says of thoughts; a call that must come leaves room for none."""
    reasoning = None if offered.forces else marks
    return watch if watch.reasoning is reasoning else replace(watch, reasoning=reasoning)


def _unheard(request: ChatRequest, spec: ModelSpec) -> tuple[str, ...]:
    """A few families have a fixed system message and no place for the client's; that must not go unsaid."""
    said = spec.template.ignores_system and any(m["role"] in SYSTEM for m in request.messages)
    return ("system",) if said else ()


def _idle(request: ChatRequest) -> tuple[str, ...]:
    """What is said about tools where there are none."""
    said = request.tool_choice or request.function_call or request.model_extra
    if not said or request.tools or request.functions:
        return ()
    named = ("tool_choice", "function_call", "parallel_tool_calls")
    return tuple(name for name in named if _value(request, name) is not None)


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


def _render(spec: ModelSpec, offered: Offer, now: datetime, chosen: Mapping[str, Any]) -> str:
    try:
        safe, _ = spec.template.guard.value(chosen, spec.control_tokens) if chosen else (chosen, 0)
        prompt = spec.template.render(offered.messages, tools=offered.shown, options=safe, now=now)
        prompt.encode()
    except UnicodeEncodeError:  # JSON in the arguments of a call can spell half of a surrogate pair
        return prompt.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    except TemplateError as exc:
        raise BadRequest(f"The model's template refused these messages: {exc}", param="messages") from None
    return prompt


def _check_images(prompt: str, said: Conversation, spec: ModelSpec) -> None:
    """A template may drop what it has no place for, and the images are told apart by their order alone."""
    token = spec.template.image
    if said.images and token is not None and not token.shown(prompt, len(said.images)):
        raise BadRequest(
            "The model's template does not show each image once where it was sent.",
            param="messages",
            code="unsupported_content",
        )


def _echoes(prompt: str, spec: ModelSpec, traits: Traits, verbatim: bool) -> tuple[str, ...]:
    """Forms in which the prompt may come back. Without a template "hello" -> "hello world" is an answer."""
    if traits.echo == "never" or (traits.echo == "auto" and verbatim):
        return ()
    bare = prompt
    for control in (*spec.template.control, *spec.template.guard.images):
        bare = bare.replace(control, "")
    return (prompt,) if bare == prompt else (prompt, bare)


def _client_stops(request: ChatRequest, spec: ModelSpec) -> tuple[str, ...]:
    return tuple(request.stop if request.stop is not None else spec.defaults.get("stop", ()))


_SAMPLED = frozenset(SAMPLING)  # meets other sets faster than the keys do


def _arguments(request: ChatRequest, spec: ModelSpec, watch: Watch) -> dict[str, Any]:
    """The contract's arguments: the model's defaults, then what the client set.

    The client's stops hold for visible text alone, so they go upstream only where all text is visible; and
    not beside a schema, because an answer that one of them cut is not what was promised.
    """
    visible = not (watch.reasoning or watch.tooling or watch.json or watch.guaranteed)
    stops = (*watch.boundary, *watch.stops) if visible else watch.boundary
    arguments = dict(spec.defaults)
    for field in request.model_fields_set & _SAMPLED:
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
    """A whole answer is asked for as a stream only where something in its text has to be watched."""
    if not traits.streams:
        return False
    if request.stream or traits.whole == "stream":
        return True
    return traits.whole == "auto" and bool(watch.stops or watch.reasoning or watch.tooling or watch.json)


def _chat_call(request: ChatRequest, spec: ModelSpec, traits: Traits, origin: Origin) -> ChatCall:
    """Everything the client set, as it was: the server at the other end has its own template."""
    if not spec.images:
        refuse_images(request.messages, spec)
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
        sender=sender(request, spec.name, origin.key),
        watch=watch,
        notes=Notes(unknown[:MAX_NOTED]),
    )

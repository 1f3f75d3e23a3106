"""Requests of OpenAI's older completions API: texts that reach the model as they are.

Rule: no template, and control strings are the client's own business; else a completion is a chat of one
message behind a template that adds nothing, so parameters have the same fate. With a ``suffix`` both texts
stand in the model's form for filling in, with control strings defused as in chats. A prompt of token ids is
text before it is planned. Shapes: https://platform.openai.com/docs/api-reference/completions/create Knows
nothing about tokenizers.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cache, lru_cache
from typing import Annotated, Any, TypeAlias, TypeVar

from pydantic import AfterValidator, Field

from gateway.core.body import checked, read_json
from gateway.core.call import Call, PromptCall, Traits, for_choices
from gateway.core.errors import BadRequest
from gateway.core.plan import Origin, plan
from gateway.core.spec import ModelSpec
from gateway.core.template import Guard, Template, TemplateError, compile_template
from gateway.core.wire import ChatRequest, Message

MAX_CALLS = 128  # prompts of one request, times the answers to each

R = TypeVar("R", bound=ChatRequest)
Ids: TypeAlias = tuple[int, ...]
TALK_ONLY = ("messages", "tools", "functions")
"""Fields of chats with messages, which would be lost beside a text."""


def _prompts(value: Any) -> tuple[str | Ids, ...]:
    """Each text, or the token ids of one."""
    if isinstance(value, str):
        return (value,)
    if not isinstance(value, list):
        raise ValueError("must be a text, token ids, or a list of either")
    if not value:
        raise ValueError("must not be empty")
    if type(value[0]) is int:
        return (_ids(value),)
    if len(value) > MAX_CALLS:
        raise ValueError(f"accepts at most {MAX_CALLS} texts, got {len(value)}")
    if isinstance(value[0], str):
        if not all(isinstance(each, str) for each in value):
            raise ValueError("must hold texts only, as the first is one")
        return tuple(value)
    return tuple(map(_ids, value))


def _ids(value: Any) -> Ids:
    if not isinstance(value, list) or not value:
        raise ValueError("must be a text, token ids, or a list of either")
    if not all(type(each) is int and 0 <= each < 1 << 32 for each in value):
        raise ValueError("token ids must be whole numbers from 0")
    return tuple(value)


class CompletionRequest(ChatRequest):
    """What the client asked. ``None`` means that it did not say."""

    messages: list[Message] = Field(default_factory=list, exclude=True)  # chats alone have them
    prompt: Annotated[Any, AfterValidator(_prompts), Field(description="a text, token ids, or a list")]
    echo: bool | None = None
    suffix: str | None = None
    best_of: Annotated[int, Field(ge=1, le=20)] | None = None
    # A number here, not chat's yes or no: how many alternatives each token is shown with.
    logprobs: Annotated[int, Field(ge=0, le=20)] | None = None  # type: ignore[assignment]

    @property
    def texts(self) -> Sequence[str]:
        """The prompts, once ``with_texts`` has read them."""
        return self.prompt  # type: ignore[no-any-return]

    @property
    def has_ids(self) -> bool:
        return any(not isinstance(each, str) for each in self.prompt)

    @property
    def drawn(self) -> int:
        """Answers made for each prompt; the best ``n`` of them are given."""
        return self.best_of or self.n or 1


def parse_completion(body: bytes) -> CompletionRequest:
    """The request in these bytes. Raises ``BadRequest`` that names the first wrong field or JSON position."""
    request = checked(CompletionRequest, read_json(body))
    no_chat(request)
    if request.top_logprobs:
        raise _refused(
            "top_logprobs", "is a field of chats; here logprobs is a number", "unsupported_parameter"
        )
    _fits_together(request)
    return request


def no_chat(request: ChatRequest) -> None:
    """Raise ``BadRequest`` for a field that only means something in a chat with messages."""
    shaped = (request.response_format or {}).get("type", "text") != "text"
    named = [name for name in TALK_ONLY if getattr(request, name)] + ["response_format"] * shaped
    if named:
        raise _refused(named[0], "is a field of chats with messages", "unsupported_parameter")


def _fits_together(request: CompletionRequest) -> None:
    n, drawn = request.n or 1, request.drawn
    if request.echo and request.suffix:
        raise _refused("echo", "cannot repeat a prompt that has a suffix")
    if drawn < n:
        raise _refused("best_of", f"is {drawn}, less than n, which is {n}")
    if drawn > n and request.stream:
        raise _refused("best_of", "more than n cannot be streamed: the best is known at the end")
    if drawn * len(request.prompt) > MAX_CALLS:
        raise _refused("prompt", f"{len(request.prompt)} texts with {drawn} answers each exceed {MAX_CALLS}")


def _refused(name: str, why: str, code: str = "invalid_value") -> BadRequest:
    return BadRequest(f"{name}: {why}.", param=name, code=code)


def with_texts(
    request: CompletionRequest, decode: Callable[[Sequence[int]], str] | None
) -> CompletionRequest:
    """The request with each prompt as text; ``decode`` knows the model's token ids.

    Raises ``BadRequest`` where there is none, or it does not know one of them.
    """
    if decode is None:
        raise _refused(
            "prompt",
            "token ids cannot be read without the model's tokenizer; send text",
            "unsupported_content",
        )
    try:
        texts = tuple(each if isinstance(each, str) else decode(each) for each in request.prompt)
    except BadRequest:
        raise _refused("prompt", "holds a number that is no token id of this model") from None
    return request.model_copy(update={"prompt": texts})


def completion_calls(
    request: CompletionRequest, spec: ModelSpec, traits: Traits, origin: Origin
) -> tuple[Call, ...]:
    """The calls of all prompts, one after the other; of each as many as answers are drawn."""
    ranked = request.drawn > (request.n or 1)
    if ranked and not spec.logprobs:
        raise _refused(
            "best_of",
            "more than n needs a model with `logprobs: true`, to rank them",
            "unsupported_parameter",
        )
    asked = with_alternatives(request, 0 if ranked and request.logprobs is None else request.logprobs)
    call_for = _filling if request.suffix else verbatim
    return tuple(
        call
        for text in request.texts
        for call in for_choices(call_for(asked, text, spec, traits, origin), request.drawn)
    )


def _filling(
    request: CompletionRequest, text: str, spec: ModelSpec, traits: Traits, origin: Origin
) -> PromptCall:
    """The call for what stands between ``text`` and the suffix."""
    form = spec.fill_in
    if form is None:
        raise _refused(
            "suffix",
            f"this model does not fill in between two texts (models.{spec.name}.fill_in is not set)",
            "unsupported_parameter",
        )
    guard = _guard((*spec.template.control, *form.control))
    try:
        (before, behind), count = guard.value((text, request.suffix), spec.control_tokens, "prompt")
    except TemplateError as exc:
        raise _refused("prompt", str(exc), "control_tokens") from None
    filler = replace(spec, stops=tuple(dict.fromkeys((*spec.stops, *form.stops))))
    call = verbatim(request, form.prompt(before, behind), filler, traits, origin)
    return replace(call, notes=replace(call.notes, neutralised=count))


@lru_cache(maxsize=256)
def _guard(control: tuple[str, ...]) -> Guard:
    return Guard(control)


def with_alternatives(request: R, number: int | None) -> R:
    """The request with a number of alternatives to each token written as in chats."""
    wanted = {"logprobs": None if number is None else True, "top_logprobs": number}
    return request.model_copy(update=wanted)


def verbatim(request: ChatRequest, text: str, spec: ModelSpec, traits: Traits, origin: Origin) -> PromptCall:
    """The call that sends this text as it is, whatever the upstream speaks."""
    bare = replace(
        spec,
        template=_nothing_added(),
        control_tokens="pass",
        system_default=None,
        reasoning=None,
        dialect=None,
    )
    said = request.model_copy(update={"messages": [{"role": "user", "content": text}]})
    call = plan(said, bare, replace(traits, speaks="prompt"), origin)
    assert isinstance(call, PromptCall)
    return call


@cache
def _nothing_added() -> Template:
    return compile_template("verbatim", '{#+++\nsystem = "inline"\n+++#}\n{{- messages[0]["content"] }}')

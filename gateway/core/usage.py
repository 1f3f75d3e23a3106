"""The tokens of one request: the upstream's figures where it gave them, our own count or guess elsewhere.

Rule: a prompt counts once, however many choices it has. Pure. Knows nothing about tries or prices.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

from gateway.core.call import Call, EmbedCall, PromptCall
from gateway.core.events import Finish, Usage
from gateway.core.tokens import Tally, estimate
from gateway.core.wire import text_of


class Said(Protocol):
    """One answer as far as it came; ``thought`` is what of it was reasoning."""

    @property
    def tally(self) -> Tally: ...
    @property
    def thought(self) -> Tally | None: ...
    @property
    def finish(self) -> Finish | None: ...


def counted(
    calls: Sequence[Call], choices: Sequence[Said], prompts: Callable[[], int], *, exact: bool
) -> Usage:
    """Of the answers to these calls, one a call. ``prompts`` counts those, ``exact`` says that it does."""
    given = [choice.finish.usage for choice in choices if choice.finish and choice.finish.usage]
    if len(choices) == 1 and given:  # nearly every request
        [only] = given
        details = only.details or _details(choices, only.completion_tokens)
        return Usage(only.prompt_tokens, only.completion_tokens, "upstream", details)
    told = _told_prompts(calls, choices)
    if given and len(given) == len(choices):
        completion = sum(usage.completion_tokens for usage in given)
        return Usage(sum(told.values()), completion, "upstream", _details(choices, completion))
    asked = sum(call.choice == 0 for call in calls)
    prompt = sum(told.values()) if told and len(told) == asked else prompts()
    completion = sum(map(_completion, choices))
    source = "tokenizer" if exact else "estimate"
    return Usage(prompt, completion, source, _details(choices, completion))


def summed(first: Usage, second: Usage) -> Usage:
    """Of two calls; what is less exact names the source."""
    source = first.source if first.source != "upstream" else second.source
    prompt = first.prompt_tokens + second.prompt_tokens
    return Usage(prompt, first.completion_tokens + second.completion_tokens, source)


def guessed(calls: Sequence[Call], messages: Sequence[Mapping[str, Any]]) -> int:
    """Tokens of all prompts where nobody counts them; ``messages`` are the chat's, rendered elsewhere."""
    if calls and isinstance(calls[0], PromptCall):
        first = [call for call in calls if call.choice == 0]
        return sum(estimate(call.prompt) for call in first if isinstance(call, PromptCall))
    if calls and isinstance(calls[0], EmbedCall):
        return sum(estimate(text) for call in calls for text in getattr(call, "texts", ()))
    contents = (message.get("content") for message in messages)
    return sum(estimate(text_of(content, "")) for content in contents if not isinstance(content, list))


def _completion(choice: Said) -> int:
    told = choice.finish.usage if choice.finish else None
    return told.completion_tokens if told else choice.tally.total()


def _details(choices: Sequence[Said], completion: int) -> dict[str, Any] | None:
    """How much of the answers was reasoning, counted here; None if there was none."""
    thoughts = [choice.thought for choice in choices if choice.thought is not None]
    if not thoughts:
        return None
    tokens = min(sum(thought.total() for thought in thoughts), completion)
    return {"completion_tokens_details": {"reasoning_tokens": tokens}}


def _told_prompts(calls: Sequence[Call], choices: Sequence[Said]) -> dict[int, int]:
    """Tokens of each prompt of which an upstream told them, by the number of its prompt."""
    told: dict[int, int] = {}
    prompt = -1
    for call, choice in zip(calls, choices, strict=True):
        prompt += call.choice == 0
        if choice.finish and choice.finish.usage:
            told.setdefault(prompt, choice.finish.usage.prompt_tokens)
    return told

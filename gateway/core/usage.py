"""The tokens of one request: the upstream's figures where it gave them, our own count or guess elsewhere.

Rule: a prompt counts once, however many choices it has. Of a chat that is rendered elsewhere the texts are
known, and no more. Pure. Knows nothing about tries or prices.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Protocol

from gateway.core.call import Call, ChatCall, EmbedCall, Marks, PromptCall
from gateway.core.events import Finish, Usage
from gateway.core.tokens import Tally, estimate

SOURCES = ("upstream", "tokenizer", "estimate")  # of counts, from the most exact


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
    """Of the answers to these calls, one a call. ``prompts`` counts those; ``exact``: with a tokenizer."""
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
    source = max(first.source, second.source, key=SOURCES.index)
    prompt = first.prompt_tokens + second.prompt_tokens
    return Usage(prompt, first.completion_tokens + second.completion_tokens, source)


def guessed(calls: Sequence[Call]) -> int:
    """Tokens of all prompts where nobody counts them."""
    return sum(estimate(text) for call in calls if call.choice == 0 for text in prompt_texts(call))


def prompt_texts(call: Call) -> Iterator[str]:
    """What it asks the model to read. A chat that is rendered elsewhere is its contents, calls and tools:

    images and other files are no text, and what its template adds is not known.
    """
    if isinstance(call, PromptCall):
        yield call.prompt
    elif isinstance(call, EmbedCall):
        yield from call.texts
    else:
        yield from _chat_texts(call.body)


def least_text(call: Call) -> str:
    """A prompt; of one that is rendered elsewhere, what no template leaves out.

    That is the contents, without their margins and what was thought before them.
    """
    if not isinstance(call, ChatCall):
        return "\n".join(prompt_texts(call))
    texts = (_content(message).rpartition(Marks().end)[2].strip() for message in call.body["messages"])
    return "\n".join(filter(None, texts))


def most_asked(call: Call) -> int | None:
    """Tokens that the answer to this call may have, as far as the call says."""
    if isinstance(call, PromptCall):
        return call.arguments.get("max_tokens")
    if isinstance(call, ChatCall):
        return call.body.get("max_completion_tokens") or call.body.get("max_tokens")
    return None


def _chat_texts(body: Mapping[str, Any]) -> Iterator[str]:
    for message in body["messages"]:
        yield _content(message)
        for call in message.get("tool_calls") or ():
            yield _json(call.get("function") or call)
        if called := message.get("function_call"):
            yield _json(called)
    yield from map(_json, body.get("tools") or ())
    yield from map(_json, body.get("functions") or ())


def _content(message: Mapping[str, Any]) -> str:
    """Its text, whatever shape the client gave it: the server at the other end judges that."""
    content = message.get("content")
    parts = content if isinstance(content, list) else [content]
    said = [part.get("text") or part.get("refusal") if isinstance(part, dict) else part for part in parts]
    return "".join(text for text in said if isinstance(text, str))


def _json(value: Any) -> str:
    """Also of numbers beyond 64 bits, which are refused only when they are sent."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


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

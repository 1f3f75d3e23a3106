"""Checks of what an endpoint promises beside a text: stops, lengths, counts, characters, errors, company.

Rule: form decides. A check that needs certain words in an answer is inconclusive without them; what the
contract leaves open is not supported, never wrong.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from orjson import JSONDecodeError, loads

from gateway.conformance.client import NoAnswer
from gateway.conformance.reading import Answer, NoText, Refused
from gateway.conformance.subject import SAMPLE, STEADY, Subject
from gateway.conformance.verdict import Verdict, inconclusive, ok, unsupported, wrong

CUTS = "你好，世界。数一数：一二三四五六七八九十。🎉👩‍👩‍👧‍👦🇨🇳 Grüße, ελληνικά, русский, हिन्दी."
LOST = "\ufffd"  # what a decoder writes for bytes that are no character
LONG = "Please count to 5000"
FEW = 4  # tokens
AT_ONCE = 4  # requests side by side
BEGINNINGS = ("<s>", "<|begin_of_text|>", "<bos>", "[gMASK]")
UNKNOWN = "x_unknown_to_every_server"


async def end(subject: Subject) -> Verdict:
    """Can a complete stream be told from a cut one?"""
    answer = subject.stream
    if answer is None:
        return unsupported("it does not stream")
    if answer.framing == "text":
        return unsupported("bare text marks no end, and cannot say why it ended")
    if not answer.marked:
        return unsupported("neither finish_reason nor [DONE]: a stream that was cut looks complete")
    marks = ["finish_reason"] if answer.fact("finish_reason") else []
    return ok(" and ".join([*marks, *(["[DONE]"] if answer.done else [])]))


async def echo(subject: Subject) -> Verdict:
    """Does an answer begin with the prompt? Asked twice, with words that nobody says by chance."""
    prompts = [f"The word of the day is {subject.nonce}{number}. What is new?" for number in (1, 2)]
    texts = [subject.text(await subject.ask(prompt, {**STEADY, "max_tokens": 64})) for prompt in prompts]
    pairs = list(zip(texts, prompts, strict=True))
    exact = [text.startswith(prompt) for text, prompt in pairs]
    if all(exact):
        subject.fit = replace(subject.fit, echo="always")
        return ok("answers begin with the prompt, which the gateway removes")
    if any(exact):
        return inconclusive("of two answers one begins with the prompt")
    squeezed = [("".join(text.split()), "".join(prompt.split())) for text, prompt in pairs]
    if any(text.startswith(prompt) for text, prompt in squeezed):
        return wrong("answers begin with the prompt in other spacing: the gateway cannot remove it")
    subject.fit = replace(subject.fit, echo="never")
    return ok("answers do not repeat the prompt")


async def stops(subject: Subject) -> Verdict:
    """A stop string out of the middle of an answer: the same answer ends before it, and none of it leaks."""
    if subject.fit.request_fields.get("stop", "") is None:
        return unsupported("`stop` is refused; the gateway cuts")
    steady = {**STEADY, "max_tokens": 64}
    before = subject.said(await subject.ask(SAMPLE, steady), SAMPLE)
    if len(before) < 8:
        return inconclusive("its answer is too short to be stopped")
    stop = before[len(before) // 2 :][:3]
    answer = await subject.ask(SAMPLE, {**steady, "stop": [stop]})
    text = subject.said(answer, SAMPLE)
    if text == before:
        return unsupported("`stop` has no effect; the gateway cuts")
    if stop in text:
        if text.rstrip().endswith(stop.rstrip()) or "stop" in (answer.fact("ignored") or ()):
            return wrong("it stops, but leaves the stop string in its answer (the gateway cuts it off)")
        return inconclusive("the answer with `stop` is another one")
    if text != before[: before.index(stop)]:
        return inconclusive("the answer with `stop` is another one; none of it leaked")
    if not subject.said(await subject.ask(SAMPLE, {**steady, "stop": [".+"]}), SAMPLE):
        return wrong("`.+` ended an answer: stops are read as patterns")
    return ok("literal, and none leaks")


async def length(subject: Subject) -> Verdict:
    """``max_tokens`` ends an answer, which says so."""
    if subject.fit.request_fields.get("max_tokens", "") is None:
        return unsupported("`max_tokens` is refused")
    answer = await subject.ask(LONG, {**STEADY, "max_tokens": FEW})
    if "max_tokens" in (answer.fact("ignored") or ()):
        return unsupported("`max_tokens` is ignored, as the answer says")
    spoken, reason = _count(answer, "completion_tokens"), answer.fact("finish_reason")
    if spoken is not None and spoken > FEW:
        return wrong(f"{spoken} tokens were spoken where {FEW} were the most")
    if reason == "length":
        return ok(f"{FEW} tokens at most, finish_reason length")
    text = subject.said(answer, LONG)
    if len(text) > 40 * FEW:
        return unsupported("`max_tokens` has no effect")
    if reason is None:
        return unsupported("no finish_reason: clients see stop where an answer was cut")
    if spoken == FEW:
        return wrong(f"the answer was cut after {FEW} tokens, but its finish_reason is {reason}")
    return inconclusive("the answer ended by itself")


async def usage(subject: Subject) -> Verdict:
    """Token counts that are there and can be true."""
    prompts = [SAMPLE, f"{'The sun rises in the east and sets in the west. ' * 8}{SAMPLE}"]
    answers = [await subject.ask(prompt, {**STEADY, "max_tokens": 32}) for prompt in prompts]
    if answers[0].fact("usage") is None:
        return _only_streamed(subject)
    sent = [_count(answer, "prompt_tokens") for answer in answers]
    spoken = [_count(answer, "completion_tokens") for answer in answers]
    if None in sent or None in spoken:
        return wrong("`usage` without whole numbers at prompt_tokens and completion_tokens")
    short, long = sent[0] or 0, sent[1] or 0
    if not 0 < short < long <= 3 * len(prompts[1]):
        sizes = " and ".join(str(len(prompt)) for prompt in prompts)
        return wrong(f"prompts of {sizes} characters count {short} and {long} tokens")
    for answer, count in zip(answers, spoken, strict=True):
        text = subject.text(answer)
        if not bool(text) <= (count or 0) <= len(text.encode()) + 40:
            return wrong(f"an answer of {len(text)} characters counts {count} tokens")
    if subject.stream is not None and subject.stream.fact("usage") is None:
        return unsupported("whole answers bring `usage`, streams do not")
    return ok(f"{short} tokens in, {spoken[0]} out, for a short question")


def _only_streamed(subject: Subject) -> Verdict:
    if subject.stream is None or subject.stream.fact("usage") is None:
        return unsupported("no `usage`; the gateway estimates, and says so")
    subject.fit = replace(subject.fit, whole="stream")
    return unsupported("streams bring `usage`, whole answers do not; so these are asked for as streams")


def _count(answer: Answer, name: str) -> int | None:
    usage = answer.fact("usage")
    value = usage.get(name) if isinstance(usage, Mapping) else None
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else None


async def unicode(subject: Subject) -> Verdict:
    """Characters of several bytes and tokens, whole in every piece."""
    prompt = f"repeat: {CUTS}"
    streams = subject.stream is not None
    fields = {**STEADY, "max_tokens": 256}
    answer = await subject.ask(prompt, {**fields, "stream": True} if streams else fields)
    # Where each piece repeats the text, a character still in pieces at its end is completed by the next.
    pieces = answer.pieces[-1:] if subject.fit.cumulative else answer.pieces
    if any(LOST in piece for piece in pieces):
        if LOST in subject.text(await subject.ask(prompt, fields)):
            return inconclusive("U+FFFD is in its whole answer too: the model may say bytes that are no text")
        return wrong("a character was cut between two pieces and became U+FFFD")
    text = subject.said(answer, prompt)
    if not any(char > "\u2fff" for char in text):
        return inconclusive("its answer holds no such characters")
    return ok(f"valid in each of {len(answer.pieces)} pieces" if streams else "valid in a whole answer")


async def bos(subject: Subject) -> Verdict:
    """Counts of a prompt with and without a beginning-of-sequence token in it: a hint, never a proof."""
    few = {**STEADY, "max_tokens": 1}
    plain = _count(await subject.ask(SAMPLE, few), "prompt_tokens")
    if plain is None:
        return unsupported("needs `usage`")
    for beginning in BEGINNINGS:
        count = _count(await subject.ask(beginning + SAMPLE, few), "prompt_tokens")
        if count == plain:
            return ok(f"{beginning} at the beginning of a prompt is not added again")
        if count == plain + 1:
            return inconclusive(f"{beginning} counts one more: none is added by default, or one too many")
    return inconclusive(f"none of {' '.join(BEGINNINGS)} is one token here")


async def errors(subject: Subject) -> Verdict:
    """A prompt that is no text is refused in the contract's shape."""
    try:
        reply = await subject.post(1)
    except NoAnswer as exc:
        return unsupported(f"a bad field gets no answer ({exc})")
    name = subject.fit.request_fields.get("prompt") or "prompt"
    if reply.status < 400:
        return unsupported(f"a number as `{name}` is not refused")
    try:
        data = loads(reply.body)
    except JSONDecodeError:
        return unsupported(f"status {reply.status} without JSON for a number as `{name}`")
    match data:
        case {"error": {"message": str(), "code": str(code), "status": int(status)}}:
            if status != reply.status:
                return wrong(f"the error says status {status}, its answer {reply.status}")
            if (code, status) != ("bad_request", 400):
                return wrong(f"a bad field is `{code}` with {status}, not `bad_request` with 400")
            return ok("400 with message, code and status")
    return unsupported(f"status {reply.status} for a bad field, in a shape of its own")


async def unknown(subject: Subject) -> Verdict:
    """A field that nobody knows."""
    try:
        answer = await subject.ask(SAMPLE, {**STEADY, "max_tokens": FEW, UNKNOWN: True})
    except Refused as refused:
        if not refused.lasting:
            raise
        return unsupported(f"unknown fields are refused ({refused}): leave `forward` empty")
    listed = answer.fact("ignored")
    if listed is None:
        return unsupported("taken, and not listed in `ignored`")
    if not isinstance(listed, list) or not all(isinstance(name, str) for name in listed):
        return wrong("`ignored` is not a list of names")
    if UNKNOWN not in listed:
        return wrong("taken, and missing in `ignored`")
    return ok("taken, and listed in `ignored`")


async def parallel(subject: Subject) -> Verdict:
    """Several prompts at once, every second one streamed; each gets its own answer."""
    prompts = [f"repeat: {subject.nonce}{number}" for number in range(AT_ONCE)]
    stream = {"stream": True} if subject.stream is not None else {}
    asked = [
        subject.ask(prompt, {**STEADY, "max_tokens": 32, **(stream if number % 2 else {})})
        for number, prompt in enumerate(prompts)
    ]
    answers = await asyncio.gather(*asked, return_exceptions=True)
    busy = [each for each in answers if isinstance(each, Refused) and each.reply.status == 429]
    if busy:
        return unsupported(f"{len(busy)} of {AT_ONCE} at once were answered with 429: set `max_concurrency`")
    for each in answers:
        if isinstance(each, BaseException):
            if not isinstance(each, NoAnswer | NoText):
                raise each
            return wrong(f"of {AT_ONCE} at once one failed: {each}")
    texts = [subject.text(each) for each in answers if isinstance(each, Answer)]
    return _kept_apart(texts, [prompt.removeprefix("repeat: ") for prompt in prompts])


def _kept_apart(texts: Sequence[str], words: Sequence[str]) -> Verdict:
    for number, text in enumerate(texts):
        if any(word in text for word in words if word != words[number]):
            return wrong("an answer holds the prompt of another request")
    return ok(f"{len(texts)} at once")


async def cancel(subject: Subject) -> Verdict:
    """Connections are closed in the middle of an answer; others are answered all the same."""
    streams = subject.stream is not None
    fields: dict[str, Any] = {**STEADY, "max_tokens": 2000, **({"stream": True} if streams else {})}
    # A whole answer goes on without its reader: a short one keeps nobody waiting.
    bodies = [subject.body(LONG if streams else SAMPLE, fields) for _ in range(AT_ONCE)]
    await asyncio.gather(*(subject.client.leave(body, streamed=streams) for body in bodies))
    try:
        await asyncio.gather(*(subject.ask(SAMPLE, {**STEADY, "max_tokens": FEW}) for _ in range(2)))
    except (NoAnswer, NoText) as exc:
        return wrong(f"after {AT_ONCE} closed connections: {exc}")
    what = "streams closed after their first bytes" if streams else "requests closed before their answer"
    return ok(f"{AT_ONCE} {what}; others are answered")

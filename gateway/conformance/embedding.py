"""Checks of an endpoint that turns texts into vectors and continues no prompts.

Rule: numbers decide. What a vector means is the model's affair; that there is one for each text, that it
depends on that text alone, and that it is the same each time is not.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, TypeAlias

from orjson import JSONDecodeError, loads

from gateway.conformance.checks import AT_ONCE, UNKNOWN
from gateway.conformance.client import NoAnswer
from gateway.conformance.fit import Fit
from gateway.conformance.reading import NoText, Refused
from gateway.conformance.subject import SAMPLE, Subject
from gateway.conformance.verdict import Verdict, ok, unsupported, wrong

Vector: TypeAlias = tuple[float, ...]

TEXTS = (SAMPLE, "The sun rises in the east.", "你好，世界 🎉 Grüße", "A river " * 40)
ALIKE = 0.999  # cosine between two vectors of one text; in 16-bit formats they differ with the batch

AS_INPUT = Fit(request_fields={"prompt": "input"})
"""The checks that both kinds of endpoint share ask for ``prompt``; here the contract's word is ``input``."""


@dataclass(frozen=True, slots=True)
class Vectors:
    """An answer. ``facts``: what stands beside the vectors."""

    each: tuple[Vector, ...]
    facts: dict[str, Any]


async def embeds(subject: Subject) -> bool:
    """Does it answer ``input`` with embeddings? From then on the subject is asked so."""
    before, subject.fit = subject.fit, AS_INPUT
    try:
        await _ask(subject, TEXTS[:1])
    except (NoAnswer, NoText):
        subject.fit = before
        return False
    return True


async def whole(subject: Subject) -> Verdict:
    """Several texts, and a vector for each."""
    found = await _ask(subject, TEXTS)
    sizes = {len(vector) for vector in found.each}
    if len(found.each) != len(TEXTS):
        return wrong(f"{len(TEXTS)} texts, but {len(found.each)} vectors")
    if len(sizes) != 1 or 0 in sizes:
        return wrong(f"vectors of different sizes: {', '.join(map(str, sorted(sizes)))}")
    lengths = [math.hypot(*vector) for vector in found.each]
    unit = all(abs(length - 1) < 0.01 for length in lengths)
    return ok(f"asked with `input`: vectors of {sizes.pop()} numbers{', of length 1' if unit else ''}")


async def single(subject: Subject) -> Verdict:
    """A text has the same vector alone and beside others, in the order of the texts."""
    together = (await _ask(subject, [*TEXTS, TEXTS[0]])).each
    alone = await _alone(subject)
    if any(one == other for one, other in pairwise(alone)):
        return wrong("different texts have the same vector")
    if not _same(together, [*alone, alone[0]]):
        return wrong("a text has another vector beside other texts, or the order is not kept")
    return ok("the same alone and beside others, in order")


async def usage(subject: Subject) -> Verdict:
    """Counts that are there and grow with the text."""
    facts = [(await _ask(subject, [text])).facts.get("usage") for text in (TEXTS[0], TEXTS[-1])]
    if facts[0] is None:
        return unsupported("no `usage`; the gateway estimates, and says so")
    short, long = (fact.get("prompt_tokens") if isinstance(fact, dict) else None for fact in facts)
    if type(short) is not int or type(long) is not int:
        return wrong("`usage` without a whole number at prompt_tokens")
    if not 0 < short < long <= 3 * len(TEXTS[-1]):
        sizes = f"{len(TEXTS[0])} and {len(TEXTS[-1])}"
        return wrong(f"texts of {sizes} characters count {short} and {long} tokens")
    return ok(f"{short} tokens in a short text")


async def unknown(subject: Subject) -> Verdict:
    """A field that nobody knows."""
    try:
        found = await _ask(subject, TEXTS[:1], {UNKNOWN: True})
    except Refused as refused:
        if not refused.lasting:
            raise
        return unsupported(f"unknown fields are refused ({refused})")
    listed = found.facts.get("ignored")
    if listed is None:
        return unsupported("taken, and not listed in `ignored`")
    if not isinstance(listed, list) or UNKNOWN not in listed:
        return wrong("taken, and missing in `ignored`")
    return ok("taken, and listed in `ignored`")


async def parallel(subject: Subject) -> Verdict:
    """Several requests at once; each gets the vectors of its own text."""
    alone = await _alone(subject)
    asked = [_ask(subject, [TEXTS[number % len(TEXTS)]]) for number in range(AT_ONCE)]
    answers = await asyncio.gather(*asked, return_exceptions=True)
    for number, answer in enumerate(answers):
        if isinstance(answer, Refused) and answer.reply.status == 429:
            return unsupported(f"{AT_ONCE} at once were answered with 429: set `max_concurrency`")
        if isinstance(answer, BaseException):
            if not isinstance(answer, NoAnswer | NoText):
                raise answer
            return wrong(f"of {AT_ONCE} at once one failed: {answer}")
        if not _same(answer.each, [alone[number % len(TEXTS)]]):
            return wrong("an answer holds the vector of another request")
    return ok(f"{AT_ONCE} at once")


async def cancel(subject: Subject) -> Verdict:
    """Connections are closed before an answer; others are answered all the same."""
    bodies = [subject.body(list(TEXTS) * 8) for _ in range(AT_ONCE)]
    await asyncio.gather(*(subject.client.leave(body, streamed=False) for body in bodies))
    try:
        await _ask(subject, TEXTS[:1])
    except (NoAnswer, NoText) as exc:
        return wrong(f"after {AT_ONCE} closed connections: {exc}")
    return ok(f"{AT_ONCE} requests closed before their answer; others are answered")


async def _alone(subject: Subject) -> list[Vector]:
    """The vector of each text, asked for by itself."""
    found = [(await _ask(subject, [text])).each for text in TEXTS]
    if any(len(vectors) != 1 for vectors in found):
        raise NoText("it does not answer one text with one vector")
    return [vector for [vector] in found]


async def _ask(subject: Subject, texts: Sequence[str], fields: dict[str, Any] | None = None) -> Vectors:
    """Raises ``NoAnswer``, ``Refused``, ``NoText``."""
    reply = await subject.post(list(texts), fields)
    if not 200 <= reply.status < 300:
        raise Refused(reply)
    try:
        data = loads(reply.body)
    except JSONDecodeError:
        raise NoText("its answer is not JSON") from None
    vectors = data.get("embeddings") if isinstance(data, dict) else None
    if not isinstance(vectors, list) or not all(_is_vector(vector) for vector in vectors):
        raise NoText("its answer has no list of vectors at `embeddings`")
    return Vectors(tuple(map(tuple, vectors)), data)


def _is_vector(value: Any) -> bool:
    return isinstance(value, list) and all(type(number) in (int, float) for number in value)


def _same(found: Sequence[Vector], wanted: Sequence[Vector]) -> bool:
    if len(found) != len(wanted):
        return False
    return all(_cosine(one, other) >= ALIKE for one, other in zip(found, wanted, strict=True))


def _cosine(one: Vector, other: Vector) -> float:
    """1 for the same direction; 0 where a vector has none, or another size."""
    if len(one) != len(other):
        return 0.0
    lengths = math.hypot(*one) * math.hypot(*other)
    return math.fsum(a * b for a, b in zip(one, other, strict=True)) / lengths if lengths else 0.0

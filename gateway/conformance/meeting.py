"""The first questions: how a prompt is taken, where the text is, how it streams, what is refused.

Rule: each of these checks also completes ``subject.fit``, which all later ones ask with. Names are tried from
a table, the contract's first; a server that says which field it misses is believed.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any, Literal, TypeAlias

from orjson import JSONDecodeError, loads

from gateway.conformance.client import Reply
from gateway.conformance.fit import Fit, Stream, stream_mode
from gateway.conformance.reading import Answer, NoText, Refused, read
from gateway.conformance.subject import SAMPLE, Subject
from gateway.conformance.verdict import Verdict, inconclusive, ok, unsupported, wrong

Names: TypeAlias = Mapping[str, str | None]

HUGGING_FACE: Names = {
    "prompt": "inputs",
    "max_tokens": "parameters.max_new_tokens",
    **{
        name: f"parameters.{name}"
        for name in ("temperature", "top_p", "top_k", "repetition_penalty", "seed", "stop")
    },
}
SHAPES: tuple[Names, ...] = (
    {},
    HUGGING_FACE,
    {"prompt": "text"},
    {"prompt": "input"},
    {"prompt": "question"},
    {"prompt": "query"},
)
"""How requests are spoken, as ``request_fields``."""

SHAPELESS = frozenset({401, 403, 404, 405, 408, 410, 413, 429, 502, 503, 504})
"""Statuses that no other field name would change."""

USUAL: Mapping[str, Any] = {
    "max_tokens": 32,
    "temperature": 0.5,
    "top_p": 0.9,
    "stop": ["\u241e"],
    "seed": 7,
    "presence_penalty": 0.1,
    "frequency_penalty": 0.1,
}
"""Fields that clients commonly send; the stop is a character that no answer holds."""

FORMS = {"sse": "server-sent events", "ndjson": "lines of JSON", "text": "bare text", "whole": "JSON"}


async def whole(subject: Subject) -> Verdict:
    """A prompt alone, and what comes back."""
    found, failure = await _first_that_answers(subject)
    if found is None:
        return wrong(f"{failure}{_key(failure)}")
    fields, answer = found
    stream: Stream = stream_mode(answer, None) or "auto"
    fit = Fit(request_fields=fields, response_field=answer.place, stream=stream)
    subject.fit = replace(fit, cumulative=answer.cumulative, ends=_ends(answer))
    subject.sample = answer
    asked = fields.get("prompt") or "prompt"
    where = f"the text at `{answer.place}`" if answer.place else "bare text"
    reason = answer.fact("finish_reason")
    if reason is not None and not isinstance(reason, str):
        return wrong("`finish_reason` is not a text")
    end = f", finish_reason {reason}" if reason else ", no finish_reason (read as stop)"
    return ok(f"asked with `{asked}`: {where}{end}")


def _key(failure: Exception | None) -> str:
    """How to get in, where that is what failed."""
    if isinstance(failure, Refused) and failure.reply.status in (401, 403):
        modals = "a Modal proxy token as MODAL_KEY and MODAL_SECRET (or --modal-key, --modal-secret)"
        return f". Give {modals}, another one with --header 'Authorization: Bearer TOKEN'"
    return ""


async def _first_that_answers(subject: Subject) -> tuple[tuple[Names, Answer] | None, Exception | None]:
    """The request fields under which it answers, preferably with some text; else the first failure."""
    empty: tuple[Names, Answer] | None = None
    failure: Exception | None = None
    shapes = list(SHAPES)
    while shapes:
        fields = shapes.pop(0)
        subject.fit = Fit(request_fields=fields)
        reply = await subject.post(SAMPLE)
        try:
            answer = read(reply, SAMPLE)
        except (Refused, NoText) as exc:
            failure = failure or exc
            if reply.status in SHAPELESS:
                subject.shapeless = True
                break
            if not fields:
                shapes[:0] = _missing(reply)
            continue
        if answer.text():
            return (fields, answer), None
        empty = empty or (fields, answer)
    return empty, failure


def _missing(reply: Reply) -> Iterator[Names]:
    """The field that FastAPI's 422 says is missing; nothing where it says something else."""
    try:
        data = loads(reply.body)
    except JSONDecodeError:
        return
    details = data.get("detail") if isinstance(data, dict) else None
    for detail in details if isinstance(details, list) else ():
        match detail:
            case {"type": "missing", "loc": ["body", "inputs", *_]}:
                return  # the next shape
            case {"type": "missing", "loc": ["body", str(name)]} if "." not in name and name.strip():
                yield {"prompt": name}
                return


async def streamed(subject: Subject) -> Verdict:
    """The same prompt with ``stream: true``."""
    assert subject.sample is not None
    try:
        answer = await _streamed_answer(subject)
    except Refused as refused:
        if not refused.lasting:
            raise
        _ask_for_none(subject)
        return unsupported(f"`stream` is refused ({refused})")
    mode = stream_mode(subject.sample, answer)
    if answer.framing == "whole":
        subject.fit = replace(subject.fit, stream=mode or "auto")
        return unsupported("it answers whole where a stream is asked for; clients get it in one piece")
    if mode is None:
        _ask_for_none(subject)
        return wrong(f"a stream that says it is {answer.kind or 'nothing'}: the gateway would misread it")
    if answer.place != subject.fit.response_field:
        _ask_for_none(subject)
        return unsupported(
            f"the pieces are at `{answer.place}`, whole answers at `{subject.fit.response_field}`"
        )
    if not answer.pieces:
        _ask_for_none(subject)
        return wrong("the stream holds no text")
    subject.fit = replace(subject.fit, stream=mode, cumulative=answer.cumulative, ends=_ends(answer))
    subject.stream = answer
    how = ", each with the text so far" if answer.cumulative else ""
    if answer.framing == "text":
        return ok(FORMS["text"])
    number = len(answer.pieces)
    return ok(f"{FORMS[answer.framing]}, {number} piece{'s' if number > 1 else ''}{how}")


async def _streamed_answer(subject: Subject) -> Answer:
    """Asked for once more where there is no text in it: a model may end at once."""
    place = subject.fit.response_field
    try:
        return read(await subject.post(SAMPLE, {"stream": True}), SAMPLE, place)
    except NoText:
        return read(await subject.post(SAMPLE, {"stream": True}), SAMPLE, place)


def _ends(answer: Answer) -> Literal["marker", "eof"]:
    return "eof" if answer.framing in ("sse", "ndjson") and not answer.marked else "marker"


def _ask_for_none(subject: Subject) -> None:
    """Never ask for a stream: ``stream: none``, or without the field where that reads nothing."""
    assert subject.sample is not None
    mode = stream_mode(subject.sample, None) or "auto"
    fields = dict(subject.fit.request_fields)
    if mode != "none":
        fields["stream"] = None
    subject.fit = replace(subject.fit, stream=mode, request_fields=fields)


async def fields(subject: Subject) -> Verdict:
    """The fields that clients send: all at once, and where that is refused one by one."""
    together = await _taken(subject, USUAL)
    if isinstance(together, Answer):
        listed = [name for name in together.fact("ignored") or () if name in USUAL]
        if listed:
            return unsupported(f"taken without effect, as `ignored` says: {', '.join(listed)}")
        return ok(f"none is refused: {', '.join(USUAL)}")
    refused = [name for name in USUAL if not isinstance(await _taken(subject, {name: USUAL[name]}), Answer)]
    if not refused:
        return inconclusive(f"each is taken alone, all together are refused ({together})")
    await subject.ask(SAMPLE)  # else it was not for these fields
    dropped = {**subject.fit.request_fields, **dict.fromkeys(refused)}
    subject.fit = replace(subject.fit, request_fields=dropped)
    return unsupported(f"refused, so they are left out: {', '.join(refused)} ({together})")


async def _taken(subject: Subject, fields: Mapping[str, Any]) -> Answer | Refused:
    try:
        return await subject.ask(SAMPLE, fields)
    except Refused as refused:
        if not refused.lasting:
            raise
        return refused

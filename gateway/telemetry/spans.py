"""What spans say: OpenTelemetry's conventions for generative AI, filled from a record and its calls.

Rule: no prompt and no answer but where that was asked for, and then bounded. Names of ours begin with
``modal_gateway``. Times are nanoseconds since 1970. Pure; knows nothing about OpenTelemetry's library.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import orjson

from gateway.core.wire import text_of
from gateway.record import Record
from gateway.routing.visit import Visit
from gateway.serve.job import OTHER, Job
from gateway.telemetry.lines import printable

Value: TypeAlias = str | int | float | bool | Sequence[str]
OPERATIONS: Mapping[str, str] = {
    "completions": "text_completion", "prompt": "text_completion", "embeddings": "embeddings",
}  # fmt: skip
"""By route; every other one is a chat."""
ASKED: Mapping[str, str] = {
    "max_tokens": "max_tokens", "temperature": "temperature", "top_p": "top_p", "n": "choice.count",
    "frequency_penalty": "frequency_penalty", "presence_penalty": "presence_penalty", "seed": "seed",
}  # fmt: skip
"""Fields of a request that its span tells, and how they are called there."""
MAX_TEXT = 16_384  # characters of each message that are told
PROVIDER = "modal_gateway"


@dataclass(slots=True, frozen=True)
class Span:
    """One span to be made; ``id`` is given where it was told to somebody already."""

    name: str
    start: int
    end: int
    attributes: Mapping[str, Value]
    id: str = ""
    error: str | None = None
    below: tuple[Span, ...] = field(default=())


def request_span(record: Record, job: Job, *, content: bool) -> Span:
    """The span of a request, with those of its calls below it. ``content``: with prompts and answers."""
    told = {**_identity(record), **_usage(record), **_asked(job)}
    if content:
        told |= _content(job)
    at = Clock(record)
    visits = [visit for visit, _ in job.made if visit.ended]
    below = [span for number, visit in enumerate(visits) for span in _call(visit, number, record)]
    return Span(
        f"{_operation(record)} {record.model}",
        at(record.started),
        at(record.finished),
        {name: value for name, value in told.items() if value is not None},
        job.trace.span_id if job.trace is not None else "",
        record.code if record.status >= 500 or record.status == 200 else None,
        tuple(below),
    )


class Clock:
    """From seconds of the monotonic clock to nanoseconds since 1970."""

    def __init__(self, record: Record) -> None:
        self._zero = round((record.time - record.started) * 1e9)

    def __call__(self, seconds: float) -> int:
        return self._zero + round(seconds * 1e9)


def _operation(record: Record) -> str:
    return OPERATIONS.get(record.route, "chat")


def _identity(record: Record) -> dict[str, Any]:
    answered = record.status == 200  # else there is no response to speak of
    return {
        "gen_ai.operation.name": _operation(record),
        "gen_ai.provider.name": PROVIDER,
        "gen_ai.request.model": printable(record.asked or record.model),
        "gen_ai.response.model": record.model if answered else None,
        "gen_ai.response.id": record.request_id if answered else None,
        "gen_ai.request.stream": record.streamed,
        "http.response.status_code": record.status,
        "error.type": record.code,
        "modal_gateway.request_id": record.request_id,
        "modal_gateway.route": record.route,
        "modal_gateway.key": printable(record.key),
        "modal_gateway.team": record.team and printable(record.team),
        "modal_gateway.model": record.model if record.model != OTHER else None,
        "modal_gateway.upstream": record.upstream,
        "modal_gateway.upstream.state": record.state,
    }


def _usage(record: Record) -> dict[str, Any]:
    told: dict[str, Any] = {
        "gen_ai.response.finish_reasons": [printable(record.finish)] if record.finish else None,
        "modal_gateway.gpu.seconds": None if record.gpu is None else record.gpu / 1e9,
        "modal_gateway.cost.dollars": None if record.cost is None else record.cost / 1e9,
    }
    if record.first_event is not None:
        told["gen_ai.response.time_to_first_chunk"] = record.first_event - record.started
    if record.usage is not None:
        told["gen_ai.usage.input_tokens"] = record.usage.prompt_tokens
        told["gen_ai.usage.output_tokens"] = record.usage.completion_tokens
        told["modal_gateway.usage.source"] = record.usage.source
    return told


def _asked(job: Job) -> dict[str, Any]:
    given = {name: getattr(job.request, field, None) for field, name in ASKED.items()}
    return {f"gen_ai.request.{name}": value for name, value in given.items() if value is not None}


def _content(job: Job) -> dict[str, Any]:
    messages = job.request.messages if job.request is not None else []
    sent = [_message(each["role"], text_of(each.get("content"), "")) for each in messages]
    kept = [choice.kept.answer() for choice in job.choices if choice.kept is not None]
    said = [_message("assistant", answer.get("text", "")) for answer in kept]
    return {
        "gen_ai.request.stop_sequences": list(map(_cut, getattr(job.request, "stop", None) or ())) or None,
        "gen_ai.input.messages": orjson.dumps(sent).decode(),
        "gen_ai.output.messages": orjson.dumps(said).decode(),
    }


def _message(role: str, text: str) -> dict[str, Any]:
    return {"role": role, "parts": [{"type": "text", "content": _cut(text)}]}


def _cut(text: str) -> str:
    return text[:MAX_TEXT].encode("utf-8", "replace").decode()


def _call(visit: Visit, number: int, record: Record) -> Iterator[Span]:
    """What became of one call: the wait for a slot, and the call with the boot that it waited for."""
    at = Clock(record)
    came, began, ended = at(visit.came), at(visit.came + visit.queued), at(visit.ended)
    name = {"modal_gateway.upstream": visit.upstream}
    if visit.queued:
        yield Span("queue", came, began, name)
    boot = (Span("boot", began, at(visit.came + visit.queued + visit.booted), name),) if visit.booted else ()
    told: dict[str, Any] = {
        **name,
        "gen_ai.operation.name": _operation(record),
        "gen_ai.provider.name": PROVIDER,
        "gen_ai.request.model": visit.payer.model,
        "modal_gateway.upstream.state": visit.state,
        "modal_gateway.call": number,
    }
    if visit.error is not None:
        told["error.type"] = visit.error
    yield Span(f"upstream {visit.upstream}", began, max(began, ended), told, visit.span, visit.error, boot)

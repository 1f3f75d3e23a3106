"""A record as one line: text for a person, or one JSON object.

Rule: names, numbers and codes, never a prompt, an answer or a key. What others chose is cut, and only what
can be printed is left of it, so that no line can be forged. Pure but for the zone of a person's clock.
"""

from __future__ import annotations

import re
import time
from functools import lru_cache
from typing import Any, NamedTuple

import orjson

from gateway.record import Record

MAX_SHOWN = 128  # characters of a name that somebody else chose
RED, GREEN, YELLOW, DIM, PLAIN = (f"\x1b[{code}m" for code in (31, 32, 33, 2, 0))
_WORD = re.compile(r"[\w./:@+#-]+")


class Style(NamedTuple):
    """How lines are written."""

    json: bool = False
    color: bool = False


def failed(record: Record) -> bool:
    """Whether it ended in an upstream's failure or in ours, also in mid-stream."""
    return record.status >= 500 or (record.status == 200 and record.code is not None)


def as_json(record: Record) -> bytes:
    """One JSON object and a line feed; what does not apply is left out."""
    usage, started = record.usage, record.started
    line: dict[str, Any] = {
        "time": stamp(record.time + record.finished - started),
        "level": "warning" if failed(record) else "info",
        "event": "request",
        "id": record.request_id,
        "route": record.route,
        "key": printable(record.key),
        "asked": printable(record.asked),
        "model": record.model,
        "upstream": record.upstream,
        "state": record.state,
        "status": record.status,
        "stream": record.streamed,
        "total_ms": _ms(record.finished - started),
        "calls": record.calls,
    }
    if record.first_event is not None:
        line["first_event_ms"] = _ms(record.first_event - started)
    if usage is not None:
        line["prompt_tokens"] = usage.prompt_tokens
        line["completion_tokens"] = usage.completion_tokens
        line["token_source"] = usage.source
    if record.finish is not None:
        line["finish"] = printable(record.finish)
    if record.gpu is not None:
        line["gpu_ms"] = _ms(record.gpu / 1e9)
    if record.cost is not None:
        line["cost"] = record.cost / 1e9
    _add_rare(line, record)
    return orjson.dumps(line, option=orjson.OPT_APPEND_NEWLINE)


def _add_rare(line: dict[str, Any], record: Record) -> None:
    """What few requests have."""
    if record.code is not None:
        line["code"] = record.code
    if record.queued:
        line["queue_ms"] = _ms(record.queued)
    if record.booted:
        line["boot_ms"] = _ms(record.booted)
    if record.client_left:
        line["client_left"] = True
    if record.ignored:
        line["ignored"] = record.ignored
    for name, given in (
        ("team", record.team),
        ("client_request_id", record.client_request_id),
        ("user", record.user),
    ):
        if given is not None:
            line[name] = printable(given)


def as_text(record: Record, *, color: bool = False) -> bytes:
    """Columns for a terminal: end, status, seconds in all and to the first event, tokens, model, key, id."""
    usage, at = record.usage, time.localtime(record.time + record.finished - record.started)
    first = "" if record.first_event is None else f"{record.first_event - record.started:.3f}"
    tokens = f"{usage.prompt_tokens}+{usage.completion_tokens}" if usage is not None else ""
    status, id = f"{record.status:3}", record.request_id
    if color:
        status, id = f"{_tint(record)}{status}{PLAIN}", f"{DIM}{id}{PLAIN}"
    line = (
        f"{time.strftime('%H:%M:%S', at)}  {status} {record.finished - record.started:8.3f}s {first:>8} "
        f"{tokens:>11}  {_model(record):<24}  {word(record.key):<10}  {id}"
    )
    return "  ".join([line, *_further(record)]).encode() + b"\n"


def _further(record: Record) -> list[str]:
    """What is out of the ordinary."""
    said = []
    if record.code:
        said.append(f"code={record.code}" + (" (in mid-stream)" if record.status == 200 else ""))
    said += waits(record)
    if record.calls > 1:
        said.append(f"calls={record.calls}")
    if record.finish not in (None, "stop"):
        said.append(word(str(record.finish)))
    if record.client_left:
        said.append("client left")
    if record.gpu:
        said.append(f"gpu={record.gpu / 1e9:.3f}s")
    if record.cost:
        said.append(f"${record.cost / 1e9:.6f}")
    return said


def waits(record: Record) -> list[str]:
    """The upstream's state and what the request waited for, where that is out of the ordinary."""
    said = [f"state={record.state}"] if record.state not in ("warm", "unknown") else []
    for name, seconds in (("queue", record.queued), ("boot", record.booted)):
        if seconds >= 0.001:
            said.append(f"{name}={seconds:.3f}s")
    return said


def _model(record: Record) -> str:
    if not record.asked or record.asked == record.model:
        return record.model
    asked = word(record.asked)
    return asked if record.model == "other" else f"{asked} > {record.model}"


def _tint(record: Record) -> str:
    if failed(record):
        return RED
    return GREEN if record.status < 300 else YELLOW


def printable(text: str) -> str:
    """What is left of a text from outside."""
    if len(text) <= MAX_SHOWN and text.isprintable():
        return text
    cut = text if len(text) <= MAX_SHOWN else text[: MAX_SHOWN - 3] + "..."
    return "".join(each if each.isprintable() else "?" for each in cut)


def word(text: str) -> str:
    """The same as one word, quoted where it would look like several."""
    shown = printable(text)
    return shown if _WORD.fullmatch(shown) else f'"{shown}"'


def stamp(seconds: float) -> str:
    """``2026-11-20T12:00:00.000Z`` of seconds since 1970."""
    second, rest = divmod(round(seconds * 1e6), 1_000_000)
    return f"{_second(second)}.{rest // 1000:03}Z"


@lru_cache(maxsize=64)  # lines come many a second
def _second(seconds: int) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds))


def _ms(seconds: float) -> float:
    return round(seconds * 1e6) / 1e3

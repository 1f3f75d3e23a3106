"""Rows of the ledger, and the lines of the spool that they are written in.

Rule: pure. A line is complete and undamaged, or it is not there: its checksum says so. The line of an intent
is the row that its request becomes if nothing more is ever heard of it. Knows no file and no database.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple, TypeAlias
from zlib import crc32

import orjson

from gateway.record import Record

Row: TypeAlias = Sequence[Any]
"""Values of ``COLUMNS``."""

COLUMNS = (
    "id", "kind", "time", "key_id", "key_name", "team", "asked", "model", "upstream", "route", "status",
    "code", "finish", "streamed", "first_event_ms", "duration_ms", "queue_ms", "boot_ms", "prompt_tokens",
    "completion_tokens", "tokens_source", "gpu_ns", "gpu_source", "cost", "client_request_id", "end_user",
    "content", "lost",
)  # fmt: skip
"""Those of the table ``requests``; a test compares."""

(
    ID, KIND, TIME, KEY_ID, KEY_NAME, TEAM, MODEL, STATUS, CODE, PROMPT, COMPLETION, GPU, COST, CONTENT, LOST,
) = map(
    COLUMNS.index,
    (
        "id", "kind", "time", "key_id", "key_name", "team", "model", "status", "code", "prompt_tokens",
        "completion_tokens", "gpu_ns", "cost", "content", "lost",
    ),
)  # fmt: skip

HEAD, BEGIN, END = b"#", b"+", b"="
MAX_TEXT = 256  # characters of what a client chose
MAX_CONTENT = 256 * 1024  # bytes of prompt and answer as JSON
LARGEST = 10**15  # of a count: what is more is a mistake somewhere, and sums must fit 64 bits
HOUR, DAY = 3_600_000, 86_400_000  # milliseconds
LEFT = 499  # status of a client that left before an answer: not an error of anybody here
CLIENT_LEFT = "client_left"  # code of one that left while its answer came: no error either


class Intent(NamedTuple):
    """What is known of a request before its answer begins. ``time``: seconds since 1970."""

    request_id: str
    time: float
    key_id: str
    key: str  # its name
    team: str | None
    asked: str
    model: str
    upstream: str
    route: str
    streamed: bool
    client_request_id: str | None = None
    user: str | None = None


class Idle(NamedTuple):
    """A container that waited after its last request, paid by those who used it.

    ``time`` in seconds since 1970, ``gpu`` in nanoseconds, ``cost`` in billionths of a dollar. An ``id`` is
    booked once.
    """

    id: str
    time: float
    key_id: str
    key: str
    team: str | None
    model: str
    upstream: str
    gpu: int
    gpu_source: str
    cost: int | None = None


def of_intent(intent: Intent) -> Row:
    """The row of a request whose process was killed while it ran."""
    return (
        intent.request_id, "request", int(intent.time * 1000), intent.key_id, intent.key, intent.team,
        _text(intent.asked), intent.model, intent.upstream, intent.route, 0, None, None, intent.streamed,
        None, None, None, None, None, None, None, None, None, None, _text(intent.client_request_id),
        _text(intent.user), None, True,
    )  # fmt: skip


def of_record(record: Record, content: Mapping[str, Any] | None) -> Row:
    """The row of a request that is over."""
    usage, began = record.usage, record.started
    code = record.code or (CLIENT_LEFT if record.client_left else None)
    return (
        record.request_id, "request", int(record.time * 1000), record.key_id, record.key, record.team,
        _text(record.asked), record.model, record.upstream, record.route, record.status, code,
        _text(record.finish), record.streamed,
        None if record.first_event is None else int((record.first_event - began) * 1000),
        int((record.finished - began) * 1000), int(record.queued * 1000), int(record.booted * 1000),
        usage and _whole(usage.prompt_tokens), usage and _whole(usage.completion_tokens),
        usage and usage.source,
        _whole(record.gpu), record.gpu_source, _whole(record.cost),
        _text(record.client_request_id), _text(record.user), content and _bounded(content), False,
    )  # fmt: skip


def of_idle(idle: Idle) -> Row:
    return (
        idle.id, "idle", int(idle.time * 1000), idle.key_id, idle.key, idle.team, "", idle.model,
        idle.upstream, "", 0, None, None, False, None, None, None, None, None, None, None,
        _whole(idle.gpu), idle.gpu_source, _whole(idle.cost), None, None, None, False,
    )  # fmt: skip


def line(kind: bytes, row: Row) -> bytes:
    """A row as it is written."""
    try:
        data = kind + orjson.dumps(row)
    except TypeError:  # half a character, which no encoding has
        data = kind + orjson.dumps([_mended(value) for value in row])
    return b"%08x%b\n" % (crc32(data), data)


def head() -> bytes:
    """The first line of a file: the names of its columns, for a version that has others."""
    return line(HEAD, COLUMNS)


def parsed(text: bytes) -> tuple[bytes, Row] | None:
    """Kind and values of a line without its end; None if it is damaged."""
    try:
        if int(text[:8], 16) != crc32(text[8:]):
            return None
        return text[8:9], orjson.loads(text[9:])
    except ValueError:
        return None


def renamed(row: Row, columns: Sequence[str]) -> Row:
    """A row of another version, as one of this: what it lacks is null."""
    known = dict(zip(columns, row, strict=False))
    return tuple(known.get(name) for name in COLUMNS)


def failed(row: Row) -> bool:
    """Whether it counts as an error."""
    if row[KIND] != "request":
        return False
    status = row[STATUS]
    wrong = row[CODE] not in (None, CLIENT_LEFT)
    return bool(row[LOST]) or wrong or (status >= 400 and status != LEFT)


Bucket: TypeAlias = tuple[int, str, str, str]
"""Start of an hour or a day, key id, team ('' for none), model."""


def sums(rows: Iterable[Row], width: int) -> dict[Bucket, list[Any]]:
    """Rows added up by buckets of ``width``: the key's name, then the numbers in the order of ``SUMS``."""
    found: dict[Bucket, list[Any]] = {}
    for row in rows:
        bucket = (row[TIME] // width * width, row[KEY_ID], row[TEAM] or "", row[MODEL])
        total = found.setdefault(bucket, ["", 0, 0, 0, 0, 0, 0])
        total[0] = row[KEY_NAME]
        total[1] += row[KIND] == "request"
        total[2] += failed(row)
        total[3] += row[PROMPT] or 0
        total[4] += row[COMPLETION] or 0
        total[5] += row[GPU] or 0
        total[6] += row[COST] or 0
    return found


def wider(found: Mapping[Bucket, Sequence[Any]], width: int) -> dict[Bucket, list[Any]]:
    """Such sums by buckets of ``width``, which is a multiple of theirs."""
    wide: dict[Bucket, list[Any]] = {}
    for (at, key, team, model), one in sorted(found.items()):
        total = wide.setdefault((at // width * width, key, team, model), ["", 0, 0, 0, 0, 0, 0])
        total[0] = one[0]
        for index in range(1, len(total)):
            total[index] += one[index]
    return wide


def _text(value: str | None) -> str | None:
    if value is not None and (len(value) > MAX_TEXT or "\0" in value):  # PostgreSQL takes no NUL
        return value[:MAX_TEXT].replace("\0", "\ufffd")
    return value


def _whole(value: int | None) -> int | None:
    if value is not None and not 0 <= value <= LARGEST:
        return 0 if value < 0 else LARGEST
    return value


def _mended(value: Any) -> Any:
    return value.encode("utf-8", "replace").decode() if isinstance(value, str) else value


def _bounded(content: Mapping[str, Any]) -> Mapping[str, Any]:
    try:
        data = orjson.dumps(content)
    except TypeError:
        return {"left_out": "not JSON"}
    if len(data) > MAX_CONTENT:
        return {"left_out": f"{len(data)} bytes"}
    return _without_nul(content) if b"\\u0000" in data else content


def _without_nul(value: Any) -> Any:
    if isinstance(value, str):
        return value.replace("\0", "\ufffd")
    if isinstance(value, Mapping):
        return {_without_nul(key): _without_nul(each) for key, each in value.items()}
    return [_without_nul(each) for each in value] if isinstance(value, list | tuple) else value

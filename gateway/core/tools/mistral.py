"""Mistral: ``[TOOL_CALLS] [{"name": ..., "arguments": {...}}, ...]`` or ``[TOOL_CALLS]NAME[ARGS]{...}``.

The second is the format of models since late 2024; ``[CALL_ID]...`` may stand before ``[ARGS]``. Backends
that drop special tokens leave the bare list: it counts at the very start and for tools that were offered.
The model's own templates take ids of nine letters and digits. Source:
https://github.com/mistralai/mistral-common
"""

from __future__ import annotations

from collections.abc import Sequence

from gateway.core.tools import json_text
from gateway.core.tools.dialect import Dialect, Said, object_begun
from gateway.core.tools.reader import Reader, Reading

MARK, ARGS, CALL_ID = "[TOOL_CALLS]", "[ARGS]", "[CALL_ID]"
ID_LENGTH = 9  # characters


def _read(reader: Reader) -> Reading[None]:
    yield from reader.opening(_bare(reader))
    while (yield from reader.text_until(MARK)):
        yield from reader.attempt(_calls(reader))


def _bare(reader: Reader) -> Reading[None]:
    yield from reader.spaces()
    yield from json_text.call_list(reader, strict=True)


def _calls(reader: Reader) -> Reading[None]:
    yield from reader.spaces()
    first = yield from reader.peek()
    if first == "[":
        yield from json_text.call_list(reader)
    elif first == "{":
        yield from json_text.call(reader)
    else:
        yield from _named(reader)


def _named(reader: Reader) -> Reading[None]:
    name = yield from reader.word()
    if (yield from reader.takes(CALL_ID)):
        yield from reader.word()
    yield from reader.takes(ARGS)
    yield from reader.spaces()
    yield from json_text.call_arguments(reader, name)


def short(id: str) -> str:
    """The nine characters of an id that Mistral's templates accept; none for none."""
    kept = "".join(letter for letter in id if letter.isascii() and letter.isalnum())[-ID_LENGTH:]
    return kept and kept.rjust(ID_LENGTH, "0")


def _write(calls: Sequence[Said]) -> str:
    return f"{MARK} [{', '.join(_object(call) for call in calls)}]"


def _object(call: Said) -> str:
    ending = f', "id": "{short(call.id)}"}}' if short(call.id) else "}"
    return f"{object_begun(call.name)} {call.arguments}{ending}"


MISTRAL = Dialect(
    name="mistral",
    grammar=_read,
    write=_write,
    result=lambda name, id, content: f"[TOOL_RESULTS]{content}[/TOOL_RESULTS]",
    begin=f"{MARK} [",
    begin_named=lambda name: f"{MARK} [{object_begun(name)}",
    keys=("name", "arguments"),
    identify=short,
)

"""gpt-oss: messages with a header each. The channel ``analysis`` is reasoning, everything else is text.

A message to ``functions.NAME`` is a call, whatever its channel. The prompt ends with
``<|start|>assistant``, so an answer begins inside a header; one that does not is plain text. Source:
https://cookbook.openai.com/articles/openai-harmony
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from gateway.core.tools import json_text
from gateway.core.tools.dialect import Dialect, Said
from gateway.core.tools.reader import Broken, Reader, Reading

START, CHANNEL, MESSAGE = "<|start|>", "<|channel|>", "<|message|>"
ENDS = ("<|end|>", "<|call|>", "<|return|>")
_TO = re.compile(r"\bto=(?:functions\.)?([\w.-]+)", re.ASCII)
_ANALYSIS = re.compile(r"<\|channel\|>\s*analysis\b")


def _read(reader: Reader) -> Reading[None]:
    if (yield from reader.sees(" to=", "to=")):
        yield from reader.attempt(_message(reader, ""))
    while marker := (yield from reader.text_until(START, CHANNEL, *ENDS)):
        if marker in (START, CHANNEL):
            yield from reader.attempt(_message(reader, marker))
        else:
            reader.drop()


def _message(reader: Reader, begun: str) -> Reading[None]:
    """A header and, where it is no text, its message."""
    parts = [begun]
    yield from reader.raw_until((MESSAGE,), parts.append)
    header = "".join(parts)
    if to := _TO.search(header):
        yield from _arguments(reader, to[1])
        return
    reader.drop()
    if _ANALYSIS.search(header):
        yield from reader.raw_until(ENDS, reader.think)
        reader.drop()


def _arguments(reader: Reader, name: str) -> Reading[None]:
    """The call of ``name``; an empty message is one without arguments."""
    try:
        yield from reader.spaces()
    except Broken:
        if not reader.ended:
            raise
    if reader.at < len(reader.text) and not (yield from reader.sees(*ENDS)):
        yield from json_text.call_arguments(reader, name)
        return
    reader.start(name)
    reader.pass_on("{}")
    reader.end()


def _write(calls: Sequence[Said]) -> str:
    return f"{START}assistant".join(f"{_begun(call.name)}{call.arguments}<|call|>" for call in calls)


def _begun(name: str) -> str:
    return f" to=functions.{name}{CHANNEL}commentary json{MESSAGE}"


HARMONY = Dialect(
    name="harmony",
    grammar=_read,
    write=_write,
    result=lambda name, id, content: content,
    begin=" to=functions.",
    begin_named=_begun,
    always=True,
    parallel=False,
)

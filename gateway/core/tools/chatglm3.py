"""ChatGLM3: the name of the tool on the first line, then a block of Python that calls ``tool_call``.

Only the beginning of an answer can be a call, and there is one. What follows the block is text.
Source: https://github.com/THUDM/ChatGLM3/blob/main/PROMPT_en.md
"""

from __future__ import annotations

from collections.abc import Sequence

from gateway.core.tools import python_text
from gateway.core.tools.dialect import Dialect, Said
from gateway.core.tools.python_text import call_text
from gateway.core.tools.reader import Broken, Reader, Reading

FENCE, CALL = "```", "tool_call("


def _read(reader: Reader) -> Reading[None]:
    yield from reader.opening(_call(reader))
    yield from reader.text_until()


def _call(reader: Reader) -> Reading[None]:
    yield from reader.spaces()
    name = yield from reader.word()
    if not (yield from reader.peek()).isspace():
        raise Broken
    yield from reader.spaces()
    yield from reader.expect(f"{FENCE}python")
    yield from reader.spaces()
    yield from reader.expect(CALL)
    yield from python_text.keywords(reader, name)
    yield from reader.spaces()
    yield from reader.expect(FENCE)
    reader.drop()


def _write(calls: Sequence[Said]) -> str:
    return "\n".join(
        f"{call.name}\n{FENCE}python\n{call_text('tool_call', call.members())}\n{FENCE}" for call in calls
    )


CHATGLM3 = Dialect(
    name="chatglm3",
    grammar=_read,
    write=_write,
    result=lambda name, id, content: content,
    begin="",
    begin_named=lambda name: f"{name}\n{FENCE}python\n{CALL}",
    json=False,
    parallel=False,
    stops=("<|observation|>",),
)

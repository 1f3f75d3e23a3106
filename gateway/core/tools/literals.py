"""Literals of Python and JSON as JSON.

Rule: nothing is evaluated. What has no JSON is no literal. Knows nothing about calls.
"""

from __future__ import annotations

import json
import re

import orjson

_TOKEN = re.compile(r"""('(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*")|(\w[\w.]*)|(.)""", re.DOTALL)
_ESCAPED = re.compile(
    r"\\(x[0-9a-fA-F]{2}|u[0-9a-fA-F]{4}|U00(?:0[0-9a-fA-F]|10)[0-9a-fA-F]{4}|.)", re.DOTALL
)
_ESCAPES = {"n": "\n", "t": "\t", "r": "\r", "b": "\b", "f": "\f", "\n": "", "0": "\0"}
_SAME = frozenset("\\'\"")
_WORDS = {"True": "true", "False": "false", "None": "null", "(": "[", ")": "]", ",": ", ", ":": ": "}


def as_json(source: str) -> str:
    """A literal of Python or JSON as JSON; anything else as a string of its source."""
    found = literal(source)
    return quoted(source) if found is None else found


def literal(source: str) -> str | None:
    """A literal of Python or JSON as JSON; None for anything else."""
    for text in (source, _translated(source)):
        try:
            orjson.loads(text)
        except ValueError:
            continue
        return text
    return None


def _translated(source: str) -> str:
    out: list[str] = []
    behind = False  # a word came last: with another it makes no longer one
    for match in _TOKEN.finditer(source):
        text, word, other = match.groups()
        if text is not None:
            out.append(quoted(_ESCAPED.sub(_unescaped, text[1:-1])))
        elif word is not None:
            out.append(" " * behind + _WORDS.get(word, word))
        elif not other.isspace():
            if other in ")]}" and out and out[-1] == ", ":
                out.pop()
            out.append(_WORDS.get(other, other))
        behind = word is not None or (behind and (other or "").isspace())
    return "".join(out)


def _unescaped(match: re.Match[str]) -> str:
    code = match[1]
    if len(code) > 1:
        return chr(int(code[1:], 16))
    return code if code in _SAME else _ESCAPES.get(code, match[0])


def quoted(text: str) -> str:
    """A JSON string; half of a surrogate pair stays an escape, so that the text has an encoding."""
    try:
        return orjson.dumps(text).decode()
    except TypeError:
        return json.dumps(text)

"""What tests of dialects share: two tools, and an answer read in pieces.

Rule: events are compared with neighbours of one kind joined, since where they are parted is the cut's doing.
"""

import json
from collections.abc import Iterable, Sequence
from itertools import count, pairwise
from typing import Any

from gateway.core.events import Event, Filter, Finish, Reasoning, Text, ToolArgs, ToolStart
from gateway.core.tools import DIALECTS

WEATHER = {
    "type": "object",
    "properties": {"city": {"type": "string"}, "days": {"type": "integer"}},
    "required": ["city"],
}
TOOLS: list[dict[str, Any]] = [
    {
        "type": "function",
        "function": {"name": "get_weather", "description": "The forecast.", "parameters": WEATHER},
    },
    {"type": "function", "function": {"name": "now", "parameters": {"type": "object", "properties": {}}}},
]


def watch(dialect: str, begin: str = "", single: bool = False) -> Filter:
    numbers = count()
    return DIALECTS[dialect].watch(TOOLS, lambda: f"call_{next(numbers)}", begin, single)


def pieces(text: str, cuts: Iterable[int]) -> list[str]:
    places = sorted({0, len(text), *(cut % (len(text) + 1) for cut in cuts)})
    return [text[a:b] for a, b in pairwise(places)]


def read(filter: Filter, parts: Iterable[str], finish: str = "stop") -> list[Event]:
    """Each part as a batch of its own, then the end; the joined events up to the first Finish."""
    out: list[Event] = []
    for batch in [*([Text(part)] for part in parts), [Finish(finish)]]:
        out += filter.feed(batch)
        if out and isinstance(out[-1], Finish):
            return merged(out)
    raise AssertionError("no Finish came out")


def merged(events: Sequence[Event]) -> list[Event]:
    out: list[Event] = []
    for event in events:
        match out[-1] if out else None, event:
            case Text(before), Text(text):
                out[-1] = Text(before + text)
            case Reasoning(before), Reasoning(text):
                out[-1] = Reasoning(before + text)
            case ToolArgs(index, before), ToolArgs(same, text) if index == same:
                out[-1] = ToolArgs(index, before + text)
            case _:
                out.append(event)
    return [event for event in out if not (isinstance(event, Text) and not event.text)]


def text_of(events: Sequence[Event]) -> str:
    return "".join(event.text for event in events if isinstance(event, Text))


def calls_of(events: Sequence[Event]) -> list[tuple[str, str]]:
    """(name, arguments) of each call."""
    calls: list[tuple[str, str]] = []
    for event in events:
        if isinstance(event, ToolStart):
            assert event.index == len(calls)
            calls.append((event.name, ""))
        elif isinstance(event, ToolArgs):
            assert event.index == len(calls) - 1
            calls[-1] = (calls[-1][0], calls[-1][1] + event.text)
    return calls


def written(events: Sequence[Event]) -> str:
    """Events as a golden file holds them, one a line."""
    lines = []
    for event in events:
        match event:
            case Text(text):
                lines.append(f"text {json.dumps(text, ensure_ascii=False)}")
            case Reasoning(text):
                lines.append(f"reasoning {json.dumps(text, ensure_ascii=False)}")
            case ToolStart(index, id, name):
                lines.append(f"call {index} {id} {name}")
            case ToolArgs(index, text):
                lines.append(f"arguments {index} {text}")
            case Finish(reason):
                lines.append(f"finish {reason}")
    return "\n".join(lines) + "\n"

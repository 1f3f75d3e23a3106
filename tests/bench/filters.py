"""What watching an answer costs: ``python -m tests.bench.filters [--rounds N] [--json FILE]``.

One event is one token-sized piece of text in a batch of its own, the dearest way for an answer to come. Each
subject reads prose and code, in which there is nothing to find, then a text of what it looks for. A round
measures every subject once, behind a filter that does nothing, so that a ratio compares what was measured in
the same moment.
Rule: a figure is CPU time of this process. Knows nothing about sockets, encoders or the rest of a request.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any, TypeAlias

import orjson

from gateway.core.call import Marks, PromptCall, Tooling, Watch
from gateway.core.events import Batch, Event, Filter, Finish, Text
from gateway.core.reasoning import Thinking
from gateway.core.stops import Stops
from gateway.core.structured import Extract
from gateway.core.tools import DIALECTS
from gateway.core.watch import filters

TARGET = 10.0  # us an event
ROUNDS = 20
REPEATS = 3  # readings a round, of which the fastest counts: the others were interrupted

Pipeline: TypeAlias = Sequence[Filter]

PROSE = (
    'The river runs past the old bridge, and people count the boats; nobody asks why.\nThey say: "it was '
    'here before us" - and it was (so far as anyone can tell), since 1712 or so. '
) * 12
CODE = (
    '```python\ndef f(a: list[int], b={"x": [1, 2]}) -> str:\n'
    '    return f"<b>{a[0]}</b>" if a < b else "[-]"\n```\n'
    '| a | b | <tag attr="x"> | {name} | {"name": 3} |\n'
) * 14
ROWS = [[number, number * 2.5, True, None] for number in range(60)]
ARGUMENTS = {"path": "src/main.py", "content": CODE[:1500], "lines": ROWS}
STRING, ARRAY = {"type": "string"}, {"type": "array"}
PARAMETERS = {"type": "object", "properties": {"path": STRING, "content": STRING, "lines": ARRAY}}
TOOL = {"name": "write_file", "parameters": PARAMETERS}
TOOLS: tuple[dict[str, Any], ...] = ({"type": "function", "function": TOOL},)
CALLS = [{"id": "call_1", "function": {"name": "write_file", "arguments": json.dumps(ARGUMENTS)}}]
STOPS = ("<|im_end|>", "<|im_start|>", "\nUser:", "\nObservation:")
KINDS = frozenset({"object"})


class Bare:
    """The filter that does nothing: the measure of all others."""

    def feed(self, batch: Batch) -> Batch:
        out: list[Event] = []
        for event in batch:
            out.append(event)
        return out


@dataclass(slots=True, frozen=True)
class Subject:
    """``make`` gives fresh filters for one answer; ``finds`` is a text with what they look for."""

    name: str
    make: Callable[[], Pipeline]
    finds: str


@dataclass(slots=True, frozen=True)
class Line:
    """Medians of all rounds: microseconds an event, and how many times that of the bare filter."""

    name: str
    text: str
    us: float
    ratio: float

    @property
    def ok(self) -> bool:
        return self.us < TARGET


def subjects() -> Iterator[Subject]:
    """What nothing is watched for, each filter by itself, and several at once."""
    thought = f"<think>\n{PROSE}</think>\n\n"
    fenced = f"Here it is:\n```json\n{json.dumps(ARGUMENTS, indent=1)}\n```"
    yield Subject("none", _of(Watch()), "")
    yield Subject("stops", lambda: [Stops(STOPS)], "<|im_\nUse\nObs" * 150)
    yield Subject("reasoning", lambda: [Thinking()], thought)
    yield Subject("JSON", lambda: [Extract(KINDS)], fenced)
    for name in DIALECTS:
        yield Subject(f"`{name}`", _of(Watch(tooling=Tooling(name, TOOLS))), DIALECTS[name].said(CALLS))
    several = Watch(boundary=STOPS[:2], reasoning=Marks(), tooling=Tooling("hermes", TOOLS), stops=STOPS[2:])
    yield Subject("stops, reasoning, `hermes`, stops", _of(several), thought + DIALECTS["hermes"].said(CALLS))


def _of(watch: Watch) -> Callable[[], Pipeline]:
    """The filters as a request has them."""
    return lambda: filters(PromptCall("", {}, watch=watch))


def tokens(text: str) -> list[str]:
    """The text in pieces about as long as a model's tokens."""
    return re.findall(r"\s?\w{1,6}|\s+|[^\w\s]{1,3}", text)


def seconds_per_event(make: Callable[[], Pipeline], batches: Sequence[Batch]) -> float:
    """The fastest of some readings of one answer; its end counts too."""
    found = []
    for _ in range(REPEATS):
        pipeline = make()
        begun = time.process_time_ns()
        for batch in batches:
            for each in pipeline:
                batch = each.feed(batch)
        found.append(time.process_time_ns() - begun)
    return min(found) / len(batches) / 1e9


def measure(rounds: int = ROUNDS) -> list[Line]:
    """Every subject on every text, in turn; some seconds for 20 rounds."""
    samples: dict[tuple[str, str], list[tuple[float, float]]] = {}
    readings = [
        (each, title, [*([Text(token)] for token in tokens(text)), [Finish()]])
        for each in subjects()
        for title, text in (("prose", PROSE), ("code", CODE), ("found", each.finds))
        if text
    ]
    for _ in range(rounds):
        for each, title, batches in readings:
            bare = seconds_per_event(lambda: [Bare()], batches)
            cost = seconds_per_event(each.make, batches)
            samples.setdefault((each.name, title), []).append((cost, cost / bare))
    return [
        Line(name, title, median(cost for cost, _ in seen) * 1e6, median(ratio for _, ratio in seen))
        for (name, title), seen in samples.items()
    ]


def table(lines: Sequence[Line]) -> str:
    """A row a subject, in microseconds an event, the ratio to the bare filter in brackets."""
    rows = ["| watched for | prose | code | what is watched for |", "|---|---|---|---|"]
    found = {(line.name, line.text): f"{line.us:.2f} ({line.ratio:.1f}x)" for line in lines}
    for name in dict.fromkeys(line.name for line in lines):
        cells = [found.get((name, title), "") for title in ("prose", "code", "found")]
        rows.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(rows)


def main() -> int:
    """1 if an event costs more than the target."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.filters", description="Measure the filters.")
    parser.add_argument("--rounds", type=int, default=ROUNDS, help="how often each is measured")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures to FILE")
    arguments = parser.parse_args()
    lines = measure(arguments.rounds)
    print(table(lines))
    if arguments.json:
        report = {"target_us": TARGET, "lines": [asdict(line) for line in lines]}
        arguments.json.write_bytes(orjson.dumps(report, option=orjson.OPT_INDENT_2))
    dear = [f"{line.name}, {line.text}: {line.us:.1f} us" for line in lines if not line.ok]
    print("\n".join(dear) or f"all below {TARGET:.0f} us an event", file=sys.stderr)
    return 1 if dear else 0


if __name__ == "__main__":
    sys.exit(main())

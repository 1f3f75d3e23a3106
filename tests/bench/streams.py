"""How many streams one gateway carries: more and more of them, each with an event every 20 ms.

    python -m tests.bench.streams [--quick]

The gateway has a core of its own, mock and load share another one. A core is full where the gaps between two
events grow; what an event costs by then says how many streams of any other pace it would carry.

Rule: every answer is checked to its last character. Linux only.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

from tests.bench.load import Window, answers
from tests.bench.measure import percentile
from tests.bench.process import OTHERS, Server, run
from tests.bench.subjects import GATEWAY, mock_upstream, question, subject
from tests.bench.upstream import PACES, text

PACE = "paced"
EVENTS = 250  # of one answer: five seconds
STEPS = (50, 100, 200, 300, 400, 500)
QUICK = (20, 40)


@dataclass(slots=True, frozen=True)
class Step:
    """``core``: share of one that the gateway used; ``gap`` in seconds; ``each``: bytes a stream."""

    streams: int
    events: float  # a second
    core: float
    gap: float  # 99th percentile between two reads of a stream
    each: float

    @property
    def cost(self) -> float:
        """Seconds of CPU for an event, what its share of a request costs included."""
        return self.core / self.events


def measure(steps: Sequence[int], seconds: float, say: Callable[[str], None]) -> list[Step]:
    """Raises ``RuntimeError`` if an answer was wrong."""
    with mock_upstream() as upstream, subject(GATEWAY, upstream.port) as gateway:
        _look(gateway, 1, 1.0)  # what the first request alone makes
        bare = gateway.resident()
        found = []
        for streams in steps:
            say(f"{streams} streams")
            found.append(_look(gateway, streams, seconds, bare))
        return found


def _look(gateway: Server, streams: int, seconds: float, bare: int = 0) -> Step:
    used: list[float] = []
    held: list[int] = []

    def note() -> None:
        used.append(gateway.cpu())
        held.append(gateway.resident())

    tally = run(answers(question(gateway, PACE, EVENTS), streams, Window(2.0, seconds, note, note)))
    if tally.failures:
        raise RuntimeError(f"{len(tally.failures)} answers were wrong: {tally.failures[0]}")
    events = tally.characters * EVENTS / len(text(EVENTS)) / seconds
    core = (used[1] - used[0]) / seconds
    return Step(streams, events, core, percentile(tally.gaps, 0.99), (max(held) - bare) / streams)


def table(steps: Sequence[Step]) -> str:
    """As Markdown."""
    heads = "streams", "events a second", "of one core", "an event", "gap p99", "a stream"
    lines = [f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
    for step in steps:
        cells = [str(step.streams), f"{step.events:.0f}", f"{step.core:.0%}", f"{step.cost * 1e6:.0f} us"]
        cells += [f"{step.gap * 1000:.0f} ms", f"{step.each / 1000:.0f} kB"]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> int:
    name = "python -m tests.bench.streams"
    parser = argparse.ArgumentParser(prog=name, description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="few streams, to see that it works")
    arguments = parser.parse_args()
    os.sched_setaffinity(0, {OTHERS})
    say = partial(print, file=sys.stderr, flush=True)
    steps, seconds = (QUICK, 2.0) if arguments.quick else (STEPS, 8.0)
    print(table(measure(steps, seconds, say)))
    pace = PACES[PACE].interval * 1000
    print(f"\none event each {pace:.0f} ms; answers of {EVENTS} events, all of them right")
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""How far a long wait is: a bar on a terminal, a plain line now and then elsewhere.

Rule: nothing of it goes to standard output, and a bar leaves no trace. Where nobody knows how long it takes
as a rule, the bar only says that something goes on. Knows nothing of what is waited for.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeAlias

from gateway.cli import show

EVERY = 10.0  # seconds between two plain lines of the same state

Step: TypeAlias = dict[str, Any]
"""``state``, and in seconds ``elapsed`` and ``expected``; the last is None where it is not known."""

Tell: TypeAlias = Callable[[Step], None]


@contextmanager
def told(what: str) -> Iterator[Tell]:
    """Gives what takes each step of waiting for ``what``."""
    if show.live(sys.stderr):
        with _bar(what) as tell:
            yield tell
    else:
        yield Plain(what)


def remaining(step: Step) -> str:
    """In words, from what such a wait takes as a rule; empty where that is not known."""
    usual = step["expected"]
    if not usual:
        return ""
    left = usual - step["elapsed"]
    return f"about {left:.0f} s left" if left >= 1 else f"longer than the usual {usual:.0f} s"


@dataclass(slots=True)
class Plain:
    """A line for each new state, and one each ``EVERY`` seconds."""

    what: str
    state: str = ""
    last: float = 0.0

    def __call__(self, step: Step) -> None:
        if step["state"] == self.state and step["elapsed"] - self.last < EVERY:
            return
        self.state, self.last = step["state"], step["elapsed"]
        rest = f", {words}" if (words := remaining(step)) else ""
        print(f"{self.what}: {self.state}, {self.last:.0f} s{rest}", file=sys.stderr, flush=True)


@contextmanager
def _bar(what: str) -> Iterator[Tell]:
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
    from rich.table import Column

    console = show.console(sys.stderr)
    name = Column(max_width=console.width // 3, no_wrap=True, overflow="ellipsis")
    columns = (
        TextColumn(what.replace("{", "{{").replace("}", "}}"), markup=False, table_column=name),
        TextColumn("{task.description}"),
        BarColumn(bar_width=min(24, console.width // 4), complete_style="cyan", pulse_style="cyan"),
        TimeElapsedColumn(),
        TextColumn("{task.fields[rest]}", style="dim"),
    )
    with Progress(*columns, console=console, transient=True) as drawn:
        row = drawn.add_task("", total=None, rest="")

        def tell(step: Step) -> None:
            usual, elapsed = step["expected"], step["elapsed"]
            total = usual if usual and elapsed < usual else None
            drawn.update(row, description=step["state"], total=total, completed=elapsed, rest=remaining(step))

        yield tell

"""What the command line looks like: plain text for pipes, a little weight and tables for terminals.

Rule: what was asked for goes to standard output, everything else to standard error. rich is imported for
tables on a terminal alone.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any, TextIO

from gateway.telemetry.lines import Style


class CommandError(Exception):
    """The command cannot do what was asked; the message is one line."""


def bold(text: str) -> str:
    return f"\x1b[1m{text}\x1b[0m" if _styled() else text


def dim(text: str) -> str:
    return f"\x1b[2m{text}\x1b[0m" if _styled() else text


def _styled(stream: TextIO | None = None) -> bool:
    wanted = "NO_COLOR" not in os.environ and os.environ.get("TERM") != "dumb"
    return wanted and (stream or sys.stdout).isatty()


def log_json(setting: str) -> bool:
    """Whether the log is JSON, by ``server.log``."""
    return setting == "json" or (setting == "auto" and not sys.stderr.isatty())


def log_style(setting: str) -> Style | None:
    """How the lines of requests look; None for no more than failures."""
    return None if setting == "off" else Style(log_json(setting), _styled(sys.stderr))


def as_json(value: Any) -> None:
    print(json.dumps(value, ensure_ascii=False, indent=2))


def error(message: str) -> None:
    print(f"error: {' '.join(message.split())}", file=sys.stderr)


def warn(message: str) -> None:
    print(f"warning: {message}", file=sys.stderr)


def table(head: Sequence[str], rows: Sequence[Sequence[str]], *, right: Collection[int] = ()) -> None:
    """Columns under ``head``; in a pipe separated by at least two spaces, with nothing cut.

    The columns ``right`` hold numbers.
    """
    if sys.stdout.isatty():
        from rich import box
        from rich.console import Console
        from rich.table import Table
        from rich.text import Text

        drawn = Table(box=box.SIMPLE_HEAD, pad_edge=False)
        for column, name in enumerate(head):
            drawn.add_column(name, justify="right" if column in right else "left")
        for row in rows:
            drawn.add_row(*map(Text, row))
        Console().print(drawn)
        return
    widths = [max(map(len, column)) for column in zip(head, *rows, strict=True)]
    for row in (head, *rows):
        cells = [
            cell.rjust(width) if column in right else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        print("  ".join(cells).rstrip())


def program() -> str:
    """How this program is called from here: what a person can type again."""
    started = Path(sys.argv[0])
    if started.name == "__main__.py":
        return "python -m gateway"
    found = shutil.which(started.name)
    if found is not None and Path(found).resolve() == started.resolve():
        return started.name
    return sys.argv[0]

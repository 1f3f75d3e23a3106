"""What the command line looks like: plain text for pipes, a little weight and colour for terminals.

Rule: what was asked for goes to standard output, everything else to standard error. NO_COLOR and TERM=dumb
are heeded. rich is imported on a terminal alone.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from gateway.telemetry.lines import Style

if TYPE_CHECKING:
    from rich.console import Console


class CommandError(Exception):
    """The command cannot do what was asked; the message is one line."""


def bold(text: str) -> str:
    return _in(1, text)


def dim(text: str) -> str:
    return _in(2, text)


def red(text: str, stream: TextIO | None = None) -> str:
    return _in(31, text, stream)


def green(text: str) -> str:
    return _in(32, text)


def yellow(text: str, stream: TextIO | None = None) -> str:
    return _in(33, text, stream)


def _in(style: int, text: str, stream: TextIO | None = None) -> str:
    return f"\x1b[{style}m{text}\x1b[0m" if _styled(stream) else text


def _styled(stream: TextIO | None = None) -> bool:
    wanted = not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"  # an empty one says nothing
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
    _say(f"{red('error:', sys.stderr)} {' '.join(message.split())}")


def warn(message: str) -> None:
    _say(f"{yellow('warning:', sys.stderr)} {message}")


def _say(line: str) -> None:
    with suppress(OSError):  # there is no other place to say it
        print(line, file=sys.stderr)


def live(stream: TextIO) -> bool:
    """Can a line be drawn over here?"""
    return stream.isatty() and os.environ.get("TERM") != "dumb"


@contextmanager
def busy(what: str) -> Iterator[None]:
    """While the block runs, a terminal shows that something is being done."""
    if not live(sys.stderr):
        yield
        return
    with console(sys.stderr).status(what, spinner="line"):
        yield


def console(stream: TextIO) -> Console:
    """rich's, for a terminal; it would keep weights and cursors where no colours are wanted."""
    from rich.console import Console

    return Console(file=stream, highlight=False, color_system="auto" if _styled(stream) else None)


def program() -> str:
    """How this program is called from here: what a person can type again."""
    started = Path(sys.argv[0])
    if started.name == "__main__.py":
        return "python -m gateway"
    found = shutil.which(started.name)
    if found is not None and Path(found).resolve() == started.resolve():
        return started.name
    return sys.argv[0]

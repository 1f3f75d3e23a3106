"""Standard streams that may be closed, full, or read by nobody any more.

Rule: what was asked for and cannot be printed ends a command, with ``OutputLost``; what is printed beside
serving does not, and is a warning at most. After the first loss nothing more is tried. A stream that was
closed before the start keeps its number, so that no file or socket gets it.
"""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Callable
from io import TextIOWrapper
from typing import Any

WHY = {errno.ENOSPC: "it is full", errno.EBADF: "it is closed", errno.EPIPE: "nobody reads it any more"}
SHOWN = "backslashreplace"  # a terminal that cannot show a character shows its code


class OutputLost(Exception):
    """Standard output took no more; the message says why. ``left``: because whoever read it has left."""

    def __init__(self, error: OSError) -> None:
        why = WHY.get(error.errno or 0) or error.strerror or type(error).__name__
        super().__init__(f"standard output takes nothing more: {why}")
        self.left = isinstance(error, BrokenPipeError)


class Output(TextIOWrapper):
    """A stream whose failures are ``OutputLost``, the first one; what comes after it goes nowhere."""

    def write(self, text: str) -> int:
        try:
            return 0 if text == "" else super().write(text)  # some write nothing to see what it takes
        except OSError as error:
            raise self._lost(error) from None

    def flush(self) -> None:
        try:
            super().flush()
        except OSError as error:
            raise self._lost(error) from None

    def _lost(self, error: OSError) -> OutputLost:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, self.fileno())
        os.close(nowhere)
        return OutputLost(error)


def prepare() -> None:
    """Make the standard streams what this module says; once, before anything is opened."""
    if sys.stdin is None:
        sys.stdin = TextIOWrapper(_closed(os.O_WRONLY, "rb"), "utf-8")
    if sys.stdout is None:
        sys.stdout = Output(_closed(os.O_RDONLY, "wb"), "utf-8", SHOWN)
    elif isinstance(sys.stdout, TextIOWrapper):
        real = sys.stdout
        sys.stdout = Output(real.buffer, real.encoding, SHOWN, None, real.line_buffering, real.write_through)
    if sys.stderr is None:  # there is no other place to complain
        sys.stderr = TextIOWrapper(_closed(os.O_WRONLY, "wb"), "utf-8", SHOWN)
    elif isinstance(sys.stderr, TextIOWrapper):
        sys.stderr.reconfigure(errors=SHOWN)


def _closed(flags: int, mode: str) -> Any:
    """Takes the lowest number that is free; reading and writing fail unless ``flags`` fit ``mode``."""
    number = os.open(os.devnull, flags)
    os.set_inheritable(number, True)
    return os.fdopen(number, mode, closefd=False)


def beside(say: Callable[[], None]) -> None:
    """Call ``say``, which prints what serving can do without. Where that is lost, a line says so."""
    from gateway.cli.show import warn

    try:
        say()
        sys.stdout.flush()
    except OutputLost as lost:
        if not lost.left:
            warn(str(lost))

"""Run a file of examples/ as its first lines say, and read what examples/README.md says of it.

Rule: what a machine lacks is skipped, aloud. An example runs in a folder of its own, in which `examples` is a
link, so that what it writes is gone afterwards. Knows nothing about what an example prints.
"""

from __future__ import annotations

import importlib.util
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.clients.process import ROOT

EXAMPLES = ROOT / "examples"
FILES = sorted(path for path in EXAMPLES.iterdir() if path.suffix in (".py", ".sh", ".mjs"))
PATIENCE = 60.0  # seconds for one example
_SECTION = re.compile(
    r"^### (?P<name>\S+)\n(?:(?!```).*\n)*"
    r"```sh\n(?P<run>.+)\n```\n\n```text\n(?P<prints>(?:(?!```).*\n)*)```$",
    re.MULTILINE,
)


@dataclass(frozen=True)
class Section:
    """What the README says of one example."""

    name: str
    run: str
    prints: str  # `...` stands for anything

    def describes(self, printed: str) -> bool:
        parts = [re.escape(part) for part in self.prints.split("...")]
        return re.fullmatch(".*".join(parts), printed, re.DOTALL) is not None


def sections() -> list[Section]:
    """Those that are shown with what they print."""
    text = (EXAMPLES / "README.md").read_text(encoding="utf-8")
    return [Section(**found.groupdict()) for found in _SECTION.finditer(text)]


def front(name: str, key: str) -> str:
    """What stands after ``run:``, ``needs`` or another key in an example's first lines."""
    text = (EXAMPLES / name).read_text(encoding="utf-8")
    found = re.search(rf"^(?:#|//) {key}:? (.+)$", text, re.MULTILINE)
    assert found, f"the first lines of examples/{name} have no {key}"
    return found[1]


def command(name: str, *, python: Path | None = None) -> list[str]:
    """What its ``run`` line says, with ``python`` or else our own."""
    program, *arguments = shlex.split(front(name, "run"))
    if program != "python":
        return [shutil.which(program) or pytest.skip(f"this machine has no {program}"), *arguments]
    for module in re.findall(r"[\w-]+", front(name, "needs")):
        if python is None and importlib.util.find_spec(module.replace("-", "_")) is None:
            pytest.skip(f"{module} is not installed")
    return [str(python or sys.executable), *arguments]


def run(
    arguments: Sequence[str | Path], environ: Mapping[str, str], folder: Path
) -> subprocess.CompletedProcess[str]:
    """Run it in ``folder`` to its end."""
    return subprocess.run(
        arguments,
        cwd=linked(folder),
        env={**os.environ, **environ},
        check=False,
        capture_output=True,
        encoding="utf-8",
        timeout=PATIENCE,
    )


def linked(folder: Path) -> Path:
    """``folder``, with the examples in it."""
    link = folder / "examples"
    if not link.is_symlink():
        link.symlink_to(EXAMPLES)
    return folder


@contextmanager
def ended(process: subprocess.Popen[bytes]) -> Iterator[subprocess.Popen[bytes]]:
    """A process that is there inside: whoever does not end as the test says, is killed."""
    with process:
        try:
            yield process
        finally:
            process.kill()


def on_terminal(
    arguments: Sequence[str | Path], environ: Mapping[str, str], folder: Path
) -> tuple[int, str]:
    """The exit code of an example that sees a terminal, and all that the terminal got."""
    pty = pytest.importorskip("pty", reason="this machine has no pseudo-terminals")
    master, slave = pty.openpty()
    try:
        process = subprocess.Popen(
            arguments,
            cwd=linked(folder),
            env={**os.environ, **environ},
            stdin=subprocess.DEVNULL,
            stdout=slave,
            stderr=slave,
        )
    finally:
        os.close(slave)
    with ended(process), open(master, "rb", buffering=0) as terminal:
        shown = b""
        try:
            while piece := terminal.read(4096):
                shown += piece
        except OSError:
            pass  # Linux says so that nobody holds the other end any more
        return process.wait(PATIENCE), shown.decode().replace("\r\n", "\n")

"""The command line as a person runs it: a process of its own, anywhere."""

import fcntl
import os
import pty
import re
import select
import signal
import ssl
import struct
import subprocess
import sys
import termios
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from tests.conftest import ROOT

BOUND = 30  # seconds until a test gives up waiting
COMMAND = [sys.executable, "-m", "gateway"]
STYLE = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


def environment(extra: Mapping[str, str]) -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT), **extra}


def run(
    *arguments: str, cwd: Path, env: Mapping[str, str] | None = None, input: str = ""
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*COMMAND, *arguments],
        cwd=cwd,
        env=environment(env or {}),
        input=input,
        capture_output=True,
        text=True,
        timeout=BOUND,
    )


@dataclass(frozen=True)
class Shown:
    """What a terminal was sent, and how the command ended."""

    code: int
    sent: str

    @property
    def text(self) -> str:
        """Without styles; a line that was drawn over is there each time it was drawn."""
        return STYLE.sub("", self.sent)


def on_terminal(*arguments: str, cwd: Path, columns: int = 80, env: Mapping[str, str] | None = None) -> Shown:
    """The command on a terminal that is ``columns`` wide."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 40, columns, 0, 0))
    environ = {name: value for name, value in environment({}).items() if name not in ("COLUMNS", "NO_COLOR")}
    with subprocess.Popen(
        [*COMMAND, *arguments],
        cwd=cwd,
        env={**environ, "TERM": "xterm-256color", **(env or {})},
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
    ) as process:
        os.close(theirs)
        try:
            sent = b"".join(_pieces(ours))
            return Shown(process.wait(BOUND), sent.decode().replace("\r\n", "\n"))
        finally:
            process.kill()
            os.close(ours)


def _pieces(terminal: int) -> Iterator[bytes]:
    while select.select([terminal], [], [], BOUND)[0]:
        try:
            piece = os.read(terminal, 65536)
        except OSError:  # Linux's way to say that the other end was closed
            return
        if not piece:
            return
        yield piece


@dataclass
class Running:
    """A command that serves; ``shown`` is what it printed until it was ready."""

    process: subprocess.Popen[str]
    shown: str
    trust: ssl.SSLContext | bool = False  # nothing is encrypted unless a test says so

    @property
    def root(self) -> str:
        """`http://127.0.0.1:8000`, as it was shown."""
        [line] = [line for line in self.shown.splitlines() if "http" in line and "/v1" in line][:1]
        return next(word for word in line.replace("=", " ").split() if word.startswith("http"))[:-3]

    def client(self, **headers: str) -> httpx.Client:
        return httpx.Client(base_url=self.root, headers=headers, timeout=BOUND, verify=self.trust)

    def wait(self) -> tuple[int, str, str]:
        """The exit code, and what was printed since it was ready."""
        out, err = self.process.communicate(timeout=BOUND)
        return self.process.returncode, out, err

    def stop(self, number: int = signal.SIGTERM) -> tuple[int, str, str]:
        self.process.send_signal(number)
        return self.wait()


@contextmanager
def running(
    *arguments: str, cwd: Path, until: str, env: Mapping[str, str] | None = None
) -> Iterator[Running]:
    """The command, once a line that holds ``until`` was printed."""
    process = subprocess.Popen(
        [*COMMAND, *arguments],
        cwd=cwd,
        env=environment(env or {}),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        shown = ""
        while until not in shown:
            line = process.stdout.readline()
            assert line, f"it ended: {shown}{process.communicate()[1]}"
            shown += line
        yield Running(process, shown)
    finally:
        process.kill()
        process.communicate()


def children(pid: int) -> list[int]:
    """Every process below this one."""
    if not Path("/proc/self/stat").exists():
        pytest.skip("there is no /proc here to find child processes in")
    parents = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            text = stat.read_text(errors="replace")
        except OSError:  # it ended meanwhile
            continue
        parents[int(stat.parent.name)] = int(text.rpartition(")")[2].split()[1])
    found = [child for child, parent in parents.items() if parent == pid]
    return found + [below for child in found for below in children(child)]


@contextmanager
def all_gone(pids: list[int]) -> Iterator[None]:
    """After the block every one of these processes ends."""
    handles = [os.pidfd_open(pid) for pid in pids]
    try:
        yield
        for handle in handles:
            assert select.select([handle], [], [], BOUND)[0], "a process was left behind"
    finally:
        for handle in handles:
            os.close(handle)


def events(answer: httpx.Response) -> list[str]:
    """The data of each server-sent event."""
    return [line[6:] for line in answer.text.split("\n") if line.startswith("data: ")]

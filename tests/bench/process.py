"""Servers as processes of their own: started until they answer, read from outside, ended.

Rule: a server under test does not know that it is measured. CPU and memory are the kernel's figures for it
and its children; where there is more than one core it has one for itself. Linux only. Knows nothing about
what the servers do.
"""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any, TypeVar

try:
    import uvloop
except ImportError:  # asyncio's own loop works too; the load then costs more than it should
    NEW_LOOP: Callable[[], asyncio.AbstractEventLoop] = asyncio.new_event_loop
else:
    NEW_LOOP = uvloop.new_event_loop

T = TypeVar("T")

ROOT = Path(__file__).resolve().parents[2]
START_LIMIT = 30.0  # seconds until a server must answer
END_LIMIT = 15.0  # seconds until it must have ended by itself
SHOWN = 4000  # bytes of what a server wrote that did not start
POLL = 0.005  # seconds between two looks at /health
CPU_OF_PROCESS = 2  # CPUCLOCK_SCHED: the nanosecond clock that clock_getcpuclockid(3) would give
CORES = sorted(os.sched_getaffinity(0)) if sys.platform == "linux" else [0]
# With its bytecode kept, as what people install and run; else every start compiles four hundred modules.
ENVIRONMENT = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
TESTED, OTHERS = CORES[0], CORES[-1]  # the core of what is measured, and of the load and the mock


def run(main: Coroutine[Any, Any, T]) -> T:
    """``asyncio.run`` on the fastest loop there is."""
    with asyncio.Runner(loop_factory=NEW_LOOP) as runner:
        return runner.run(main)


@dataclass(slots=True, frozen=True)
class Server:
    """A process that answers on ``port``. ``ready_after`` is in seconds from its start."""

    name: str
    port: int
    process: subprocess.Popen[bytes]
    ready_after: float

    def cpu(self) -> float:
        """Seconds of user and system time so far."""
        return sum(time.clock_gettime((~pid << 3) | CPU_OF_PROCESS) for pid in self._pids())

    def resident(self) -> int:
        """Bytes of memory in RAM."""
        pages = sum(int(Path(f"/proc/{pid}/statm").read_text().split()[1]) for pid in self._pids())
        return pages * os.sysconf("SC_PAGE_SIZE")

    def _pids(self) -> list[int]:
        pids = [self.process.pid]
        for pid in pids:  # grows while it is walked
            children = Path(f"/proc/{pid}/task/{pid}/children")
            pids += map(int, children.read_text().split() if children.exists() else ())
        return pids


@contextmanager
def started(name: str, command: list[str], port: int, core: int) -> Iterator[Server]:
    """``python COMMAND`` in the project's folder, answering on ``port``; ended with the block.

    Raises ``RuntimeError`` with what it wrote if it does not come up.
    """
    began = time.monotonic()
    with TemporaryFile() as log:
        process = subprocess.Popen(
            [sys.executable, *command], cwd=ROOT, env=ENVIRONMENT, stdout=log, stderr=log
        )
        try:
            os.sched_setaffinity(process.pid, {core})
            while not _healthy(port):
                if process.poll() is not None or time.monotonic() > began + START_LIMIT:
                    log.seek(0)
                    raise RuntimeError(f"{name} did not start:\n{log.read(SHOWN).decode()}")
                time.sleep(POLL)
            yield Server(name, port, process, time.monotonic() - began)
        finally:
            _end(process)


def _healthy(port: int) -> bool:
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=5) as connection:
            connection.sendall(b"GET /health HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n")
            return connection.recv(12) == b"HTTP/1.1 200"
    except OSError:
        return False


def _end(process: subprocess.Popen[bytes]) -> None:
    """SIGINT, because a profiler then still writes what it found."""
    process.send_signal(signal.SIGINT)
    try:
        process.wait(END_LIMIT)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()

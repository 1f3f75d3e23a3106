"""Several processes that serve at one address, and the one that starts them.

Rule: that one serves nothing, and is the only one to look at the configuration: what is wrong with it is said
once. SIGHUP passes it on to each worker; SIGUSR2 replaces them one by one, the next only once the one before
has answered what it had begun. Knows nothing about what is served.
"""

from __future__ import annotations

import logging
import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing import parent_process
from typing import Protocol

import uvicorn
from uvicorn.config import STARTUP_FAILURE
from uvicorn.supervisors import Multiprocess
from uvicorn.supervisors.multiprocess import Process

START = 120.0  # seconds in which a new worker has to serve
PING = 1.0  # seconds for it to say whether it does

log = logging.getLogger("gateway")


class Oversight(Protocol):
    """What the configuration is to the process that starts the workers."""

    def changed(self) -> bool:
        """Whether it is to be read again, although nobody asked for it."""

    def usable(self) -> bool:
        """Whether the workers can take it over as it is now; if not, that was said."""


class Workers(Multiprocess):
    """The processes, and what signals do to them."""

    def __init__(self, config: uvicorn.Config, sock: socket.socket, oversight: Oversight) -> None:
        super().__init__(config, sockets=[sock])
        self._oversight = oversight
        self._outdated: list[Process] = []  # to be replaced,
        self._next: Process | None = None  # by this one first,
        self._until = 0.0  # if it serves by then;
        self._last: Process | None = None  # was replaced, and has not ended yet

    def init_processes(self) -> None:
        with _holding_back():
            super().init_processes()

    def keep_subprocess_alive(self) -> None:
        with _holding_back():
            super().keep_subprocess_alive()

    def handle_signals(self) -> None:
        """Between two looks at the workers."""
        super().handle_signals()
        if self._oversight.changed():
            self.handle_hup()
        with _holding_back():
            self._replace()

    def handle_hup(self) -> None:
        if self._oversight.usable():
            for process in (*self.processes, self._next):
                if process is not None and process.pid is not None and process.exitcode is None:
                    os.kill(process.pid, signal.SIGHUP)

    def handle_usr2(self) -> None:
        self._outdated = list(self.processes)

    def _replace(self) -> None:
        """One step further with the worker that is being replaced; never waits for one."""
        if self._last is not None:
            if self._last.process.is_alive():
                return
            self._last.join()
            self._last = None
        self._outdated = [each for each in self._outdated if each in self.processes]
        if self._next is not None:
            self._put_in(self._next)
        elif self._outdated:
            self._next = Process(self.config, self.sockets)
            self._next.start()
            self._until = time.monotonic() + START

    def _put_in(self, new: Process) -> None:
        """Let ``new`` take the place of the first that is outdated, if it serves."""
        if new.process.is_alive() and new.is_ready(PING):
            self._next = None
            if self._outdated:
                self._last = self._outdated.pop(0)
                self.processes[self.processes.index(self._last)] = new
            else:  # the one it was for has died, and was replaced already
                self._last = new
            self._last.terminate()
        elif not new.process.is_alive() or time.monotonic() > self._until:
            log.error("a new worker did not start, so the old ones go on")
            new.kill()
            new.join()
            self._next, self._outdated = None, []

    def terminate_all(self) -> None:
        super().terminate_all()
        if self._next is not None:
            self._next.terminate()

    def join_all(self) -> None:
        super().join_all()
        for process in (self._next, self._last):
            if process is not None:
                process.join()


def run_workers(
    config: uvicorn.Config, sock: socket.socket, ready: Callable[[], None], oversight: Oversight
) -> bool:
    """Serve by ``config.workers`` processes until SIGINT or SIGTERM. False if they could not start."""
    threading.Thread(target=_when_accepting, args=(sock, ready), daemon=True).start()
    supervisor = Workers(config, sock, oversight)
    supervisor.run()
    return all(process.exitcode != STARTUP_FAILURE for process in supervisor.processes)


@contextmanager
def _holding_back() -> Iterator[None]:
    """Processes that start inside get a SIGHUP only once they let it through: it would end them before."""
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGHUP})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGHUP})


def _when_accepting(sock: socket.socket, then: Callable[[], None]) -> None:
    host, port = sock.getsockname()[:2]
    local = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
    while True:
        try:
            socket.create_connection((local, port), timeout=1).close()
        except OSError:
            time.sleep(0.05)
        else:
            return then()


def leave_with_parent() -> None:
    """Let this worker end when the process that started it is gone, however that came about."""
    parent = parent_process()
    if parent is not None:
        threading.Thread(target=_outlive, args=(parent.join,), daemon=True).start()


def _outlive(join: Callable[[], None]) -> None:
    join()
    signal.raise_signal(signal.SIGTERM)

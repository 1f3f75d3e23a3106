"""A server in a process of its own: started for the tests, waited for, ended by its process id.

Rule: bounded. Whoever does not answer in time, or exits, fails the test with all that it printed. Knows
nothing of what the server serves beyond one path that answers 200 when it is ready.
"""

from __future__ import annotations

import os
import random
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from urllib.error import URLError
from urllib.request import ProxyHandler, build_opener

ROOT = Path(__file__).resolve().parents[2]
PATIENCE = 30.0  # seconds that a server gets to start on a busy machine; it takes one or two
GRACE = 10.0  # seconds that it gets to end
PORTS = 12_000, 32_000  # below those of connections, which others may have by the time that it is used


def free_port() -> int:
    """A port that nobody listens on now, and that the system gives nobody who asks for any."""
    while True:
        port = random.SystemRandom().randrange(*PORTS)
        with socket.socket() as probe, suppress(OSError):
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(("127.0.0.1", port))
            return port


def gateway(*arguments: str) -> list[str]:
    """The command line of the gateway in this checkout, with the interpreter that runs the tests."""
    return [sys.executable, "-m", "gateway", *arguments]


@contextmanager
def serving(
    command: Sequence[str],
    port: int,
    *,
    folder: Path,
    ready: str = "/health",
    environ: Mapping[str, str] | None = None,
) -> Iterator[str]:
    """Run ``command``, which serves ``port``, in ``folder``; gives ``http://127.0.0.1:PORT``."""
    printed = folder / f"server-{port}.log"
    search = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    environment = {**os.environ, "PYTHONPATH": search, "NO_COLOR": "1", **(environ or {})}
    with (
        printed.open("wb") as log,
        subprocess.Popen(
            command, cwd=folder, env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log
        ) as process,
    ):
        try:
            url = f"http://127.0.0.1:{port}"
            _wait(process, url + ready, printed)
            yield url
        finally:
            _end(process)


def _wait(process: subprocess.Popen[bytes], url: str, printed: Path) -> None:
    straight = build_opener(ProxyHandler({}))  # no proxy of this machine between us and it
    deadline = time.monotonic() + PATIENCE
    while True:
        try:
            with straight.open(url, timeout=PATIENCE):
                return
        except (URLError, ConnectionError) as error:
            if process.poll() is None and time.monotonic() < deadline:
                time.sleep(0.02)  # it has no other way to tell us
                continue
            raise AssertionError(f"{url}: {error}\n{printed.read_text(errors='replace')}") from None


def _end(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(GRACE)
    except subprocess.TimeoutExpired:
        process.kill()
        raise

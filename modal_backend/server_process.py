"""An inference server as a child process: start it, wait until it is ready, warm it up, end it.

Rule: a server that ends before it is ready is an error at once, not at the end of a timeout. Speaks HTTP on
loopback only; knows nothing about Modal or which server it is.
"""

from __future__ import annotations

import http.client
import json
import os
import subprocess
import threading
import time
from collections.abc import Sequence

POLL = 0.2  # seconds between two looks at a server that starts
GRACE = 10  # seconds that a server gets to end by itself


class ServerFailed(Exception):
    """The server cannot be used; the message says why."""


class ServerProcess:
    """One server. ``speaks`` is ``prompt`` or ``openai``, and decides what the warm-up request looks like."""

    def __init__(self, command: Sequence[str], port: int, speaks: str) -> None:
        self._port = port
        self._speaks = speaks
        self._stopping = threading.Event()
        self._process = subprocess.Popen(command)

    def ready(self, patience: float) -> None:
        """Return when `/health` answers 200; raise ``ServerFailed`` if that takes longer, or if it ends."""
        ends = time.monotonic() + patience
        while self._health() != 200:
            if (status := self._process.poll()) is not None:
                raise ServerFailed(f"the inference server ended with status {status} before it was ready")
            if time.monotonic() > ends:
                raise ServerFailed(f"the inference server was not ready after {patience:.0f} seconds")
            self._stopping.wait(POLL)

    def warm_up(self, model: str) -> None:
        """Let it answer one request; raise ``ServerFailed`` if it does not."""
        path, body = "/", {"prompt": "Hello", "max_tokens": 4}
        if self._speaks == "openai":
            path, body = "/v1/completions", {**body, "model": model}
        status = self._ask("POST", path, json.dumps(body).encode())
        if status != 200:
            raise ServerFailed(f"the inference server answered its warm-up request with status {status}")

    def watch(self) -> None:
        """From now on, if the server ends by itself, this process ends with it."""
        threading.Thread(target=self._watch, daemon=True).start()

    def stop(self) -> None:
        self._stopping.set()
        self._process.terminate()
        try:
            self._process.wait(GRACE)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def _watch(self) -> None:
        status = self._process.wait()
        if not self._stopping.is_set():
            os._exit(status or 1)

    def _health(self) -> int | None:
        try:
            return self._ask("GET", "/health", None, timeout=5)
        except OSError:  # not listening yet
            return None
        except http.client.HTTPException:
            return None

    def _ask(self, method: str, path: str, body: bytes | None, timeout: float = 600) -> int:
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=timeout)
        try:
            connection.request(method, path, body, {"content-type": "application/json"})
            response = connection.getresponse()
            response.read()
            return response.status
        finally:
            connection.close()

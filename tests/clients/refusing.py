"""A server that refuses every request, and notes where it came, with which key, and who waits how long."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

REFUSAL = json.dumps(
    {"error": {"message": "no", "type": "invalid_request_error", "param": None, "code": None}}
).encode()


@dataclass(frozen=True)
class Asked:
    """``waits``: the client's time limit in seconds, or None from one that names none."""

    path: str
    key: str
    waits: str | None


class Refusing(ThreadingHTTPServer):
    """``asked`` is every POST, in the order in which they came."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.asked: list[Asked] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


@contextmanager
def refusing() -> Iterator[Refusing]:
    with Refusing() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


class _Handler(BaseHTTPRequestHandler):
    server: Refusing

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["content-length"]))
        key = self.headers["x-api-key"] or self.headers["authorization"].removeprefix("Bearer ")
        self.server.asked.append(Asked(self.path, key, self.headers["x-stainless-read-timeout"]))
        self.send_response(400)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(REFUSAL)))
        self.end_headers()
        self.wfile.write(REFUSAL)

    def log_message(self, *_: object) -> None:
        """Nothing: what was asked is kept."""

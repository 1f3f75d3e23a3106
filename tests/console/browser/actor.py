"""A model's server that a test directs: it holds answers back, sees readers leave, keeps what it was asked.

Rule: OpenAI's chat API on a free port of loopback, in threads of this process. It says what it was told to
say. Every wait is bounded.
"""

from __future__ import annotations

import json
import select
import socket
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Event, Thread
from typing import Any, cast

PATIENCE = 20.0  # seconds that an answer is held back at most
MODEL = "actor"


@dataclass
class Actor:
    """``pieces`` are the deltas of each answer; behind the first it waits for ``go``."""

    port: int = 0
    pieces: Sequence[dict[str, Any]] = ({"content": "Well, "}, {"content": "hello."})
    asked: list[dict[str, Any]] = field(default_factory=list)
    go: Event = field(default_factory=Event)
    left: Event = field(default_factory=Event)  # a reader has gone before the end

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"

    def says(self, *pieces: str, held: bool = False) -> None:
        """From now on; ``held``: what comes behind the first piece waits for ``go``."""
        self.pieces = [{"content": piece} for piece in pieces]
        self.left.clear()
        if held:
            self.go.clear()
        else:
            self.go.set()


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    @property
    def actor(self) -> Actor:
        return cast("Server", self.server).actor

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["content-length"])))
        self.actor.asked.append(asked)
        if asked.get("stream"):
            self._stream()
        else:
            self._whole()

    def _whole(self) -> None:
        text = "".join(piece.get("content", "") for piece in self.actor.pieces)
        choice = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}
        body = json.dumps(_said("chat.completion", [choice], usage=_usage(3))).encode()
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _stream(self) -> None:
        self.send_response(200)
        self.send_header("content-type", "text/event-stream")
        self.send_header("transfer-encoding", "chunked")
        self.end_headers()
        first, *rest = self.actor.pieces
        self._chunk([{"index": 0, "delta": {"role": "assistant", **first}, "finish_reason": None}])
        if not self._released():
            self.actor.left.set()
            self.close_connection = True
            return
        for piece in rest:
            self._chunk([{"index": 0, "delta": piece, "finish_reason": None}])
        self._chunk([{"index": 0, "delta": {}, "finish_reason": "stop"}])
        self._chunk([], usage=_usage(len(self.actor.pieces)))
        self._write(b"data: [DONE]\n\n")
        self.wfile.write(b"0\r\n\r\n")

    def _released(self) -> bool:
        """Whether the rest may come, and somebody reads it."""
        until = time.monotonic() + PATIENCE
        while not self.actor.go.is_set() and time.monotonic() < until:
            readable, _, _ = select.select([self.connection], [], [], 0.02)
            if readable and not self.connection.recv(1, socket.MSG_PEEK):
                return False
        return True

    def _chunk(self, choices: list[dict[str, Any]], **more: Any) -> None:
        said = json.dumps(_said("chat.completion.chunk", choices, **more))
        self._write(f"data: {said}\n\n".encode())

    def _write(self, data: bytes) -> None:
        self.wfile.write(b"%x\r\n%s\r\n" % (len(data), data))
        self.wfile.flush()

    def log_message(self, format: str, *args: object) -> None:
        """Nothing is printed."""


def _said(kind: str, choices: list[dict[str, Any]], **more: Any) -> dict[str, Any]:
    return {"id": "chatcmpl-1", "object": kind, "created": 1, "model": MODEL, "choices": choices, **more}


def _usage(written: int) -> dict[str, int]:
    return {"prompt_tokens": 7, "completion_tokens": written, "total_tokens": 7 + written}


class Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, actor: Actor) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.actor = actor
        actor.port = self.server_address[1]


@contextmanager
def acting() -> Iterator[Actor]:
    """An actor, who plays for as long as the block runs."""
    with Server(Actor()) as server:
        thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        thread.start()
        try:
            yield server.actor
        finally:
            server.actor.go.set()
            server.shutdown()
            thread.join(PATIENCE)

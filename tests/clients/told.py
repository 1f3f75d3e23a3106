"""A container that does what the prompt tells it, so that a client can ask for every failure by name.

The prompt is ``WHAT: TEXT``, as a model with the ``plain`` template sends it:

``say: one two``            the text, and a proper end
``break: one two``          the text, then an error event
``cut: one two``            the text, then an end of the body that is no end of the answer
``drop: one two``           the text, then the connection is torn down
                            (asked for a whole answer, these three send part of it and close)
``wait: one two``           the text, then nothing until the gateway hangs up
``refuse 429 busy: why``    no text: this status, code and message

At ``/echo`` it does as LangChain's ``Modal`` class demands: it repeats the prompt before its one answer.

Rule: speaks the prompt contract and keeps every call. Knows nothing of the gateway's code.
"""

from __future__ import annotations

import json
import queue
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

ECHOED = "不客气。"


class Told(ThreadingHTTPServer):
    """``calls`` are the request bodies; ``hung_up`` gets the text of each ``wait`` that its caller left."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.calls: list[dict[str, Any]] = []
        self.hung_up: queue.Queue[str] = queue.Queue()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


@contextmanager
def told() -> Iterator[Told]:
    with Told() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Told

    def handle(self) -> None:
        with suppress(ConnectionError):  # the gateway may leave at any point
            super().handle()

    def do_POST(self) -> None:
        call = json.loads(self.rfile.read(int(self.headers["content-length"])))
        self.server.calls.append(call)
        what, _, text = call["prompt"].partition(": ")
        if self.path == "/echo":
            self._json(200, {"prompt": call["prompt"] + ECHOED})
        elif refused := re.fullmatch(r"refuse (\d+) (\w+)", what):
            self._json(int(refused[1]), {"error": {"message": text, "code": refused[2]}})
        elif call.get("stream"):
            self._stream(what, text)
        elif what == "wait":
            self._wait(text)
        else:
            self._json(200, {"prompt": text, "finish_reason": "stop"}, whole=what == "say")

    def _json(self, status: int, body: dict[str, Any], *, whole: bool = True) -> None:
        data = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(data)))
        self.end_headers()
        self.wfile.write(data if whole else data[:-10])
        self.close_connection = not whole

    def _stream(self, what: str, text: str) -> None:
        self.send_response(200)
        self.send_header("content-type", "text/event-stream")
        self.send_header("transfer-encoding", "chunked")
        self.end_headers()
        for word in re.findall(r"\s*\S+", text):
            self._event(json.dumps({"prompt": word}))
        match what:
            case "say":
                self._event(json.dumps({"prompt": "", "finish_reason": "stop"}))
                self._event("[DONE]")
            case "break":
                self._event(json.dumps({"error": {"message": "the engine died", "code": "engine_dead"}}))
            case "wait":
                self._wait(text)
        if what in ("drop", "wait"):
            self.close_connection = True
        else:
            self._chunk(b"")

    def _wait(self, text: str) -> None:
        """Until the other side closes the connection; it has nothing more to say."""
        with suppress(ConnectionError):  # torn down rather than closed is as good
            self.connection.recv(1)
        self.server.hung_up.put(text)
        self.close_connection = True

    def _event(self, data: str) -> None:
        self._chunk(f"data: {data}\n\n".encode())

    def _chunk(self, data: bytes) -> None:
        self.wfile.write(b"%x\r\n%b\r\n" % (len(data), data))

    def log_message(self, *_: object) -> None:
        """Nothing: the calls are kept."""

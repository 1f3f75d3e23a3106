"""A container of the prompt contract that answers in whole sentences, a word at a time; no model runs."""

from __future__ import annotations

import json
import re
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from zlib import crc32

PACE = 0.03  # seconds between two words
FIRST = 0.25  # seconds before the first
QUESTION = "What is a cold start, and what can I do about it?"
ANSWERS = (
    "A cold start is the time between a request and the first container that can answer it: a machine is "
    "found, the image is pulled, the weights are loaded.\n\nThree things help. Keep a container warm in the "
    "hours that matter. Keep the weights in a volume, near the GPU. And let requests wait instead of "
    "failing: a model that sleeps costs nothing until somebody asks it again.",
    "Budgets count dollars, tokens or GPU seconds. A request reserves what the model's requests cost on "
    "average, and is settled when it ends.",
    "The prompt is one text: the template writes the roles and the special tokens, and the container reads "
    "it as it is.",
    "Stop strings are cut where they complete first, also when they are split over many tokens.",
)


class Teller(BaseHTTPRequestHandler):
    """One request: the same prompt is told the same."""

    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        asked: dict[str, Any] = json.loads(self.rfile.read(int(self.headers["content-length"])))
        prompt = str(asked.get("prompt", ""))
        text = ANSWERS[0] if QUESTION in prompt else ANSWERS[crc32(prompt.encode()) % len(ANSWERS)]
        words = re.findall(r"\s*\S+", text)
        usage = {"prompt_tokens": len(prompt) // 4, "completion_tokens": len(words)}
        if asked.get("stream"):
            self._stream(words, usage)
        else:
            self._whole({"prompt": text, "finish_reason": "stop", "usage": usage})

    def _whole(self, answer: dict[str, Any]) -> None:
        body = json.dumps(answer).encode()
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _stream(self, words: list[str], usage: dict[str, int]) -> None:
        self.send_response(200)
        self.send_header("content-type", "text/event-stream")
        self.send_header("connection", "close")
        self.end_headers()
        time.sleep(FIRST)
        for word in words:
            self._event({"prompt": word})
            time.sleep(PACE)
        self._event({"prompt": "", "finish_reason": "stop", "usage": usage})
        self.wfile.write(b"data: [DONE]\n\n")
        self.close_connection = True

    def _event(self, value: dict[str, Any]) -> None:
        self.wfile.write(b"data: %s\n\n" % json.dumps(value).encode())

    def log_message(self, format: str, *args: Any) -> None:
        """Says nothing."""


@contextmanager
def storyteller() -> Iterator[str]:
    """A running one; its URL."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Teller)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()

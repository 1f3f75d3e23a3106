"""Who is measured and what is asked: the mock upstream itself, the baseline before it, the gateway before it.

Rule: all get the same question in their own words, and the gateway runs as people run it: ``serve`` with a
file, a key, a chat template and otherwise the defaults, but for the ledger, whose cost `access.py` measures.
Knows nothing about time.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import orjson

from tests.bench.load import Question
from tests.bench.process import OTHERS, TESTED, Server, started
from tests.bench.upstream import PACES, WHOLE_TEXT, text
from tests.clients.process import free_port

UPSTREAM, BASELINE, GATEWAY = "upstream", "baseline", "gateway"
KEY = "sk-bench-0123456789abcdef0123456789abcdef"
STOP = ["\nUser:", "###"]  # no text holds one, but each line's end may begin one
MESSAGES = [
    {"role": "system", "content": "You are a helpful assistant. Answer in plain words, say if unsure."},
    {"role": "user", "content": "What does a gateway do between an application and its models?"},
    {"role": "assistant", "content": "It speaks one protocol to the application and another to the models."},
    {"role": "user", "content": "Which of its costs grow with the length of an answer, and which do not?"},
]


def question(server: Server, pace: str | None = None, events: int = 0, *, stop: bool = False) -> Question:
    """A request for a stream of so many events at this pace, or for a whole answer where there is none."""
    body: dict[str, object] = {"max_tokens": events or 200, "temperature": 0.7}
    if pace:
        body["stream"] = True
    if stop:
        body["stop"] = STOP
    model = pace or "whole"
    if server.name == UPSTREAM:
        path, key = f"/{model}", "prompt"
        body["prompt"] = "\n".join(turn["content"] for turn in MESSAGES)
    else:
        path, key = "/v1/chat/completions", "content"
        body |= {"model": model, "messages": MESSAGES}
    data = orjson.dumps(body)
    head = (
        f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1:{server.port}\r\nAuthorization: Bearer {KEY}\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(data)}\r\n\r\n"
    )
    expected = text(events) if pace else WHOLE_TEXT.encode()
    return Question(server.port, head.encode() + data, expected, streamed=pace is not None, key=key)


OPEN: Mapping[str, Any] = {"auth": {"mode": "none"}, "store": {"url": None}}
"""No keys, nothing counted and nothing kept."""
KEYED: Mapping[str, Any] = {
    "auth": {"mode": "keys", "keys": [{"name": "bench", "key": KEY}]},
    "store": {"url": None},
}


def gateway_command(
    folder: Path,
    upstream: int,
    port: int,
    models: Sequence[str] = ("whole", *PACES),
    access: Mapping[str, Any] = KEYED,
) -> list[str]:
    """The gateway with a model for each pace; writes its configuration to ``folder``."""
    entries = {
        model: {
            "upstream": {
                "kind": "prompt",
                "url": f"http://127.0.0.1:{upstream}/{model}",
                "max_concurrency": 1000,
            },
            "template": "chatml",
        }
        for model in models
    }
    file = folder / "gateway.yaml"
    file.write_bytes(orjson.dumps({**access, "models": entries}))  # JSON is YAML
    return ["-m", "gateway", "serve", "--config", str(file), "--port", str(port)]


@contextmanager
def mock_upstream() -> Iterator[Server]:
    port = free_port()
    with started(UPSTREAM, ["-m", "tests.bench.upstream", str(port)], port, OTHERS) as server:
        yield server


@contextmanager
def subject(name: str, upstream: int, under: tuple[str, ...] = ()) -> Iterator[Server]:
    """The baseline or the gateway, in front of the mock upstream on port ``upstream``.

    ``under`` are arguments that make Python run it under something else, as a profiler.
    """
    port = free_port()
    with TemporaryDirectory() as folder:
        if name == BASELINE:
            command = ["-m", "tests.bench.baseline", str(port), f"http://127.0.0.1:{upstream}"]
        else:
            command = gateway_command(Path(folder), upstream, port)
        with started(name, [*under, *command], port, TESTED) as server:
            yield server

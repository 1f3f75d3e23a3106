"""Ask a deployed model, as a client would, and say how long it took.

Rule: one streamed request is one measurement; what is wrong with the answer is an error, never a number.
Needs the standard library only, because the benchmark runs it in plain containers. A deployment that wants a
proxy token gets the one in ``MODAL_KEY`` and ``MODAL_SECRET``.
"""

from __future__ import annotations

import http.client
import json
import os
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any
from urllib.parse import urlsplit

PATIENCE = 900  # seconds: a container may have to start first
PAUSE = 1.0  # seconds between two tries while no container is ready


class ProbeFailed(Exception):
    """The deployed model did not answer as it should."""


@dataclass(frozen=True, slots=True)
class Target:
    """Where the model is, what it speaks (``prompt`` or ``openai``) and what it is called there."""

    url: str
    speaks: str
    model: str
    headers: Mapping[str, str] = field(default_factory=dict)
    embeds: bool = False


@dataclass(frozen=True, slots=True)
class Measured:
    """One answer. Times in seconds since the request was sent."""

    first: float
    total: float
    pieces: int
    text: str


def proxy_token(environ: Mapping[str, str] = os.environ) -> dict[str, str]:
    """The headers of the workspace's proxy token, if the environment has one."""
    key, secret = environ.get("MODAL_KEY", ""), environ.get("MODAL_SECRET", "")
    return {"Modal-Key": key, "Modal-Secret": secret} if key and secret else {}


def ask(target: Target, prompt: str, max_tokens: int) -> Measured:
    """One request, streamed where there is a stream. Raises ``ProbeFailed``."""
    began = time.monotonic()
    first = 0.0
    texts: list[str] = []
    for text in _answer(target, prompt, max_tokens):
        first = first or time.monotonic() - began
        texts.append(text)
    if not texts:
        raise ProbeFailed("the answer was empty")
    return Measured(first, time.monotonic() - began, len(texts), "".join(texts))


def run(target: Target, prompts: list[str], max_tokens: int) -> list[dict[str, Any]]:
    """These prompts one after the other, as plain data that can travel between machines."""
    return [asdict(ask(target, prompt, max_tokens)) for prompt in prompts]


def summary(measured: list[dict[str, Any]], took: float) -> str:
    """A few lines on all measurements; ``took`` is the time for all of them, in seconds."""
    firsts = sorted(one["first"] for one in measured)
    pieces = sum(one["pieces"] for one in measured)
    middle, late = firsts[len(firsts) // 2], firsts[min(len(firsts) - 1, len(firsts) * 95 // 100)]
    return (
        f"{len(measured)} answers, {pieces} pieces in {took:.1f} s: {pieces / took:.1f} pieces a second\n"
        f"first piece: median {middle:.2f} s, 95th percentile {late:.2f} s"
    )


def _answer(target: Target, prompt: str, max_tokens: int) -> Iterator[str]:
    body: dict[str, Any] = {"prompt": prompt, "max_tokens": max_tokens, "stream": True}
    path = "/v1/completions" if target.speaks == "openai" else "/"
    if target.embeds:
        body = {"input": [prompt]}
    if target.speaks == "openai":
        body["model"] = target.model
    response = _open(target, path, body)
    try:
        if target.embeds:
            yield str(json.loads(response.read())["embeddings"][0][:4])
        else:
            yield from _texts(response, target.speaks)
    finally:
        response.close()


def _texts(response: http.client.HTTPResponse, speaks: str) -> Iterator[str]:
    for line in response:
        if not line.startswith(b"data: "):
            continue
        if line.strip() == b"data: [DONE]":
            return
        event = json.loads(line[6:])
        if "error" in event:
            raise ProbeFailed(event["error"]["message"])
        if speaks == "openai":
            yield from (choice["text"] for choice in event["choices"] if choice["text"])
        elif event.get("prompt"):
            yield event["prompt"]
    raise ProbeFailed("the stream was cut: it ended without [DONE]")


def _open(target: Target, path: str, body: Mapping[str, Any]) -> http.client.HTTPResponse:
    """The answer's head. A 503 of a Server without a ready container is asked again."""
    ends = time.monotonic() + PATIENCE
    while True:
        response = _send(target, path, body)
        while response.status == 303:  # after 150 silent seconds; the result is fetched, not asked anew
            response.close()
            response = _send(target, response.headers["location"], None)
        if response.status == 200:
            return response
        said = response.read(2000).decode(errors="replace").strip()
        response.close()
        if response.status != 503 or '"error"' in said or time.monotonic() > ends:
            raise ProbeFailed(f"status {response.status}: {said or 'no text'}{_hint(response.status)}")
        time.sleep(PAUSE)


def _send(target: Target, path: str, body: Mapping[str, Any] | None) -> http.client.HTTPResponse:
    """POST ``body`` below the target's address, or GET what a redirect names; always the target's host."""
    parts = urlsplit(target.url)
    kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
    connection = kind(parts.netloc, timeout=PATIENCE)
    headers = {"content-type": "application/json", "connection": "close", **target.headers}
    try:
        if body is None:
            there = urlsplit(path)
            connection.request("GET", f"{there.path}?{there.query}", None, headers)
        else:
            connection.request("POST", parts.path.rstrip("/") + path, json.dumps(body), headers)
        return connection.getresponse()
    except (OSError, http.client.HTTPException) as exc:
        connection.close()
        raise ProbeFailed(f"{parts.netloc} cannot be reached: {exc}") from None


def _hint(status: int) -> str:
    if status == 401:
        return " (set MODAL_KEY and MODAL_SECRET to a proxy token: modal workspace proxy-tokens create)"
    return ""

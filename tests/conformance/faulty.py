"""A server of the contract with one fault at a time; without one, nothing is wrong with it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

from fastapi import FastAPI
from fastapi.responses import JSONResponse, RedirectResponse, Response, StreamingResponse

KNOWN = {"prompt", "max_tokens", "temperature", "top_p", "stop", "seed", "stream", "presence_penalty"}


GARBAGE = [
    ("application/json", b"null"),
    ("application/json", b"[]"),
    ("application/json", b"7"),
    ("application/json", b'"hello"'),
    ("application/json", b'{"prompt": 5}'),
    ("application/json", b'{"status": "ok", "id": "7"}'),
    ("application/json", b"[" * 5000),
    ("application/json", b'{"a": ' * 200 + b'"deep"' + b"}" * 200),
    ("text/event-stream", b"data: {\n\n"),
    ("text/event-stream", b"data: \xff\n\n"),
    ("text/event-stream", b""),
    ("application/x-ndjson", b"{}\n{}\n"),
    ("text/html", b"<!doctype html><title>hello</title>"),
    ("text/plain", b"\xff\xfe"),
]
"""Answers in which there is no text."""


def answer_to(prompt: str) -> list[str]:
    """What it says, a token each: counted numbers, or the words again."""
    if "count to" in prompt:
        return [f"{number} " for number in range(1, min(int(prompt.split()[-1]), 200) + 1)]
    return [f"{word} " for word in prompt.removeprefix("repeat: ").split()]


def tokens_in(prompt: str, fault: str) -> int:
    """Words and signs, and one for ``<s>``, which is put before a prompt that does not begin with it."""
    if fault != "no BOS":
        prompt = "x " + prompt.removeprefix("<s>")
    return len(re.findall(r"\w+|[^\w\s]", prompt))


def utf_16(text: str) -> str:
    """With each character beyond 16 bits as two halves."""
    units = text.encode("utf-16-le")
    return "".join(chr(units[at] | units[at + 1] << 8) for at in range(0, len(units), 2))


class Faulty:
    """``fault``: what is wrong with it; ``last``: the prompt before this one."""

    def __init__(self, fault: str) -> None:
        self.fault = fault
        self.last = ""
        self.dead = False
        self.streams = 0  # asked for

    def answer(self, asked: dict[str, Any]) -> tuple[list[str], dict[str, Any]]:
        """The tokens and what stands beside them."""
        prompt = asked["prompt"]
        spoken = answer_to(self.last if self.fault == "mixes" and self.last else prompt)
        self.last = prompt
        if self.fault == "spaced echo":
            spoken = [prompt.replace(" ", "  "), *spoken]
        if self.fault == "no characters":
            spoken = [piece.encode().decode("ascii", errors="replace") for piece in spoken]
        most = asked.get("max_tokens", 1000) + 3 * (self.fault == "too long")
        reason = "length" if len(spoken) > most and self.fault != "says stop" else "stop"
        spoken = spoken[:most]
        text = "".join(spoken)
        for stop in asked.get("stop", []):
            if self.fault == "patterns" and stop == ".+":
                spoken = []
            if stop in text:
                at = text.index(stop) + (len(stop) if self.fault == "leaks" else 0)
                spoken, reason = [text[:at]], "stop"
        usage = {"prompt_tokens": tokens_in(prompt, self.fault), "completion_tokens": len(spoken)}
        if self.fault == "usage":
            usage["prompt_tokens"] = 5
        ignored = [name for name in asked if name not in KNOWN] if self.fault != "silent" else []
        return spoken, {"finish_reason": reason, "usage": usage, "ignored": ignored}

    def whole(self, asked: dict[str, Any]) -> Response:
        spoken, facts = self.answer(asked)
        return JSONResponse({"prompt": "".join(spoken), **facts})

    def streamed(self, asked: dict[str, Any]) -> Response:
        spoken, facts = self.answer(asked)
        self.streams += 1
        if self.fault == "silent once" and self.streams == 1:
            spoken = []
        kind = "application/json" if self.fault == "stream type" else "text/event-stream"

        def events() -> Iterator[str]:
            for piece in spoken:
                if self.fault == "cut characters" and not piece.isascii():
                    piece = piece.encode()[:-2].decode(errors="replace")
                for part in utf_16(piece) if self.fault == "surrogates" else [piece]:
                    yield f"data: {json.dumps({'prompt': part})}\n\n"
            yield f"data: {json.dumps(facts)}\n\ndata: [DONE]\n\n"

        return StreamingResponse(events(), media_type=kind)

    def refused(self) -> Response:
        status = 503 if self.fault == "error status" else 400
        error = {"message": "`prompt` must be a text", "code": "bad_request", "status": status}
        return JSONResponse({"error": error}, 400)


def faulty(fault: str) -> FastAPI:
    server = Faulty(fault)
    app = FastAPI()

    @app.post("/")
    async def prompt(asked: dict[str, Any]) -> Response:
        if server.dead:
            return JSONResponse({"error": {"message": "gone", "code": "engine_dead", "status": 503}}, 503)
        if not isinstance(asked.get("prompt"), str):
            return server.refused()
        server.dead = fault == "dies" and asked.get("max_tokens", 0) > 1000
        return server.streamed(asked) if asked.get("stream") else server.whole(asked)

    @app.post("/busy")
    async def busy(asked: dict[str, Any]) -> Response:
        return JSONResponse({"error": "busy"}, 429) if "seed" in asked else server.whole(asked)

    @app.post("/garbage/{number}")
    async def garbage(number: int) -> Response:
        kind, body = GARBAGE[number]
        return Response(body, media_type=kind)

    @app.post("/elsewhere")
    async def elsewhere() -> Response:
        return RedirectResponse("http://localhost:9/", 303)

    @app.post("/later")
    async def later() -> Response:
        return RedirectResponse("/result", 303)

    @app.get("/result")
    async def result() -> dict[str, str]:
        return {"prompt": "hello world"}

    return app

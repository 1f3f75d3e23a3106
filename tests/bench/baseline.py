"""The measure of all figures: what a good engineer writes who wants translation and nothing else.

    python -m tests.bench.baseline PORT UPSTREAM_URL

Chat request in, prompt to the upstream, answer or chunks out. No validation, keys, limits, stops, metrics,
error handling or watch over clients that leave. The libraries are the gateway's, each used the short way.
"""

from __future__ import annotations

import sys
import time
import uuid
from typing import Any

import aiohttp
import orjson
import uvicorn

JSON = [(b"content-type", b"application/json")]
EVENT_STREAM = [(b"content-type", b"text/event-stream")]


class Baseline:
    """An ASGI application."""

    def __init__(self, upstream: str) -> None:
        self._upstream = upstream

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            await self._live(receive, send)
        elif scope["path"] == "/health":
            await _answer(send, b"{}")
        else:
            await self._chat(receive, send)

    async def _live(self, receive: Any, send: Any) -> None:
        connector = aiohttp.TCPConnector(limit=0)
        async with aiohttp.ClientSession(connector=connector, cookie_jar=aiohttp.DummyCookieJar()) as session:
            self._session = session
            while True:
                message = await receive()
                await send({"type": message["type"] + ".complete"})
                if message["type"] == "lifespan.shutdown":
                    return

    async def _chat(self, receive: Any, send: Any) -> None:
        body = b""
        more = True
        while more:
            message = await receive()
            body += message["body"]
            more = message["more_body"]
        chat = orjson.loads(body)
        turns = [f"<|im_start|>{turn['role']}\n{turn['content']}<|im_end|>\n" for turn in chat["messages"]]
        call = {key: chat[key] for key in ("max_tokens", "temperature", "stop", "stream") if key in chat}
        call["prompt"] = "".join(turns) + "<|im_start|>assistant\n"
        head = {"id": f"chatcmpl-{uuid.uuid4().hex}", "created": int(time.time()), "model": chat["model"]}
        async with self._session.post(
            f"{self._upstream}/{chat['model']}",
            data=orjson.dumps(call),
            headers={"content-type": "application/json"},
        ) as response:
            if chat.get("stream"):
                await _stream(response, head, send)
            else:
                await _answer(send, _whole(await response.read(), head))


def _whole(body: bytes, head: dict[str, Any]) -> bytes:
    data = orjson.loads(body)
    message = {"role": "assistant", "content": data["prompt"]}
    choice = {"index": 0, "message": message, "finish_reason": data["finish_reason"]}
    return orjson.dumps({**head, "object": "chat.completion", "choices": [choice], "usage": data["usage"]})


async def _answer(send: Any, body: bytes) -> None:
    length = (b"content-length", b"%d" % len(body))
    await send({"type": "http.response.start", "status": 200, "headers": [*JSON, length]})
    await send({"type": "http.response.body", "body": body})


async def _stream(response: aiohttp.ClientResponse, head: dict[str, Any], send: Any) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": EVENT_STREAM})
    pending = b""
    async for data in response.content.iter_any():
        *events, pending = (pending + data).split(b"\n\n")
        chunks = b"".join([_chunk(event[6:], head) for event in events])
        await send({"type": "http.response.body", "body": chunks, "more_body": True})
    await send({"type": "http.response.body", "body": b""})


def _chunk(payload: bytes, head: dict[str, Any]) -> bytes:
    if payload == b"[DONE]":
        return b"data: [DONE]\n\n"
    data = orjson.loads(payload)
    choice = {
        "index": 0,
        "delta": {"content": data["prompt"]},
        "finish_reason": data.get("finish_reason"),
    }
    chunk = {**head, "object": "chat.completion.chunk", "choices": [choice]}
    return b"data: " + orjson.dumps(chunk) + b"\n\n"


if __name__ == "__main__":
    uvicorn.run(Baseline(sys.argv[2]), port=int(sys.argv[1]), log_level="warning", access_log=False)

"""Record what FastChat's API server answers; README.md beside this file says how it is run.

A controller and a worker play the part that each case names. Nothing here is imported by a test.
"""

import asyncio
import json
import socket
import sys
import threading
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import fastapi
import fastchat.serve.openai_api_server as api
import uvicorn
from fastapi.responses import Response, StreamingResponse
from fastchat.conversation import get_conv_template

WORKER, SERVER = 21999, 22000  # ports
TEXTS = ("你好", "你好！", "你好！I am", "你好！I am Vicuna.")
USAGE = {"prompt_tokens": 42, "completion_tokens": 4, "total_tokens": 46}
NO_MEMORY = {
    "text": "**NETWORK ERROR DUE TO HIGH TRAFFIC. PLEASE REGENERATE OR REFRESH THIS PAGE.**"
    "\n\n(CUDA out of memory)",
    "error_code": 50002,
}

part = "well"  # what the worker plays: well | no-worker | long | no-memory | no-memory-at-once | busy | dies
worker = fastapi.FastAPI()


@worker.post("/list_models")
async def list_models() -> Any:
    return {"models": ["vicuna-x"]}


@worker.post("/get_worker_address")
async def get_worker_address() -> Any:
    return {"address": "" if part == "no-worker" else f"http://127.0.0.1:{WORKER}"}


@worker.post("/worker_get_conv_template")
async def worker_get_conv_template() -> Any:
    conv = get_conv_template("vicuna_v1.1")
    names = "name system_template system_message roles messages offset sep sep2 stop_str stop_token_ids"
    return {
        "conv": {name: getattr(conv, name) for name in names.split()} | {"sep_style": conv.sep_style.value}
    }


@worker.post("/model_details")
async def model_details() -> Any:
    return {"context_length": 10 if part == "long" else 2048}


@worker.post("/count_token")
async def count_token() -> Any:
    return {"count": 42}


@worker.post("/worker_generate")
async def worker_generate() -> Any:
    if part == "busy":
        return Response(status_code=503)
    if part == "no-memory":
        return NO_MEMORY
    return {"text": TEXTS[-1], "error_code": 0, "usage": USAGE, "finish_reason": "stop"}


def piece(text: str, reason: str | None = None) -> bytes:
    fields = {"text": text, "error_code": 0, "usage": USAGE, "finish_reason": reason, "logprobs": None}
    return json.dumps(fields).encode() + b"\0"


async def pieces() -> AsyncIterator[bytes]:
    for text in TEXTS if part != "no-memory-at-once" else ():
        yield piece(text)
        await asyncio.sleep(0.02)  # one read each
        if part == "dies":
            raise RuntimeError("the worker dies")
        if part == "no-memory":
            break
    yield piece(TEXTS[-1], "stop") if part == "well" else json.dumps(NO_MEMORY).encode() + b"\0"


@worker.post("/worker_generate_stream")
async def worker_generate_stream() -> Any:
    return StreamingResponse(pieces())


def serve(app: Any, port: int) -> None:
    server = uvicorn.Server(uvicorn.Config(app, host="127.0.0.1", port=port, log_level="critical"))
    threading.Thread(target=server.run, daemon=True).start()
    while not server.started:
        time.sleep(0.05)


def record(body: dict[str, Any], key: str = "") -> bytes:
    """The raw response to this request."""
    data = json.dumps(body).encode()
    head = "POST /v1/chat/completions HTTP/1.1\r\nhost: 127.0.0.1\r\nconnection: close\r\n"
    head += f"content-type: application/json\r\ncontent-length: {len(data)}\r\n"
    head += f"authorization: Bearer {key}\r\n" if key else ""
    got = b""
    with socket.create_connection(("127.0.0.1", SERVER)) as connection:
        connection.sendall(head.encode() + b"\r\n" + data)
        while more := connection.recv(65536):
            got += more
    return got


ASK: dict[str, Any] = {"model": "vicuna-x", "messages": [{"role": "user", "content": "the secret prompt"}]}
STREAM = {**ASK, "stream": True, "stream_options": {"include_usage": True}}
CASES: dict[str, tuple[dict[str, Any], str]] = {  # (request, what the worker plays)
    "whole": (ASK, "well"),
    "stream": (STREAM, "well"),
    "unknown-model": ({**ASK, "model": "nope"}, "well"),
    "validation": ({"messages": ASK["messages"]}, "well"),
    "out-of-range": ({**ASK, "temperature": 3}, "well"),
    "unknown-role": ({**ASK, "messages": [{"role": "tool", "content": "x"}]}, "well"),
    "too-long": (ASK, "long"),
    "worker-error": (ASK, "no-memory"),
    "worker-error-stream": (STREAM, "no-memory-at-once"),
    "worker-error-mid-stream": (STREAM, "no-memory"),
    "worker-503": (ASK, "busy"),
    "no-worker": (ASK, "no-worker"),
    "worker-died-mid-stream": (STREAM, "dies"),
    "wrong-key": (ASK, "well"),
}


def main(folder: Path) -> None:
    global part
    folder.mkdir(parents=True, exist_ok=True)
    api.app_settings.controller_address = f"http://127.0.0.1:{WORKER}"
    serve(worker, WORKER)
    serve(api.app, SERVER)
    for name, (body, part) in CASES.items():  # noqa: B007 the worker reads it
        api.app_settings.api_keys = ["right"] if name == "wrong-key" else None
        (folder / f"{name}.http").write_bytes(record(body, key="wrong"))


if __name__ == "__main__":
    main(Path(sys.argv[1]))

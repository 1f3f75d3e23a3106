"""Endpoints as people wrote them before there was a contract, each a few lines, served on loopback.

What they say is the same everywhere, so that what the gateway makes of it can be compared: ``said(prompt)``.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, PlainTextResponse, StreamingResponse
from pydantic import BaseModel, ConfigDict


def said(prompt: str) -> str:
    """An answer that no server could give without the prompt, in words and beyond ASCII."""
    return f"I was told, word for word: “{prompt.upper()}” 好🎉."


def words(text: str) -> list[str]:
    return [f"{word} " for word in text.split(" ")[:-1]] + text.split(" ")[-1:]


def dummy() -> FastAPI:
    """The smallest one."""
    app = FastAPI()

    @app.post("/")
    def answer(request: dict[str, Any]) -> dict[str, str]:
        return {"prompt": "hello world"}

    return app


def echoing() -> FastAPI:
    """Written for LangChain's Modal class, which wants the prompt back before the answer."""
    app = FastAPI()

    @app.post("/")
    def answer(request: dict[str, Any]) -> dict[str, str]:
        return {"prompt": request["prompt"] + said(request["prompt"])}

    return app


def prediction() -> FastAPI:
    app = FastAPI()

    @app.post("/")
    def predict(data: dict[str, Any]) -> dict[str, str]:
        return {"prediction": said(data["prompt"])}

    return app


def chatglm() -> FastAPI:
    """ChatGLM2-6B's ``api.py``: it has its own template, keeps no history, and knows no stop."""
    app = FastAPI()

    @app.post("/")
    async def create_item(request: Request) -> dict[str, Any]:
        asked = json.loads(await request.body())
        prompt, history = asked.get("prompt"), list(asked.get("history") or [])
        answer = said(prompt if isinstance(prompt, str) else "")[: asked.get("max_length") or 2048]
        history.append([prompt, answer])
        return {"response": answer, "history": history, "status": 200, "time": "2023-07-01 12:00:00"}

    return app


class Inputs(BaseModel):
    inputs: str
    parameters: dict[str, Any] = {}


KNOWN = {"max_new_tokens", "temperature", "top_p", "top_k", "repetition_penalty", "return_full_text"}


def hugging_face() -> FastAPI:
    """A pipeline for text generation: the prompt comes back, and unknown parameters fail."""
    app = FastAPI()

    @app.post("/", response_model=None)
    def generate(data: Inputs) -> list[dict[str, str]] | JSONResponse:
        if unknown := sorted(set(data.parameters) - KNOWN):
            return JSONResponse({"error": f"model_kwargs not used by the model: {unknown}"}, 500)
        answer = "".join(words(said(data.inputs))[: data.parameters.get("max_new_tokens", 100)])
        return [{"generated_text": data.inputs + answer}]

    return app


class Strict(BaseModel):
    model_config = ConfigDict(extra="forbid")
    question: str
    temperature: float = 1.0


def strict() -> FastAPI:
    """Names of its own, and a model that refuses what it does not know."""
    app = FastAPI()

    @app.post("/")
    def ask(data: Strict) -> dict[str, Any]:
        return {"result": {"answer": said(data.question)}, "model": "falcon-40b-instruct"}

    return app


def worker() -> FastAPI:
    """As FastChat's workers stream: each event has the text so far; no event says that it is the last."""
    app = FastAPI()

    @app.post("/")
    def generate(data: dict[str, Any]) -> StreamingResponse:
        def events() -> Iterator[str]:
            text = ""
            for word in words(said(data["prompt"])):
                text += word
                yield f"data: {json.dumps({'text': text, 'error_code': 0})}\n\n"

        return StreamingResponse(events(), media_type="text/event-stream")

    return app


def lines() -> FastAPI:
    """Lines of JSON that say they are JSON, where a stream is asked for."""
    app = FastAPI()

    @app.post("/", response_model=None)
    def generate(data: dict[str, Any]) -> dict[str, str] | StreamingResponse:
        pieces = words(said(data["prompt"]))
        if not data.get("stream"):
            return {"output": "".join(pieces)}
        body = (json.dumps({"output": piece}) + "\n" for piece in pieces)
        return StreamingResponse(body, media_type="application/json")

    return app


def page() -> FastAPI:
    """Bare text that says it is a page, as Flask does by default."""
    app = FastAPI()

    @app.post("/")
    async def generate(request: Request) -> PlainTextResponse:
        asked = json.loads(await request.body())
        return PlainTextResponse(said(str(asked["prompt"])), media_type="text/html")

    return app


ENDPOINTS: Mapping[str, tuple[Callable[[], FastAPI], Mapping[str, Any]]] = {
    "dummy": (dummy, {"stream": "none", "echo": "never"}),
    "echoing": (echoing, {"stream": "none", "echo": "always"}),
    "prediction": (prediction, {"response_field": "prediction", "stream": "none", "echo": "never"}),
    "chatglm": (chatglm, {"response_field": "response", "stream": "none", "echo": "never"}),
    "hugging_face": (
        hugging_face,
        {
            "request_fields": {
                "prompt": "inputs",
                "max_tokens": "parameters.max_new_tokens",
                "temperature": "parameters.temperature",
                "top_p": "parameters.top_p",
                "top_k": "parameters.top_k",
                "repetition_penalty": "parameters.repetition_penalty",
                "seed": None,
                "stop": None,
            },
            "response_field": "0.generated_text",
            "stream": "none",
            "echo": "always",
        },
    ),
    "strict": (
        strict,
        {
            "request_fields": {
                "prompt": "question",
                "max_tokens": None,
                "top_p": None,
                "stop": None,
                "seed": None,
                "presence_penalty": None,
                "frequency_penalty": None,
            },
            "response_field": "result.answer",
            "stream": "none",
            "echo": "never",
        },
    ),
    "worker": (worker, {"response_field": "text", "cumulative": True, "ends": "eof", "echo": "never"}),
    "lines": (lines, {"response_field": "output", "stream": "ndjson", "ends": "eof", "echo": "never"}),
    "page": (page, {"stream": "text", "echo": "never"}),
}
"""Each with the keys that fit it beside its address."""

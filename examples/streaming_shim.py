# run: python examples/streaming_shim.py
# needs fastapi, uvicorn
# then: modal-gateway conformance http://127.0.0.1:8002
"""Streaming and usage for a prompt function that you have: the prompt contract in about thirty lines.

Put your own model into `complete`, which gives the answer piece by piece; it is left when the client leaves.
Words stand for tokens here: count them with your tokenizer.
"""

import json
import os
from collections.abc import Iterator
from typing import Any

from fastapi import FastAPI, Response
from fastapi.responses import JSONResponse, StreamingResponse

app = FastAPI()


def complete(prompt: str) -> Iterator[str]:
    for word in f"You said: {prompt}".split(" "):  # where a model would continue the prompt
        yield f"{word} "


@app.post("/", response_model=None)
def answer(request: dict[str, Any]) -> dict[str, Any] | Response:
    prompt, most = request.get("prompt"), request.get("max_tokens", 512)
    if not isinstance(prompt, str):
        error = {"message": "`prompt` must be a string", "code": "bad_request", "status": 400}
        return JSONResponse({"error": error}, 400)
    usage = {"prompt_tokens": len(prompt.split()), "completion_tokens": 0}
    facts: dict[str, Any] = {"finish_reason": "stop", "usage": usage}

    def pieces() -> Iterator[str]:
        for count, piece in enumerate(complete(prompt)):
            if count == most:
                facts["finish_reason"] = "length"
                break
            usage["completion_tokens"] = count + 1
            yield piece

    def events() -> Iterator[str]:
        for piece in pieces():
            yield f"data: {json.dumps({'prompt': piece})}\n\n"
        yield f"data: {json.dumps(facts)}\n\ndata: [DONE]\n\n"

    if request.get("stream"):
        return StreamingResponse(events(), media_type="text/event-stream")
    return {"prompt": "".join(pieces()), **facts}  # the text is collected before the facts are read


if __name__ == "__main__":
    import uvicorn

    uvicorn.run(app, host="127.0.0.1", port=int(os.environ.get("PORT", "8002")))

"""Ask a contract app on a real socket, whole and streamed."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

import httpx


@dataclass
class Streamed:
    """What came, event by event; `last` is the event that ended it."""

    texts: list[str] = field(default_factory=list)
    logprobs: list[dict[str, Any]] = field(default_factory=list)
    last: dict[str, Any] = field(default_factory=dict)
    done: bool = False

    @property
    def text(self) -> str:
        return "".join(self.texts)


async def whole(client: httpx.AsyncClient, url: str, **fields: Any) -> dict[str, Any]:
    answered = await client.post(url, json=fields)
    assert answered.status_code == 200, answered.text
    body: dict[str, Any] = answered.json()
    return body


async def refused(client: httpx.AsyncClient, url: str, **fields: Any) -> tuple[int, str, str]:
    answered = await client.post(url, json=fields)
    error = answered.json()["error"]
    assert error["status"] == answered.status_code
    return answered.status_code, error["code"], error["message"]


async def streamed(client: httpx.AsyncClient, url: str, **fields: Any) -> Streamed:
    found = Streamed()
    async with client.stream("POST", url, json={**fields, "stream": True}) as answer:
        assert answer.status_code == 200, await answer.aread()
        async for line in answer.aiter_lines():
            if line == "data: [DONE]":
                found.done = True
            elif line.startswith("data: "):
                event = json.loads(line[6:])
                if "finish_reason" in event or "error" in event:
                    found.last = event
                else:
                    found.texts.append(event["prompt"])
                    found.logprobs += event.get("logprobs", [])
    return found

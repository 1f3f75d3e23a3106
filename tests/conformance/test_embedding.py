"""An endpoint that only embeds is told from one that answers nothing, and each of its faults is found."""

from __future__ import annotations

import asyncio
import hashlib
from typing import Any

import pytest
from fastapi import FastAPI
from fastapi.responses import JSONResponse

from gateway.conformance.fit import Credentials, as_yaml
from gateway.conformance.run import EMBEDDING, Report, examine
from gateway.conformance.verdict import Result
from gateway.settings import settings_from
from tests.serve.house import BOUND, listening, soon

SIZE = 8
KNOWN = {"input"}
FAULTS = {
    "one too few": ["embeddings", "order"],
    "uneven": ["embeddings", "order"],
    "no order": ["order"],
    "all the same": ["order"],
    "by company": ["order"],
    "usage": ["usage"],
    "error status": ["errors"],
    "silent": ["unknown fields"],
    "mixes": ["parallel"],
}


def vector(text: str) -> list[float]:
    return [byte - 127.5 for byte in hashlib.sha256(text.encode()).digest()[:SIZE]]


class Embedder:
    """``fault``: what is wrong with it; ``inside``: requests that it works on."""

    def __init__(self, fault: str) -> None:
        self.fault = fault
        self.inside = 0

    async def work(self, asked: dict[str, Any]) -> JSONResponse:
        if self.fault != "mixes":
            return self.answer(asked)
        self.inside += 1
        await asyncio.sleep(0.02)  # which is how long it works on each
        answer = self.answer(asked)
        self.inside -= 1
        return answer

    def vectors(self, texts: list[str]) -> list[list[float]]:
        made = [vector("" if self.fault == "all the same" else text) for text in texts]
        if self.fault == "by company" and len(texts) > 1:
            made = [[number + 200 for number in each] for each in made]
        if self.inside > 1:
            made = [vector("another text")] * len(made)
        if self.fault == "uneven":
            made[-1] = made[-1][:-1] if len(made) > 1 else made[-1]
        if self.fault == "no order":
            made.reverse()
        return made[:-1] if self.fault == "one too few" and len(made) > 1 else made

    def answer(self, asked: dict[str, Any]) -> JSONResponse:
        texts = asked.get("input")
        if not isinstance(texts, list):
            status = 500 if self.fault == "error status" else 400
            error = {"message": "give `input`", "code": "bad_request", "status": status}
            return JSONResponse({"error": error}, 400)
        usage = {"prompt_tokens": 0 if self.fault == "usage" else sum(map(len, texts))}
        ignored = [name for name in asked if name not in KNOWN] if self.fault != "silent" else []
        return JSONResponse({"embeddings": self.vectors(texts), "usage": usage, "ignored": ignored})


async def examined(fault: str) -> Report:
    server = Embedder(fault)
    app = FastAPI()

    @app.post("/")
    async def answer(asked: dict[str, Any]) -> JSONResponse:
        return await server.work(asked)

    async with listening(app) as port:
        return await soon(examine(f"http://127.0.0.1:{port}/", Credentials(), BOUND))


def found(report: Report, result: Result) -> list[str]:
    return [name for name, verdict in report.verdicts.items() if verdict.result is result]


async def test_an_endpoint_that_only_embeds_is_good() -> None:
    report = await examined("none")
    assert report.good
    assert report.requests <= 40
    assert found(report, Result.UNSUPPORTED) == ["whole"]
    assert "no prompts" in report.verdicts["whole"].why
    assert "give `input`" in report.verdicts["whole"].why
    assert found(report, Result.OK) == list(EMBEDDING)


async def test_the_lines_that_fit_it_have_no_template() -> None:
    report = await examined("none")
    assert report.config is not None
    [entry] = report.config["models"].values()
    assert list(entry) == ["upstream"]
    assert list(entry["upstream"]) == ["url"]
    assert "template" not in as_yaml(report.config)
    settings_from(report.config, {})


@pytest.mark.parametrize(("fault", "checks"), FAULTS.items())
async def test_a_fault_is_found_by_its_check(fault: str, checks: list[str]) -> None:
    report = await examined(fault)
    assert found(report, Result.WRONG) == checks, report.verdicts
    assert not report.good

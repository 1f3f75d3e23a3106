"""Old endpoints: conformance prints lines, and the gateway with these very lines serves a chat."""

import json
import re
from typing import Any

import httpx
import pytest
import yaml

from gateway.app import build_app
from gateway.conformance.fit import NAME, Credentials, as_yaml
from gateway.conformance.run import examine
from gateway.settings import settings_from
from tests.conformance.old import ENDPOINTS, said
from tests.conftest import ROOT
from tests.serve.house import BOUND, listening, soon

OLD = ("dummy", "echoing", "prediction", "chatglm", "hugging_face")  # those with a section of the page
MESSAGE = "Identify yourself, bot!"
CHAT: dict[str, Any] = {"messages": [{"role": "user", "content": MESSAGE}], "temperature": 0.7, "seed": 1}


async def chat(port: int, body: dict[str, Any]) -> str:
    """What the client reads, whole or put together."""
    async with httpx.AsyncClient(timeout=BOUND, trust_env=False) as http:
        url = f"http://127.0.0.1:{port}/v1/chat/completions"
        answer = await http.post(url, json={"model": NAME, **body})
    assert answer.status_code == 200, answer.text
    if not body.get("stream"):
        return str(answer.json()["choices"][0]["message"]["content"])
    events = [line[6:] for line in answer.text.split("\n") if line.startswith("data: ")]
    assert events.pop() == "[DONE]"
    return "".join(json.loads(event)["choices"][0]["delta"].get("content") or "" for event in events)


def test_the_page_on_old_endpoints_shows_the_same_lines() -> None:
    page = (ROOT / "docs" / "old-endpoints.md").read_text(encoding="utf-8")
    shown = []
    for block in re.findall(r"^```yaml\n(.*?)^```$", page, re.DOTALL | re.MULTILINE):
        [model] = yaml.safe_load(block)["models"].values()
        shown.append({key: value for key, value in model["upstream"].items() if key != "url"})
    assert shown == [ENDPOINTS[name][1] for name in OLD]


@pytest.mark.parametrize("name", ENDPOINTS)
async def test_the_printed_lines_serve_a_chat(name: str) -> None:
    make, keys = ENDPOINTS[name]
    wanted = "hello world" if name == "dummy" else said(MESSAGE)
    async with listening(make()) as port:
        url = f"http://127.0.0.1:{port}/"
        report = await soon(examine(url, Credentials(), BOUND))
        assert report.config is not None
        printed = yaml.safe_load(as_yaml(report.config))
        assert printed["models"][NAME]["upstream"] == {"url": url, **keys}
        assert report.good, report.verdicts
        settings = settings_from({"auth": {"mode": "none"}, **printed}, {})
        async with listening(build_app(settings, loopback=True)) as gateway:
            assert await chat(gateway, CHAT) == wanted
            assert await chat(gateway, {**CHAT, "stream": True}) == wanted
            stopped = {**CHAT, "stop": [wanted[6:8]], "max_tokens": 60}
            assert await chat(gateway, stopped) == wanted[:6]
            assert await chat(gateway, {**stopped, "stream": True}) == wanted[:6]

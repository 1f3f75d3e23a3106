"""Two hundred clients on one cold start: all answered, one boot, nothing asked or generated twice.

The slow test runs the official clients with the time limits they come with, against a boot that is longer
than each; everybody's clock runs faster.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import httpx
import pytest

from gateway.app import build_app
from gateway.settings import settings_from
from gateway.simulate.options import Boot, Mode, Options
from tests.serve.house import container, faster, listening, soon
from tests.serve.test_chat import greet
from tests.simulate.simulated import Simulated, simulated

pytestmark = pytest.mark.slow

CROWD = 200


@dataclass
class Cold:
    edge: Simulated
    port: int

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"

    async def metric(self, line: str) -> bool:
        async with httpx.AsyncClient() as http:
            text = (await http.get(f"http://127.0.0.1:{self.port}/metrics")).text
        return line in text.splitlines()


@asynccontextmanager
async def cold(options: Options, **upstream: Any) -> AsyncIterator[Cold]:
    """A gateway with its defaults in front of an app that sleeps."""
    async with container(greet) as app, simulated(f"http://127.0.0.1:{app.port}", options) as edge:
        model = {"upstream": {"url": edge.url, **upstream}, "template": "plain"}
        settings = settings_from({"auth": {"mode": "none"}, "models": {"m": model}}, {})
        async with listening(build_app(settings, loopback=True)) as port:
            yield Cold(edge, port)


async def check(at: Cold, answers: list[str]) -> None:
    assert answers == ["hello world"] * CROWD
    counts = at.edge.counts
    assert (counts.boots, counts.generations, counts.answered) == (1, CROWD, CROWD)
    assert counts.cancelled == counts.dropped == counts.cut == 0
    finished = 'modal_gateway_requests_total{model="m",route="chat",status="200"} %s'
    assert await at.metric(finished % float(CROWD))  # no client asked twice


async def crowd(ask: Callable[[int], Awaitable[str]]) -> list[str]:
    return list(await asyncio.gather(*map(ask, range(CROWD))))


@pytest.mark.parametrize("mode", Mode)
async def test_a_crowd_waits_for_one_boot(mode: Mode) -> None:
    boot, at_once = 2.0, 100  # seconds; the gateway's max_concurrency
    options = Options(mode=mode, boot=Boot(boot, boot), edge_timeout=0.3)
    limits = httpx.Limits(max_connections=None)
    async with cold(options) as at, httpx.AsyncClient(timeout=None, limits=limits) as http:

        async def ask(number: int) -> str:
            body = {"model": "m", "messages": [{"role": "user", "content": f"I am {number}"}]}
            answer = await http.post(at.url + "/chat/completions", json=body)
            return str(answer.json()["choices"][0]["message"]["content"])

        await check(at, await soon(crowd(ask), 30.0))
        refused = at.edge.counts.refused["503"]
        if mode is Mode.server:  # all who came before the first refusal, then one a second
            assert boot - 1 <= refused <= at_once + boot + 2
        else:
            assert refused == 0


SPEED = 15  # times


@pytest.mark.parametrize("mode", Mode)
async def test_the_official_clients_wait_for_a_boot_longer_than_their_limits(mode: Mode) -> None:
    """OpenAI's with the 60 s that LlamaIndex gives it; LangChain's stream, which wants a chunk in 120 s.

    A connection has its usual 5 s on the real clock, because making two hundred goes no faster.
    """
    openai = pytest.importorskip("openai", reason="openai is not installed")
    chat = pytest.importorskip("langchain_openai", reason="langchain-openai is not installed").ChatOpenAI
    async with (
        cold(Options(mode=mode, boot=Boot(140.0, 140.0)), connect_timeout=5.0 * SPEED) as at,
        openai.AsyncOpenAI(base_url=at.url, api_key="unused", timeout=60.0) as sdk,
        openai.DefaultAsyncHttpxClient() as http,  # LangChain's own would outlive the event loop
    ):
        llm = chat(model="m", base_url=at.url, api_key="unused", http_async_client=http)

        async def ask(number: int) -> str:
            said = [{"role": "user", "content": f"I am {number}"}]
            match number % 4:
                case 0:
                    whole = await sdk.chat.completions.create(model="m", messages=said)
                    return str(whole.choices[0].message.content)
                case 1:
                    stream = await sdk.chat.completions.create(model="m", messages=said, stream=True)
                    return "".join([part.choices[0].delta.content or "" async for part in stream])
                case 2:
                    return str((await llm.ainvoke(f"I am {number}")).content)
                case _:
                    return "".join([str(part.content) async for part in llm.astream(f"I am {number}")])

        with faster(SPEED):
            answers = await soon(crowd(ask), 60.0 * SPEED)
        await check(at, answers)

"""Calls as the gateway makes them, and what came of them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from gateway.core.call import Call, ChatCall, PromptCall
from gateway.core.errors import GatewayError
from gateway.core.events import Event, Finish, Text
from gateway.upstreams import Upstream
from gateway.upstreams.openai import OpenAIConfig, OpenAIUpstream
from gateway.upstreams.prompt import PromptConfig, PromptUpstream
from tests.upstreams.fake import soon

AT = "models.m.upstream"
PROMPT = "the secret prompt"


@dataclass
class Outcome:
    """All that a consumer got."""

    events: list[Event] = field(default_factory=list)
    batches: int = 0
    error: GatewayError | None = None

    @property
    def text(self) -> str:
        return "".join(event.text for event in self.events if isinstance(event, Text))

    @property
    def finish(self) -> Finish:
        """The one ``Finish``, checked to be one and the last."""
        assert self.error is None, self.error
        assert [type(event) for event in self.events].count(Finish) == 1
        last = self.events[-1]
        assert isinstance(last, Finish)
        return last

    @property
    def failure(self) -> GatewayError:
        """The error, checked to be instead of a ``Finish``."""
        assert self.error is not None, self.events
        assert not any(isinstance(event, Finish) for event in self.events)
        return self.error


async def outcome(upstream: Upstream, call: Call) -> Outcome:
    """Read a call to its end. Anything raised but a ``GatewayError`` fails the test."""
    got = Outcome()
    try:
        async with aclosing(upstream.events(call)) as batches:
            async for batch in batches:
                assert batch, "an empty batch says nothing"
                got.batches += 1
                got.events += batch
    except GatewayError as error:
        got.error = error
    return got


@asynccontextmanager
async def prompting(url: str, **config: Any) -> AsyncIterator[PromptUpstream]:
    upstream = PromptUpstream("m", PromptConfig(url=url, **config), model="m", at=AT)
    try:
        yield upstream
    finally:
        await upstream.aclose()


@asynccontextmanager
async def chatting(url: str, **config: Any) -> AsyncIterator[OpenAIUpstream]:
    upstream = OpenAIUpstream("m", OpenAIConfig(url=url, **config), model="m", at=AT)
    try:
        yield upstream
    finally:
        await upstream.aclose()


def ask(stream: bool = True, **arguments: Any) -> PromptCall:
    return PromptCall(PROMPT, arguments, stream=stream, request_id="req_1")


def chat(stream: bool = True, **fields: Any) -> ChatCall:
    messages = [{"role": "user", "content": PROMPT}]
    return ChatCall({"messages": messages, **fields}, stream=stream, request_id="req_1")


async def asked(url: str, call: PromptCall | None = None, **config: Any) -> Outcome:
    """One call to a prompt upstream of this config."""
    async with prompting(url, **config) as upstream:
        return await soon(outcome(upstream, call or ask()))

"""Upstream kind ``openai``: a server of OpenAI's chat completions or embeddings, FastChat included.

Rule: the chat goes through as the client wrote it; only what belongs to the way of sending is set here.
Knows nothing about prompts or templates.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from dataclasses import replace
from functools import partial
from secrets import token_hex
from typing import Literal

from pydantic import Field

from gateway.core.call import Call, EmbedCall, PromptCall, Traits
from gateway.core.decode.failure import Place
from gateway.core.decode.openai import OpenAIDecoder
from gateway.core.events import Batch
from gateway.core.sse import SSEDecoder
from gateway.upstreams import Observed, Traffic
from gateway.upstreams.body import encoded, fields_of, rename
from gateway.upstreams.endpoint import Endpoint, place
from gateway.upstreams.framing import SSE, TEXT, unreadable
from gateway.upstreams.http import Calls, traffic
from gateway.upstreams.reading import Reading
from gateway.upstreams.vectors import reading

CHAT, TEXTS, EMBEDDINGS = "/chat/completions", "/completions", "/embeddings"


class OpenAIConfig(Endpoint):
    """Keys of ``kind: openai``; ``url`` is the API's root, such as ``http://host:8000/v1``."""

    kind: Literal["openai"] = "openai"
    stream: Literal["auto", "none"] = Field("auto", description="none: never ask for a stream")

    @property
    def traits(self) -> Traits:
        return Traits("chat", self.stream != "none", self.whole, "never", self.forwarded)


class OpenAIUpstream:
    """One server of OpenAI's API; see ``Upstream``."""

    def __init__(self, name: str, config: OpenAIConfig, *, model: str = "", at: str = "") -> None:
        """``name``: metric label; ``model``: entry under ``models:``; ``at``: the config path of this one."""
        self.name = name
        self.traits = config.traits
        self._config = config
        self._model = config.model or model or name
        added = None if "stream_options" in config.request_fields else "stream_options"
        self._place = place(config, at or f"models.{model or name}.upstream", text="messages", added=added)
        self._calls = Calls(config, _address(config.url, CHAT), self._place)
        self._texts = replace(self._place, text="input", added=None)
        self._prompts = replace(self._place, text="prompt")
        self._completes = Calls(config, _address(config.url, TEXTS), self._prompts)
        self._embeds = Calls(config, _address(config.url, EMBEDDINGS), self._texts)

    def events(self, call: Call) -> AsyncGenerator[Batch, None]:
        if isinstance(call, EmbedCall):
            return self._embeds.events(self.body(call), call, reading(call, "data", self._texts))
        if isinstance(call, PromptCall):
            choose = partial(self._reading, self._prompts, call.stream)
            return self._completes.events(self.body(call), call, choose)
        return self._calls.events(self.body(call), call, partial(self._reading, self._place, call.stream))

    def body(self, call: Call) -> bytes:
        fields = fields_of(call) | {"model": self._model}
        if call.stream:  # its usage has to be asked for
            fields |= {"stream": True, "stream_options": {"include_usage": True}}
        return encoded(rename(fields, self._config.request_fields))

    async def reachable(self) -> None:
        await self._calls.connections.reachable()

    async def wake(self) -> None:
        await self._calls.wake()

    async def observed(self) -> Observed | None:
        return None

    def traffic(self) -> Traffic:
        return traffic(self._calls, self._completes, self._embeds)

    async def aclose(self) -> None:
        await self._calls.connections.aclose()
        await self._completes.connections.aclose()
        await self._embeds.connections.aclose()

    def _reading(self, place: Place, asked: bool, content_type: str) -> Reading:
        decoder = OpenAIDecoder(place, _id)
        if content_type in SSE or (asked and content_type in TEXT):
            return Reading(decoder, SSEDecoder())
        if content_type.endswith("json") or content_type in TEXT:
            return Reading(decoder)
        raise unreadable(content_type, place)


def _id() -> str:
    """The id of a call that its server gave none: no other choice or turn has it."""
    return f"call_{token_hex(12)}"


def _address(url: str, path: str) -> str:
    """Where requests of this path are posted; ``url`` is the root, or names one of the endpoints itself."""
    root, mark, query = url.partition("?")
    root = root.rstrip("/").removesuffix(CHAT).removesuffix(TEXTS).removesuffix(EMBEDDINGS)
    return root + path + mark + query

"""Upstream kind ``prompt``: a container that speaks the prompt contract, or something close to it.

Rule: how an answer is read follows from what it says it is (``stream: auto``) or from the config, never
from a guess at its content. Knows nothing about chats or templates.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from dataclasses import replace
from functools import partial
from typing import Literal

from pydantic import Field

from gateway.core.call import Call, EmbedCall, Traits
from gateway.core.decode import edge
from gateway.core.decode.prompt import PromptDecoder, Shape
from gateway.core.decode.text import TextDecoder
from gateway.core.events import Batch
from gateway.core.sse import LineDecoder, SSEDecoder
from gateway.upstreams import Observed, Traffic
from gateway.upstreams.body import encoded, fields_of, rename
from gateway.upstreams.endpoint import Endpoint, place
from gateway.upstreams.framing import framing, unreadable
from gateway.upstreams.http import Calls, traffic
from gateway.upstreams.reading import Reading
from gateway.upstreams.vectors import reading


class PromptConfig(Endpoint):
    """Keys of ``kind: prompt``."""

    kind: Literal["prompt"] = "prompt"
    stream: Literal["auto", "none", "sse", "ndjson", "text"] = Field(
        "auto", description="auto: ask for a stream and go by the content type; none: never ask for one"
    )
    cumulative: bool = Field(False, description="each event repeats the text so far")
    echo: Literal["auto", "always", "never"] = Field(
        "auto", description="when a leading copy of the prompt is removed"
    )
    response_field: str = Field(
        "prompt",
        pattern=r"^[^.\s]+(\.[^.\s]+)*$",
        description="where the text is: prediction, 0.generated_text",
    )
    ends: Literal["marker", "eof"] = Field(
        "marker", description="eof: for streams that have neither finish_reason nor [DONE]"
    )

    @property
    def traits(self) -> Traits:
        return Traits("prompt", self.stream != "none", self.whole, self.echo, self.forwarded)


class PromptUpstream:
    """One address that answers prompts; see ``Upstream``."""

    def __init__(self, name: str, config: PromptConfig, *, model: str = "", at: str = "") -> None:
        """``name``: metric label; ``model``: entry under ``models:``; ``at``: the config path of this one."""
        self.name = name
        self.traits = config.traits
        self._config = config
        self._place = place(config, at or f"models.{model or name}.upstream")
        self._shape = Shape.of(
            config.response_field, cumulative=config.cumulative, ends_at_eof=config.ends == "eof"
        )
        self._calls = Calls(config, config.url, self._place)
        self._texts = replace(self._place, text="input")
        self._embeds = Calls(config, config.url, self._texts)

    def events(self, call: Call) -> AsyncGenerator[Batch, None]:
        if isinstance(call, EmbedCall):
            return self._embeds.events(self.body(call), call, reading(call, "embeddings", self._texts))
        return self._calls.events(self.body(call), call, partial(self._reading, call.stream))

    def body(self, call: Call) -> bytes:
        fields = fields_of(call)
        if self._config.model is not None:
            fields["model"] = self._config.model
        if call.stream:
            fields["stream"] = True
        if "request_id" in self._config.request_fields:  # else a header only: strict backends refuse it
            fields["request_id"] = call.request_id
        return encoded(rename(fields, self._config.request_fields))

    async def reachable(self) -> None:
        await self._calls.connections.reachable()

    async def wake(self) -> None:
        await self._calls.wake()

    async def observed(self) -> Observed | None:
        return None

    def traffic(self) -> Traffic:
        return traffic(self._calls, self._embeds)

    async def aclose(self) -> None:
        await self._calls.connections.aclose()
        await self._embeds.connections.aclose()

    def _reading(self, asked: bool, content_type: str) -> Reading:
        form = framing(self._config.stream, content_type, asked)
        if form == "text":
            return Reading(TextDecoder(content_type == "text/plain"), edge.PlainText(self._place))
        decoder = PromptDecoder(self._shape, self._place)
        if form == "sse":
            return Reading(decoder, SSEDecoder())
        if form == "ndjson":
            return Reading(decoder, LineDecoder())
        if form == "whole":
            return Reading(decoder)
        raise unreadable(content_type, self._place)

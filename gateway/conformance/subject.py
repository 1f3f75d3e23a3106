"""The endpoint as the checks see it: asked in the gateway's words, answering with text.

Rule: what is asked goes through the same renaming of fields as in the gateway, so that a check that passes
says something about the configuration that is printed.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gateway.conformance.client import Client, Reply
from gateway.conformance.fit import Fit
from gateway.conformance.reading import Answer, read
from gateway.upstreams.body import rename

SAMPLE = "Please count to 12"
"""A question that every model answers with a few words or more."""

STEADY: Mapping[str, Any] = {"temperature": 0.01, "seed": 7}
"""As close to the same answer each time as every server allows; some refuse a temperature of 0."""


class Subject:
    """One endpoint; ``fit`` grows while the first checks find out how to ask."""

    def __init__(self, client: Client, nonce: str) -> None:
        self.client = client
        self.nonce = nonce  # a word that no answer holds by chance
        self.fit = Fit()
        self.sample: Answer | None = None  # the whole answer to ``SAMPLE``
        self.stream: Answer | None = None  # the streamed one; None: it does not stream
        self.shapeless = False  # it refuses, whatever the body: no such place, nobody let in

    def body(self, prompt: Any, fields: Mapping[str, Any] | None = None) -> dict[str, Any]:
        return rename({"prompt": prompt, **(fields or {})}, self.fit.request_fields)

    async def post(self, prompt: Any, fields: Mapping[str, Any] | None = None) -> Reply:
        return await self.client.post(self.body(prompt, fields))

    async def ask(self, prompt: str, fields: Mapping[str, Any] | None = None) -> Answer:
        """Raises ``NoAnswer``, ``Refused``, ``NoText``."""
        return read(await self.post(prompt, fields), prompt, self.fit.response_field)

    def text(self, answer: Answer) -> str:
        """The text of an answer; where the prompt is repeated, with that copy."""
        return answer.text(cumulative=self.fit.cumulative and answer.framing != "whole")

    def said(self, answer: Answer, prompt: str) -> str:
        """The text after a leading copy of the prompt."""
        return self.text(answer).removeprefix(prompt)

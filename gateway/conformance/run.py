"""All checks in order, against one endpoint.

Rule: the first check decides what there is to check: a text, or else vectors, or nothing. A check that gets
no answer is wrong, and the next one is made all the same; time is bounded for one request and for all of
them.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

import httpx

from gateway.conformance import checks, embedding, meeting
from gateway.conformance.client import Client, NoAnswer, Waiting
from gateway.conformance.fit import Credentials, configuration
from gateway.conformance.reading import NoText
from gateway.conformance.subject import Subject
from gateway.conformance.verdict import Result, Verdict, inconclusive, unsupported, wrong

Check: TypeAlias = Callable[[Subject], Awaitable[Verdict]]

CHECKS: Mapping[str, Check] = {
    "streamed": meeting.streamed,
    "end of a stream": checks.end,
    "fields": meeting.fields,
    "echo": checks.echo,
    "stops": checks.stops,
    "max_tokens": checks.length,
    "usage": checks.usage,
    "unicode": checks.unicode,
    "BOS": checks.bos,
    "errors": checks.errors,
    "unknown fields": checks.unknown,
    "parallel": checks.parallel,
    "cancel": checks.cancel,
}
"""What is asked of an endpoint that answered a prompt."""

EMBEDDING: Mapping[str, Check] = {
    "embeddings": embedding.whole,
    "order": embedding.single,
    "usage": embedding.usage,
    "errors": checks.errors,
    "unknown fields": embedding.unknown,
    "parallel": embedding.parallel,
    "cancel": embedding.cancel,
}
"""What is asked of one that answers with vectors alone."""

ALL = 4  # times the time of one request, once there was an answer

AT_ONCE = Waiting()
"""There is a container already."""


@dataclass(frozen=True, slots=True)
class Report:
    """``config`` is what the gateway needs; None where the endpoint gives neither text nor vectors."""

    verdicts: Mapping[str, Verdict]
    config: Mapping[str, Any] | None
    requests: int

    @property
    def good(self) -> bool:
        return not any(verdict.result is Result.WRONG for verdict in self.verdicts.values())


async def examine(url: str, credentials: Credentials, patience: float, waiting: Waiting = AT_ONCE) -> Report:
    """Make every check; ``patience``: seconds for one request, the first may also wait for a container.

    Raises ``NoAnswer`` where the endpoint gives no answer at all, not even a refusal, or has no container.
    """
    async with httpx.AsyncClient(headers=credentials.sent(), timeout=patience, trust_env=False) as http:
        subject = Subject(Client(http, url, patience, waiting), f"zq{secrets.token_hex(4)}")
        whole = await meeting.whole(subject)
        ends = asyncio.get_running_loop().time() + ALL * patience
        if subject.sample is not None:
            suite = CHECKS
        elif not subject.shapeless and await embedding.embeds(subject):
            suite = EMBEDDING
            whole = unsupported(f"takes no prompts, only texts to embed ({whole.why})")
        else:
            return Report({"whole": whole}, None, subject.client.requests)
        made = {name: await _made(check, subject, ends) for name, check in suite.items()}
        config = configuration(url, credentials, subject.fit if suite is CHECKS else None)
        return Report({"whole": whole, **made}, config, subject.client.requests)


async def _made(check: Check, subject: Subject, ends: float) -> Verdict:
    try:
        async with asyncio.timeout_at(ends):
            return await check(subject)
    except TimeoutError:
        return inconclusive("no time was left")
    except (NoAnswer, NoText) as exc:
        return wrong(str(exc))

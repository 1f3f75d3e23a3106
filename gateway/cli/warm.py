"""``warm``: have a model's container started, and wait until it is ready.

Rule: nothing is generated. From here it goes straight to the model's first upstream; with a gateway's address
that gateway does it, and knows the state from then on. What is shown on the way goes to standard error.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeAlias
from urllib.parse import quote

import httpx

from gateway.cli import show
from gateway.cli.progress import Tell, told
from gateway.cli.show import CommandError
from gateway.cli.sources import Source
from gateway.core.errors import GatewayError
from gateway.models import deployment
from gateway.pages.admin import progress
from gateway.settings import Model, Settings

SILENCE = 30.0  # seconds; a gateway says something each second
AWAKE = {"warm": "warm", "started": "a container has started, its model may still be loading,"}
"""The states of a last line, in words."""

Lines: TypeAlias = AsyncGenerator[dict[str, Any], None]
"""Progress, as the admin API gives it. Raises ``NotWarm``, or ``CommandError`` if nothing was tried."""


class NotWarm(Exception):
    """No container got ready; the message says why."""


@dataclass(slots=True, frozen=True)
class Gateway:
    """A running gateway, and the key of its admin API."""

    url: str
    key: str | None


def warm(name: str, lines: Lines, timeout: float | None, *, json: bool) -> int:
    """Follow ``lines`` of the model ``name``, for at most ``timeout`` seconds; the exit code."""
    try:
        if json:
            asyncio.run(_follow(lines, timeout, _print_line))
            return 0
        with told(name) as tell:
            last = asyncio.run(_follow(lines, timeout, partial(_unless_awake, tell)))
    except NotWarm as exc:
        if json:
            _print_line({"error": {"message": str(exc)}})
        show.error(str(exc))
        return 1
    print(f"{show.green(AWAKE[last['state']])} after {last['elapsed']:.1f} s")
    return 0


def _unless_awake(tell: Tell, line: dict[str, Any]) -> None:
    """What is awake is said by the result."""
    if line["state"] not in AWAKE:
        tell(line)


async def woken_here(source: Source, name: str, limit: float | None) -> Lines:
    """By the first upstream of the model, which gets ``limit`` seconds in place of its own."""
    settings = source.settings()
    name, model = _named(settings, name)
    first = model.upstreams[0]
    if limit is not None and "first_event_timeout" in type(first).model_fields:
        first = first.model_copy(update={"first_event_timeout": limit})
    alone = model.model_copy(update={"upstreams": (first,)})
    target = deployment(name, alone, source.folder).upstreams[0]
    try:
        async with aclosing(progress(target, time.monotonic)) as lines:
            async for line in lines:
                yield line
    except GatewayError as error:
        raise NotWarm(error.message) from None
    finally:
        await target.aclose()


async def woken_there(gateway: Gateway, name: str) -> Lines:
    """By a running gateway's admin API."""
    root = gateway.url.rstrip("/").removesuffix("/v1")
    url = f"{root}/admin/models/{quote(name)}/warm"
    headers = {"content-type": "application/json"}
    if gateway.key:
        headers["authorization"] = f"Bearer {gateway.key}"
    try:
        client = httpx.AsyncClient(timeout=SILENCE, headers=headers, trust_env=False)
        async with client, client.stream("POST", url) as answer:
            if answer.status_code != 200:
                raise _refusal(await answer.aread(), answer.status_code)
            async for text in answer.aiter_lines():
                yield _line(text)
    except (httpx.HTTPError, httpx.InvalidURL) as exc:
        raise CommandError(f"{gateway.url} cannot be asked: {str(exc) or type(exc).__name__}") from None
    except (ValueError, LookupError, TypeError):
        raise CommandError(f"what is at {gateway.url} does not answer as a gateway") from None


def _line(text: str) -> dict[str, Any]:
    """Raises ``NotWarm`` where it says so, and what Python raises where it is no line of ours."""
    line = json.loads(text)
    if "error" in line:
        raise NotWarm(line["error"]["message"])
    return {name: line[name] for name in ("state", "elapsed", "expected")}


def _named(settings: Settings, name: str) -> tuple[str, Model]:
    for known, model in settings.models.items():
        if name in (known, *model.aliases):
            return known, model
    raise CommandError(f"there is no model {name}; there are {', '.join(settings.models)}")


def _refusal(body: bytes, status: int) -> NotWarm | CommandError:
    """What an answer without progress means: below 500 nothing was tried."""
    try:
        said = str(json.loads(body)["error"]["message"])
    except (ValueError, LookupError, TypeError):
        return CommandError(f"the gateway answered {status}; is there an older one, or something else?")
    return NotWarm(said) if status >= 500 else CommandError(said)


async def _follow(lines: Lines, limit: float | None, tell: Tell) -> dict[str, Any]:
    """The last line, which says that a container is awake. Raises ``NotWarm``."""
    line: dict[str, Any] = {}
    try:
        async with asyncio.timeout(limit), aclosing(lines):
            async for line in lines:
                tell(line)
    except TimeoutError:
        raise NotWarm(f"it was not ready within {limit:g} s") from None
    if line.get("state") not in AWAKE:
        raise NotWarm("the gateway ended before a container was ready")
    return line


def _print_line(line: dict[str, Any]) -> None:
    print(json.dumps(line), flush=True)

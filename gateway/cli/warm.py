"""``warm``: have a model's container started, and wait until it is ready.

Rule: nothing is generated. From here it goes straight to the model's first upstream; with a gateway's address
that gateway does it, and knows the state from then on. What is shown on the way goes to standard error.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any, TypeAlias
from urllib.parse import quote

import httpx

from gateway.cli import show
from gateway.cli.show import CommandError
from gateway.cli.sources import Source
from gateway.core.errors import GatewayError
from gateway.models import deployment
from gateway.pages.admin import progress
from gateway.settings import Model, Settings

SILENCE = 30.0  # seconds; a gateway says something each second
BAR = 24  # characters
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


def warm(lines: Lines, timeout: float | None, *, json: bool) -> int:
    """Follow ``lines``, for at most ``timeout`` seconds; the exit code."""
    try:
        asyncio.run(_follow(lines, timeout, as_json=json))
    except NotWarm as exc:
        if json:
            _print_line({"error": {"message": str(exc)}})
        show.error(str(exc))
        return 1
    return 0


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
        client = httpx.AsyncClient(timeout=SILENCE, headers=headers)
        async with client, client.stream("POST", url) as answer:
            if answer.status_code != 200:
                raise NotWarm(_why(await answer.aread(), answer.status_code))
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


def _why(body: bytes, status: int) -> str:
    try:
        return str(json.loads(body)["error"]["message"])
    except (ValueError, LookupError, TypeError):
        return f"the gateway answered {status}; is there an older one, or something else?"


async def _follow(lines: Lines, limit: float | None, *, as_json: bool) -> None:
    line: dict[str, Any] = {}
    shown = sys.stderr.isatty() and not as_json
    try:
        async with asyncio.timeout(limit), aclosing(lines):
            async for line in lines:
                if as_json:
                    _print_line(line)
                elif shown and line["state"] not in AWAKE:
                    print(f"\r\x1b[K{drawn(line)}", end="", file=sys.stderr, flush=True)
    except TimeoutError:
        raise NotWarm(f"it was not ready within {limit:g} s") from None
    finally:
        if shown:
            print("\r\x1b[K", end="", file=sys.stderr, flush=True)
    if line.get("state") not in AWAKE:
        raise NotWarm("the gateway ended before a container was ready")
    if not as_json:
        print(f"{AWAKE[line['state']]} after {line['elapsed']:.1f} s")


def drawn(line: dict[str, Any]) -> str:
    """One line of a terminal; with a bar where it is known how long it takes as a rule."""
    elapsed, usual = line["elapsed"], line["expected"]
    text = f"{line['state']}  {elapsed:.0f} s"
    if not usual:
        return text
    done = min(int(BAR * elapsed / usual), BAR)
    return f"{text}  [{'#' * done}{'.' * (BAR - done)}]  of about {usual:.0f} s"


def _print_line(line: dict[str, Any]) -> None:
    print(json.dumps(line), flush=True)

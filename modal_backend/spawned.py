"""Answer a call that came through Modal's SDK: the contract's dict whole, or its events written in batches.

Rule: the same answers as over HTTP. What fails is an error of the contract, in the dict or as the last
event, so that a caller needs none of our classes to read it. Cancelling the call closes the engine's
iterator. Pieces that wait to be written are bounded. Knows nothing about queues, but that writing takes time.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Mapping
from contextlib import aclosing
from typing import Any, TypeAlias

from modal_backend import answers
from modal_backend.contract import told
from modal_backend.engine import BadRequest, Engine, EngineDead, Generates
from modal_backend.fields import ToContinue, ToEmbed, read

WAITING = 1000  # events that wait while others are written; then the engine waits too
BATCH = 256  # events written at once

Write: TypeAlias = Callable[[list[bytes]], Awaitable[None]]
"""Takes the next events, each the JSON of one, or ``[DONE]``; returns once they are written."""


async def whole(engine: Engine, body: Mapping[str, Any]) -> dict[str, Any]:
    """The answer as the contract has it, or its error."""
    try:
        generates, asked = _asked(engine, body)
        collected = answers.Collected(asked)
        async with aclosing(answers.answer(generates, asked)) as items:
            async for item in items:
                if isinstance(item, answers.End):
                    made: dict[str, Any] = json.loads(collected.body(item))
                    return made
                collected.add(item)
        raise EngineDead("the engine ended without a finish reason")
    except Exception as error:  # noqa: BLE001 - the boundary: an engine may fail in any way its library does
        failed: dict[str, Any] = json.loads(answers.error_body(*told(error)))
        return failed


async def streamed(engine: Engine, body: Mapping[str, Any], write: Write) -> None:
    """Write the events of the answer as they are made; raises only what ``write`` raises."""
    waiting: asyncio.Queue[bytes | None] = asyncio.Queue(WAITING)
    try:
        async with asyncio.TaskGroup() as group:
            group.create_task(_send(waiting, write))
            await _make(engine, body, waiting)
    except BaseExceptionGroup as failed:
        raise failed.exceptions[0] from None


async def _make(engine: Engine, body: Mapping[str, Any], waiting: asyncio.Queue[bytes | None]) -> None:
    try:
        generates, asked = _asked(engine, body)
        async with aclosing(answers.answer(generates, asked)) as items:
            async for item in items:
                for event in _events(answers.event(item, asked)):
                    await waiting.put(event)
    except Exception as error:  # noqa: BLE001 - as in whole
        for event in _events(answers.error_event(*told(error))):
            await waiting.put(event)
    await waiting.put(None)


async def _send(waiting: asyncio.Queue[bytes | None], write: Write) -> None:
    """Write what waits, as much at once as has gathered meanwhile."""
    ended = False
    while not ended:
        batch = [await waiting.get()]
        while len(batch) < BATCH and not waiting.empty():
            batch.append(waiting.get_nowait())
        events = [event for event in batch if event is not None]
        ended = len(events) < len(batch)
        if events:
            await write(events)


def _asked(engine: Engine, body: Mapping[str, Any]) -> tuple[Generates, ToContinue]:
    if fault := engine.fault():
        raise EngineDead(fault)
    try:
        data = json.dumps(body).encode()
    except (TypeError, ValueError, RecursionError):
        raise BadRequest("the request is not plain data that JSON can hold") from None
    asked = read(data, engine.about.honours)
    if isinstance(asked, ToEmbed):
        raise BadRequest("embeddings are made over the web alone: POST `input` there")
    if not isinstance(engine, Generates):
        raise BadRequest(f"the engine {engine.about.name} continues no prompts")
    return engine, asked


def _events(framed: bytes) -> list[bytes]:
    """Without the frame of server-sent events: JSON holds no line break."""
    return [line.removeprefix(b"data: ") for line in framed.split(b"\n") if line]

"""Word of a changed key, by Redis, to every gateway that listens.

Rule: only speeds things up: who hears nothing polls a little later. Nothing is said but that something
changed, so that nothing can be forged. Nobody waits for a Redis that does not answer, and a line that is
silent is asked whether it still stands. redis-py is imported where it is used.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from contextlib import suppress

from pydantic import SecretStr

from gateway.core.errors import KeysUnavailable

CHANNEL = "modal-gateway:keys"
PATIENCE = 1.0  # seconds for each answer of Redis, and between two tries to listen
ALIVE = 10.0  # seconds of silence until a line is asked whether it stands

log = logging.getLogger("gateway")


def tell(url: SecretStr) -> None:
    """Say that a key has changed; for threads. Never raises."""
    try:
        from redis import Redis
        from redis.backoff import NoBackoff
        from redis.exceptions import RedisError
        from redis.retry import Retry
    except ModuleNotFoundError:  # of the command line; a gateway does not start without
        log.warning("Redis needs its driver: gateways learn of a changed key when they look next")
        return
    try:
        with Redis.from_url(
            url.get_secret_value(),
            socket_timeout=PATIENCE,
            socket_connect_timeout=PATIENCE,
            retry=Retry(NoBackoff(), 0),
            protocol=2,
        ) as client:
            client.publish(CHANNEL, b"")
    except (RedisError, OSError, ValueError):
        log.warning("Redis does not answer: other gateways learn of a changed key when they look next")


async def listen(url: SecretStr, look: Callable[[], Awaitable[None]]) -> None:
    """Call ``look`` whenever a key has changed, until cancelled."""
    from redis.exceptions import RedisError

    while True:
        with suppress(RedisError, OSError, TimeoutError, KeysUnavailable):  # the next try is a moment away
            await _heed(url, look)
        await asyncio.sleep(PATIENCE)


async def _heed(url: SecretStr, look: Callable[[], Awaitable[None]]) -> None:
    """Over one connection; raises when it no longer stands, or ``look`` does."""
    from redis.asyncio import Redis
    from redis.asyncio.retry import Retry
    from redis.backoff import NoBackoff

    client = Redis.from_url(
        url.get_secret_value(),
        socket_timeout=PATIENCE,
        socket_connect_timeout=PATIENCE,
        retry=Retry(NoBackoff(), 0),
        protocol=2,
    )
    async with client, client.pubsub() as channel:
        await channel.subscribe(CHANNEL)
        while True:
            message = await channel.get_message(timeout=ALIVE)
            if message is None:
                await channel.ping()
                message = await channel.get_message(timeout=PATIENCE)
                if message is None:
                    raise TimeoutError
            if message["type"] in ("subscribe", "message"):  # or something was missed before
                await look()

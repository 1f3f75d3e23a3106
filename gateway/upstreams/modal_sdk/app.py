"""A deployed Modal function or class as its SDK shows it: looked up, counted, its least number of containers.

Rule: making a handle does no IO; the SDK looks it up at the first use. Nothing here starts a call. A handle
that Modal no longer knows is dropped, so that the next use looks again. A method of a class is a function
here as any other: its autoscaler is that of its class with these parameters and options (modal 1.6.4). Knows
nothing about prompts.
"""

from __future__ import annotations

import asyncio
import importlib
from collections.abc import Awaitable
from typing import Any

from gateway.upstreams import Observed
from gateway.upstreams.modal_sdk.config import ModalConfig
from gateway.upstreams.modal_sdk.errors import Where, failed, refused

ASKED = 30.0  # seconds for an answer of Modal's that no container is needed for


class App:
    """The function that a config names; ``sdk`` is the module ``modal``, or what has its shape."""

    def __init__(self, config: ModalConfig, at: str, sdk: Any = None) -> None:
        self.where = Where(at, config.named, config.keys)
        self._config = config
        self._sdk = sdk or importlib.import_module("modal")
        self._found: Any = None
        self._queue: Any = None

    @property
    def function(self) -> Any:
        """The handle whose ``spawn`` and ``remote_gen`` make calls. Raises ``GatewayError``."""
        if self._found is None:
            try:
                self._found = self._looked_up()
            except Exception as error:  # noqa: BLE001 - as in _ask
                ours = isinstance(error, self._sdk.exception.Error)
                made = failed(error, self.where, ran=False) if ours else refused(self.where, False)
                raise made from None
        return self._found

    @property
    def queue(self) -> Any:
        """The queue that streams come through."""
        if self._queue is None:
            self._queue = self._sdk.Queue.from_name(
                self._config.queue_name, environment_name=self._config.environment, create_if_missing=True
            )
        return self._queue

    async def find(self) -> None:
        """Look the function up. No container starts by it. Raises ``GatewayError``."""
        await self._ask(self.function.hydrate.aio())

    def forget(self) -> None:
        self._found = None

    async def observed(self) -> Observed:
        """What Modal counts. No container starts by it. Raises ``GatewayError``."""
        stats = await self._ask(self.function.get_current_stats.aio())
        return Observed(stats.num_total_runners, stats.backlog)

    async def least(self) -> int:
        """How many containers run at least, whoever said so. Raises ``GatewayError``."""
        settings = await self._ask(self.function.autoscaler.settings.aio())
        return settings.min_containers or 0

    async def keep(self, containers: int) -> None:
        """From now on at least so many containers run, until the next deployment. Raises ``GatewayError``."""
        await self._ask(self.function.autoscaler.update.aio(min_containers=containers))

    async def _ask(self, asked: Awaitable[Any]) -> Any:
        try:
            async with asyncio.timeout(ASKED):
                return await asked
        except Exception as error:  # noqa: BLE001 - whatever the SDK raises becomes one of our errors
            self.forget()
            raise failed(error, self.where, ran=False) from None

    def _looked_up(self) -> Any:
        config = self._config
        group = self._sdk.Function if config.function else self._sdk.Cls
        name = config.function or config.class_
        found = group.from_name(config.app, name, version=config.version, environment_name=config.environment)
        if config.options:
            found = found.with_options(**config.options)
        return found if config.function else getattr(found(**config.parameters), config.method or "")

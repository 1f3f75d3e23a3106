"""A deployed Modal function or class as its SDK shows it: looked up, counted, kept warm.

Rule: making a handle does no IO; the SDK looks it up at the first use. Nothing here starts a call. A handle
that Modal no longer knows is dropped, so that the next use looks again. Knows nothing about prompts.
"""

from __future__ import annotations

import asyncio
import importlib
import warnings
from collections.abc import Awaitable
from typing import Any

from gateway.upstreams import Observed
from gateway.upstreams.modal_sdk.config import ModalConfig
from gateway.upstreams.modal_sdk.errors import Where, failed, refused

ASKED = 30.0  # seconds for an answer of Modal's that no container is needed for

# An instance of a class has no other way to say it (modal 1.6.4, Obj.update_autoscaler).
_DEPRECATED = r"(?s).*Function\.update_autoscaler\(\)` is deprecated"


class App:
    """The function that a config names; ``sdk`` is the module ``modal``, or what has its shape."""

    def __init__(self, config: ModalConfig, at: str, sdk: Any = None) -> None:
        self.where = Where(at, config.named, config.keys)
        self._config = config
        self._sdk = sdk or importlib.import_module("modal")
        self._found: tuple[Any, Any] | None = None  # the function, and the class's instance if it has one
        self._queue: Any = None
        warnings.filterwarnings("ignore", _DEPRECATED)

    @property
    def function(self) -> Any:
        """The handle whose ``spawn`` and ``remote_gen`` make calls."""
        return self._handles()[0]

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

    async def keep(self, containers: int) -> None:
        """From now on at least so many containers run, until the next deployment. Raises ``GatewayError``."""
        function, instance = self._handles()
        update = function.autoscaler.update if instance is None else instance.update_autoscaler
        await self._ask(update.aio(min_containers=containers))

    async def _ask(self, asked: Awaitable[Any]) -> Any:
        try:
            async with asyncio.timeout(ASKED):
                return await asked
        except Exception as error:  # noqa: BLE001 - whatever the SDK raises becomes one of our errors
            self.forget()
            raise failed(error, self.where, ran=False) from None

    def _handles(self) -> tuple[Any, Any]:
        if self._found is None:
            try:
                self._found = self._looked_up()
            except Exception as error:  # noqa: BLE001 - as in _ask
                ours = isinstance(error, self._sdk.exception.Error)
                made = failed(error, self.where, ran=False) if ours else refused(self.where, False)
                raise made from None
        return self._found

    def _looked_up(self) -> tuple[Any, Any]:
        config = self._config
        group = self._sdk.Function if config.function else self._sdk.Cls
        name = config.function or config.class_
        found = group.from_name(config.app, name, version=config.version, environment_name=config.environment)
        if config.options:
            found = found.with_options(**config.options)
        if config.function:
            return found, None
        instance = found(**config.parameters)
        return getattr(instance, config.method or ""), instance

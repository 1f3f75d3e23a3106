"""What goes on beside the requests: containers looked at and kept warm, keys kept up, idle time booked.

Rule: begins and ends with the application; what fails is logged and goes on. A new configuration is taken
over here, between two steps of the event loop: whoever is being answered goes on with the upstreams they had,
which are closed once nobody can call them any more. Knows nothing about requests.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from functools import partial
from typing import Any, Protocol, TypeAlias

from gateway.core.errors import KeysUnavailable, LedgerUnavailable
from gateway.fleet import Fleet, Member
from gateway.identity.tokens import Tokens
from gateway.keys import push
from gateway.keys.key_cache import KeyCache
from gateway.ledger import Ledger
from gateway.limits.means import LAST, Took
from gateway.routing.observations import Sightings
from gateway.routing.routes import Routes
from gateway.serve.images import Images
from gateway.serve.retention import Retain
from gateway.serve.service import Service
from gateway.settings import Admin, Settings
from gateway.store.config import Redis, Store
from gateway.telemetry.trace import Spans
from gateway.warming.schedules import Rota, Schedule, schedules

CLOSE = 20.0  # seconds for each upstream at the end
AGAIN = 1.0  # seconds after a chore failed
WELL = 60.0  # seconds after which one that failed goes well again
RECALL = 2.0  # seconds for what the ledger knows of models at the start; then it is asked again beside
BOOK = 2.0  # seconds between two looks for containers that have stopped waiting
RETIRE = 0.5  # seconds between two looks whether an upstream that is gone may still be used
FIXED = {
    "server": ("cors_origins", "drain_timeout", "leave_delay", "log", "public", "show_wire"),
    "auth": ("mode",),
    "admin": tuple(Admin.model_fields),
    "store": tuple(Store.model_fields),
    "redis": tuple(Redis.model_fields),
    "tracing": tuple(Spans.model_fields),
    "responses": tuple(Retain.model_fields),
}
"""Keys that count only after a restart, by their section."""

log = logging.getLogger("gateway")


Chore: TypeAlias = Callable[[], Coroutine[Any, Any, None]]
"""Makes what goes on until it is cancelled."""


class Closes(Protocol):
    """What is closed at the end."""

    async def aclose(self) -> None: ...


class Upkeep:
    """``tokens`` are those of identity providers; no ``ledger`` where nothing is kept."""

    def __init__(
        self, service: Service, fleet: Fleet, key_cache: KeyCache, ledger: Ledger | None, tokens: Tokens
    ) -> None:
        self.sightings = Sightings(service.world.monotonic)
        self._service = service
        self._fleet = fleet
        self._key_cache = key_cache
        self._ledger = ledger
        self._tokens = tokens
        self._rota = Rota(service.world.time)
        self._recalled: set[str] = set()  # models
        self._retiring: set[asyncio.Task[None]] = set()
        self._adopting = asyncio.Lock()

    @asynccontextmanager
    async def going(self, settings: Settings, more: Mapping[str, Chore]) -> AsyncIterator[None]:
        """Everything goes on inside, and ``more`` chores by their names; afterwards all is closed."""
        async with AsyncExitStack() as stack:
            stack.push_async_callback(self._close)
            if self._ledger is not None:
                await self._ledger.start()
                stack.push_async_callback(self._ledger.aclose)
                with suppress(TimeoutError):
                    await asyncio.wait_for(self._recall(self._ledger), RECALL)
            await stack.enter_async_context(self._service.books.leases.running())
            stack.push_async_callback(self._end_retiring)
            if self._key_cache.stored:
                with suppress(KeysUnavailable):  # the cache says so itself
                    await self._key_cache.look()
            stack.callback(self._book_idle, all=True)
            chores = {**self._chores(settings), **more}
            tasks = [asyncio.get_running_loop().create_task(_kept_up(*chore)) for chore in chores.items()]
            stack.push_async_callback(_end, tasks)
            stack.push_async_callback(self._rota.keep, ())
            await self._rota.keep(self._schedules(settings, self._service.routes))
            yield

    async def adopt(self, old: Settings, new: Settings) -> list[str]:
        """Serve by ``new`` from now on; the keys of it that count only after a restart.

        Raises ``ConfigError``; nothing has changed then.
        """
        async with self._adopting:
            plan = await asyncio.to_thread(self._fleet.plan, new)
            service, kept = self._service, self._schedules(new, plan.routes)
            images = Images(new.server.image_hosts)
            gone, earlier = self._fleet.adopt(plan), frozenset(service.answering)
            service.routes, service.models = plan.routes, new.models
            if service.limits.image_hosts != new.server.image_hosts:
                service.images = images
            service.limits = new.server
            service.books.leases.scopes.teams = new.teams
            if new.auth.mode == old.auth.mode:  # else its keys wait for the restart, too
                self._key_cache.configure(new.auth)
                self._tokens.configure(new.auth.oidc)
            try:
                await self._rota.keep(kept)  # before what is gone is closed: its platform has to be told
            except Exception:
                log.exception("models.*.warm: the hours of the new configuration are not kept")
            finally:
                self._retire(gone, earlier)
            return fixed(old, new)

    def _schedules(self, settings: Settings, routes: Routes) -> list[Schedule]:
        return schedules(settings.models, routes.deployments.values())

    # --- upstreams that no configuration names any more ---

    def _retire(self, gone: Sequence[Member], earlier: frozenset[str]) -> None:
        for member in gone:
            task = asyncio.get_running_loop().create_task(self._retired(member, earlier))
            self._retiring.add(task)
            task.add_done_callback(self._retiring.discard)

    async def _retired(self, member: Member, earlier: frozenset[str]) -> None:
        """Close it once none of these ``earlier`` requests is left, since any of them may still call it."""
        try:
            while member.target.pending or not earlier.isdisjoint(self._service.answering):
                await asyncio.sleep(RETIRE)  # the end of a request is told to nobody
                self._book_tails(member, all=False)
        finally:
            self._book_tails(member, all=True)
            await asyncio.shield(asyncio.get_running_loop().create_task(close_all(member.target)))

    async def _end_retiring(self) -> None:
        await _end(list(self._retiring))

    # --- the chores ---

    def _chores(self, settings: Settings) -> dict[str, Chore]:
        chores: dict[str, Chore] = {
            "booking idle time": self._idling,
            "looking at containers": lambda: self.sightings.watch(lambda: self._fleet.targets),
            "keeping up keys of identity providers": self._tokens.watch,
        }
        if (ledger := self._ledger) is not None:
            chores["recalling requests"] = lambda: self._recalling(ledger)
        if self._key_cache.stored:
            chores["keeping up keys"] = lambda: self._key_cache.watch(settings.store.revocation_poll)
            if (redis := settings.redis.url) is not None:
                chores["listening to Redis"] = lambda: push.listen(redis, self._key_cache.look)
        return chores

    async def _recalling(self, ledger: Ledger) -> None:
        while True:
            await self._recall(ledger)
            await asyncio.sleep(RECALL)

    async def _recall(self, ledger: Ledger) -> None:
        """Learn of the ledger, once for each model, what its requests take. Those of a reload are new."""
        from gateway.ledger.queries import lately

        with suppress(LedgerUnavailable):  # it is asked again
            for name, model in list(self._service.routes.deployments.items()):
                if name not in self._recalled:
                    took = await ledger.ask(partial(lately, model=name, most=LAST))
                    self._service.books.recall(model, map(Took._make, took))
                    self._recalled.add(name)

    async def _idling(self) -> None:
        """Book the time that containers waited for nobody, as it ends."""
        while True:
            await asyncio.sleep(BOOK)
            self._book_idle(all=False)

    def _book_idle(self, *, all: bool) -> None:
        for member in self._fleet.members:
            self._book_tails(member, all=all)

    def _book_tails(self, member: Member, *, all: bool) -> None:
        """What cannot be booked keeps nobody else's from it."""
        try:
            if tails := member.target.idled(all=all):
                self._service.books.idle(member.model, member.target, tails)
        except Exception:
            log.exception("idle time of %s could not be booked", member.target.name)

    async def _close(self) -> None:
        self._key_cache.close()
        await close_all(self.sightings, self._tokens, *self._fleet.targets)


async def _kept_up(name: str, chore: Chore) -> None:
    """Begin it again whenever it fails, until cancelled; that is said once until it has gone well again."""
    time, well = asyncio.get_running_loop().time, True
    while True:
        began = time()
        try:
            await chore()
            well = True
        except Exception:
            if well or time() - began >= WELL:
                log.exception("%s failed; it begins again", name)
            well = False
        await asyncio.sleep(AGAIN)


async def _end(tasks: list[asyncio.Task[None]]) -> None:
    for task in tasks:
        task.cancel()
    if tasks:
        await asyncio.wait(tasks)


async def close_all(*closing: Closes) -> None:
    """At once, and within ``CLOSE``; one that fails or hangs keeps no other open."""
    bounded: list[Coroutine[Any, Any, None]] = [asyncio.wait_for(each.aclose(), CLOSE) for each in closing]
    for outcome in await asyncio.gather(*bounded, return_exceptions=True):
        if isinstance(outcome, Exception):
            log.error("not everything could be closed", exc_info=outcome)


def fixed(old: Settings, new: Settings) -> list[str]:
    """Keys that differ and count only after a restart."""
    return [
        f"{section}.{key}"
        for section, keys in FIXED.items()
        for key in keys
        if getattr(getattr(old, section), key) != getattr(getattr(new, section), key)
    ]

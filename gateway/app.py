"""From settings to one ASGI application.

Rule: wiring only. Hot routes are ASGI endpoints in front of FastAPI, which serves everything else;
authentication is called by whatever serves a route, so that no path can slip past it.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import NamedTuple

from fastapi import FastAPI

from gateway.auth import Keys
from gateway.dispatch import HOT, OLD, PROMPTS, TEXTS, TURNS, App, Dispatch, cors
from gateway.fleet import Fleet
from gateway.keys import push
from gateway.keys.book import Book
from gateway.keys.desk import Desk
from gateway.keys.pages import KeyPages
from gateway.keys.running import Running
from gateway.ledger import Ledger
from gateway.ledger.pages import UsagePages
from gateway.lifespan import Upkeep
from gateway.limits.leases import Leases
from gateway.limits.limiter import Limiter
from gateway.limits.memory import Memory as Counts
from gateway.limits.rules import Amount, Kind
from gateway.pages.admin import Admin
from gateway.pages.application import Lifespan, cold_routes
from gateway.pages.public import Pages
from gateway.pages.token_check import TokenCheck
from gateway.reload import Reloader
from gateway.serve import count_tokens as counting
from gateway.serve import embeddings, responses
from gateway.serve.api import Api
from gateway.serve.books import Books
from gateway.serve.images import Images
from gateway.serve.retention import Memory
from gateway.serve.service import Service
from gateway.serve.surfaces import CHAT, COMPLETIONS, MESSAGES, PROMPT
from gateway.settings import ConfigError, Settings
from gateway.telemetry.lines import Style
from gateway.telemetry.metrics import Metrics
from gateway.telemetry.telemetry import Telemetry, telemetry
from gateway.world import World


def _ids() -> Iterator[str]:
    """Ids of 24 hexadecimal digits; the system is asked for the randomness of many at once."""
    while True:
        digits = secrets.token_hex(12 * 256)
        yield from (digits[at : at + 24] for at in range(0, len(digits), 24))


WORLD = World(time=time.time, monotonic=time.monotonic, new_id=_ids().__next__)


@dataclass(slots=True, frozen=True)
class Site:
    """Where a gateway serves. ``folder`` is where relative paths of the configuration start."""

    folder: Path
    loopback: bool = False  # only this machine can connect
    any_host: bool = False  # without keys too, whatever a request calls us
    workers: int = 1  # processes like this one
    store: bool = False  # there are keys in the store, and a ledger
    log: Style | None = None  # of a line for each request
    shared: Path | None = None  # folder in which the workers find each other
    reloader: Reloader | None = None  # of the configuration, where it may change


def build_app(
    settings: Settings,
    *,
    folder: Path | None = None,
    loopback: bool = False,
    any_host: bool = False,
    world: World = WORLD,
) -> App:
    """The gateway as an ASGI application that keeps nothing.

    ``folder`` is where the config's relative paths start; ``loopback`` says that only this machine can
    connect, which opens ``/metrics``, ``/docs`` and ``/openapi.json`` without a key. Without keys, only
    requests that name this machine as their host are served, unless ``any_host``.
    """
    return application(settings, Site(folder or Path.cwd(), loopback, any_host), world)


def build_service(settings: Settings, folder: Path) -> Service:
    """What requests need, for who looks at them without serving any. Raises ``ConfigError``."""
    return _furnished(settings, Site(folder), Telemetry(Metrics()), WORLD).service


def application(settings: Settings, site: Site, world: World = WORLD) -> App:
    """The gateway as an ASGI application. Raises ``ConfigError``."""
    observed = telemetry(site.log, site.shared, settings.tracing)
    service, upkeep, book, desk, ledger = _furnished(settings, site, observed, world)
    retain = settings.responses
    shelves = responses.Shelves(Memory(retain, world.monotonic), keeps=retain.retain > 0)
    cold = cold_routes(_going(settings, site, upkeep, observed))
    Pages(service, observed.exposition, public=site.loopback or settings.server.public).add_to(cold)
    admin = Admin(service, settings, upkeep.sightings, loopback=site.loopback)
    admin.add_to(cold)
    KeyPages(admin, book, desk, lambda: service.books.leases.teams).add_to(cold)
    if ledger is not None:
        UsagePages(admin.admit, ledger, world.time).add_to(cold)
    responses.ResponsePages(service.keys, shelves).add_to(cold)
    TokenCheck(service).add_to(cold)
    shared = cors(settings.server.cors_origins)
    chat = shared(Api(service, CHAT))
    hot = {
        HOT: chat,
        TEXTS: shared(Api(service, COMPLETIONS)),
        PROMPTS: shared(Api(service, PROMPT)),
        embeddings.PATH: shared(embeddings.Embeddings(service)),
        responses.PATH: shared(Api(service, responses.surface(shelves, world.time))),
        OLD: chat,
        TURNS: shared(Api(service, MESSAGES)),
        counting.PATH: shared(counting.CountTokens(service)),
    }
    return Dispatch(hot, shared(cold), world.new_id)


class Furniture(NamedTuple):
    """What is made once at start; ``desk`` and ``ledger`` are None where nothing is kept."""

    service: Service
    upkeep: Upkeep
    book: Book
    desk: Desk | None
    ledger: Ledger | None


def _furnished(settings: Settings, site: Site, observed: Telemetry, world: World) -> Furniture:
    metrics, tracing = observed.metrics, observed.tracing
    fleet = Fleet(site.folder, world.monotonic, site.workers)
    plan = fleet.plan(settings)
    fleet.adopt(plan)
    metrics.watch(lambda: fleet.targets)
    kept = site.store and settings.store.url is not None
    ledger = Ledger(settings.store, site.folder) if kept else None
    tell = partial(push.tell, settings.redis.url) if settings.redis.url is not None else None
    desk = Desk(settings.store.url, site.folder, tell) if kept else None
    book = Book(settings.auth, desk, world.monotonic, lambda id: running.end(id))
    running = Running(book.opens)
    leases = Leases(_limiter(settings, site, world), settings.teams, partial(_spent, ledger), world.time)
    service = Service(
        limits=settings.server,
        keys=Keys(settings.auth, any_host=site.any_host, known=book, time=world.time),
        routes=plan.routes,
        world=world,
        began=metrics.began,
        observe=observed.observers,
        books=Books(leases, world, ledger, content=settings.store.log_content),
        models=settings.models,
        images=Images(settings.server.image_hosts),
        running=running,
        keeps=settings.store.log_content or settings.tracing.content,
    )
    if tracing is not None:
        service.trace, service.traced = tracing.begin, tracing.observe
    metrics.keep(service.books)
    metrics.streaming(lambda: service.streams)
    return Furniture(service, Upkeep(service, fleet, book, ledger), book, desk, ledger)


def _limiter(settings: Settings, site: Site, world: World) -> Limiter:
    """Of several processes that share no Redis each gives its part."""
    alone = Counts(world.monotonic, world.time, share=site.workers)
    if settings.redis.url is None:
        return alone
    try:
        from gateway.limits.redis_limiter import shared
    except ModuleNotFoundError:
        raise ConfigError("redis.url: Redis needs its driver: pip install 'modal-gateway[redis]'") from None
    try:
        return shared(settings.redis.url.get_secret_value(), alone, world.monotonic)
    except ValueError:
        raise ConfigError("redis.url: must begin with redis://, rediss:// or unix://") from None


async def _spent(ledger: Ledger | None, kind: Kind, id: str, since: float) -> Amount:
    """What budgets begin with. Where nothing is kept, they begin with the process."""
    return Amount(*await ledger.spent(kind, id, since)) if ledger is not None else Amount()


def _going(settings: Settings, site: Site, upkeep: Upkeep, observed: Telemetry) -> Lifespan:
    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        async with observed.running(), upkeep.going(settings):
            if site.reloader is None:
                yield
            else:
                async with site.reloader.going(settings, upkeep.adopt):
                    yield

    return lifespan

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
from typing import NamedTuple, Protocol

from fastapi import FastAPI

from gateway.allowances import Holder
from gateway.auth import Keys, Verifiers
from gateway.console.files import Files
from gateway.console.overview import OverviewPage, Process, Watch
from gateway.console.pages import Features, SessionPages
from gateway.console.sessions import Sessions, Tickets, secret_of
from gateway.dispatch import HOT, OLD, PROMPTS, TEXTS, TURNS, App, Dispatch, cors
from gateway.fleet import Fleet
from gateway.identity.tokens import Tokens
from gateway.keys import push
from gateway.keys.key_cache import KeyCache
from gateway.keys.key_store import KeyStore
from gateway.keys.pages import KeyPages
from gateway.keys.running import Running
from gateway.ledger import Ledger
from gateway.ledger.pages import UsagePages
from gateway.ledger.request_pages import RequestPages
from gateway.lifespan import Upkeep
from gateway.limits.leases import Leases
from gateway.limits.limiter import Limiter
from gateway.limits.memory import Memory as Counts
from gateway.limits.pages import BudgetPage
from gateway.limits.rules import Amount, Kind
from gateway.limits.scopes import Scopes
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
    tickets: Tickets | None = None  # for addresses that log in to the console
    seed: bytes | None = None  # what the workers sign its sessions with where there is no admin key
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
    made = _furnished(settings, site, observed, world)
    service = made.service
    retain = settings.responses
    shelves = responses.Shelves(Memory(retain, world.monotonic), keeps=retain.retain > 0)
    cold = cold_routes(_going(settings, site, made, observed))
    Pages(service, observed.exposition, public=site.loopback or settings.server.public).add_to(cold)
    for pages in _operators(settings, site, made, world):
        pages.add_to(cold)
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


class Routed(Protocol):
    """Handlers of routes."""

    def add_to(self, app: FastAPI) -> None: ...


class Furniture(NamedTuple):
    """What is made once at start; ``key_store`` and ``ledger`` are None where nothing is kept.

    ``sessions`` are None where there is no console; ``watch`` is what its overview shows.
    """

    service: Service
    upkeep: Upkeep
    key_cache: KeyCache
    tokens: Tokens
    sessions: Sessions | None
    watch: Watch
    key_store: KeyStore | None
    ledger: Ledger | None


def _operators(settings: Settings, site: Site, made: Furniture, world: World) -> list[Routed]:
    """The admin API, and the console, which shows it."""
    service, sessions, ledger = made.service, made.sessions, made.ledger
    admin = Admin(service, settings, made.upkeep.sightings, sessions, loopback=site.loopback)
    keys = KeyPages(admin, made.key_cache, made.key_store, lambda: service.books.leases.scopes.teams)

    async def budgeted() -> list[Holder]:
        return [*await keys.budgeted(), *made.tokens.budgeted()]

    process = Process(world.monotonic(), site.workers)
    pages: list[Routed] = [
        admin,
        keys,
        UsagePages(admin.admit, ledger, world.time, lambda: service.routes.priced),
        RequestPages(admin.admit, ledger, world.time),
        BudgetPage(admin.admit, service, budgeted, ledger),
        OverviewPage(admin.admit, service, process, made.watch, ledger),
    ]
    if sessions is None:
        return pages
    features = Features(
        settings.auth.mode, keys=made.key_store is not None, ledger=ledger is not None, workers=site.workers
    )
    tickets = site.tickets or Tickets(world.time)
    return [*pages, SessionPages(admin, sessions, tickets, features), Files()]


def _furnished(settings: Settings, site: Site, observed: Telemetry, world: World) -> Furniture:
    metrics, tracing = observed.metrics, observed.tracing
    fleet = Fleet(site.folder, world.monotonic, site.workers, show_wire=settings.server.show_wire)
    plan = fleet.plan(settings)
    fleet.adopt(plan)
    metrics.watch(lambda: fleet.targets)
    kept = site.store and settings.store.url is not None
    ledger = Ledger(settings.store, site.folder) if kept else None
    tell = partial(push.tell, settings.redis.url) if settings.redis.url is not None else None
    key_store = KeyStore(settings.store.url, site.folder, tell) if kept else None
    key_cache = KeyCache(settings.auth, key_store, world.monotonic, lambda id: running.end(id))
    tokens = Tokens(world.time, world.monotonic, lambda: running.end_dead())
    running = Running(lambda caller: key_cache.opens(caller) or tokens.opens(caller))
    tokens.configure(settings.auth.oidc)
    leases = Leases(
        _limiter(settings, site, world), Scopes(settings.teams), partial(_spent, ledger), world.time
    )
    sessions = _sessions(settings, site, world)
    verifiers = Verifiers(key_cache, tokens, sessions)
    service = Service(
        limits=settings.server,
        keys=Keys(settings.auth, verifiers, any_host=site.any_host, time=world.time),
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
    if ledger is not None:
        metrics.booking(ledger.health, ledger.refused)
    metrics.streaming(lambda: service.streams)
    upkeep = Upkeep(service, fleet, key_cache, ledger, tokens)
    watch = Watch(observed.sums, world.time, site.shared)
    return Furniture(service, upkeep, key_cache, tokens, sessions, watch, key_store, ledger)


def _sessions(settings: Settings, site: Site, world: World) -> Sessions | None:
    if not settings.admin.console:
        return None
    return Sessions(secret_of(settings.admin.key.get_secret_value(), site.seed), world.time)


def _limiter(settings: Settings, site: Site, world: World) -> Limiter:
    """Of several processes that share no Redis each gives its part."""
    kept = site.store and settings.store.url is not None
    alone = Counts(world.monotonic, world.time, share=site.workers, seeded=kept)
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


def _going(settings: Settings, site: Site, made: Furniture, observed: Telemetry) -> Lifespan:
    upkeep = made.upkeep
    more = {"keeping the overview": made.watch.keep} if made.sessions is not None else {}

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        async with observed.running(), upkeep.going(settings, more):
            if site.reloader is None:
                yield
            else:
                async with site.reloader.going(settings, upkeep.adopt):
                    yield

    return lifespan

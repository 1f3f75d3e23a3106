"""``serve``: the configuration at an address, by one process or several.

Rule: whatever can be refused is refused before the first process listens. Workers read the configuration for
themselves; what else they must know comes in one environment variable. Knows nothing about requests.
"""

from __future__ import annotations

import json
import logging
import os
import socket
import ssl
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from secrets import token_hex
from tempfile import TemporaryDirectory
from typing import NamedTuple
from urllib.parse import urlsplit

from gateway import __version__
from gateway.app import Site, application
from gateway.cli import show
from gateway.cli.address import bind, is_loopback
from gateway.cli.output import beside
from gateway.cli.show import CommandError, bold, dim
from gateway.cli.sources import (
    Source,
    callers,
    guests,
    key_line,
    refuse_open_door,
    takes_keys,
    without_auth,
)
from gateway.console.sessions import Tickets
from gateway.fleet import Fleet
from gateway.http.leaving import leaving
from gateway.http.server import App, Running, Tls, configure, ignore_replacing, settle_collector, stoppable
from gateway.http.workers import leave_with_parent, run_workers
from gateway.ledger import Ledger
from gateway.reload import Reloader, Stamp, Watch, stamp
from gateway.settings import ConfigError, Settings
from gateway.upstreams.kinds import Config
from gateway.warming.schedules import Schedule, keeping_beside, schedules

SHOWN = 20  # models named at the start
WORKER = "MODAL_GATEWAY_WORKER"  # the environment variable that workers are told by
EVERYWHERE = {"0.0.0.0": "127.0.0.1", "::": "::1"}
"""Addresses that mean every one of this machine, and the one to reach it at from here."""

log = logging.getLogger("gateway")


@dataclass(slots=True, frozen=True)
class Door:
    """Where and how connections are taken."""

    host: str
    port: int
    workers: int = 1
    tls: Tls | None = None
    insecure: bool = False  # others may come in without a key


@dataclass(slots=True, frozen=True)
class Served:
    """What one process needs in order to serve."""

    source: Source
    host: str
    loopback: bool
    insecure: bool
    workers: int
    shared: str | None = None  # folder in which the workers find each other
    seed: str | None = None  # what they sign sessions with where there is no admin key, in hex

    def app(self, settings: Settings, seen: Stamp | None, tickets: Tickets | None = None) -> App:
        """By these settings of a file that had the stamp ``seen`` before. Raises ``ConfigError``."""
        site = Site(
            self.source.folder,
            loopback=self.loopback,
            any_host=self.insecure,
            workers=self.workers,
            store=self.source.path is not None,
            reloader=self._reloader(seen),
            log=show.log_style(settings.server.log),
            shared=Path(self.shared) if self.shared is not None else None,
            tickets=tickets,
            seed=bytes.fromhex(self.seed) if self.seed is not None else None,
        )
        app = application(share(settings, self.workers), site)
        return stoppable(leaving(app, settings.server.leave_delay))

    def guard(self, settings: Settings) -> None:
        """Raises ``CommandError`` if these would leave the gateway locked, or open to anyone."""
        if callers(settings.auth) or not (guests(self.source, settings) or takes_keys(self.source, settings)):
            refuse_open_door(settings.auth, self.host, loopback=self.loopback, insecure=self.insecure)

    def read(self) -> Settings:
        """The configuration as it is now. Raises ``ConfigError``, also for what ``serve`` would refuse."""
        settings = self.source.settings()
        try:
            self.guard(settings)
        except CommandError as error:
            raise ConfigError(str(error)) from None
        return settings

    def _reloader(self, seen: Stamp | None) -> Reloader | None:
        path = self.source.path
        if path is None:
            return None
        watch = Watch(Path(path), seen) if self.workers == 1 else None
        return Reloader(lambda: share(self.read(), self.workers), watch)


class Read(NamedTuple):
    """A configuration, and the stamp that its file had before it was read."""

    seen: Stamp | None
    settings: Settings


def serve(source: Source, door: Door) -> int:
    """Serve until told to stop; the exit code."""
    seen, settings = _stamp(source), source.settings()
    with bind(door.host, door.port, "choose another with --port") as sock:
        loopback = is_loopback(sock.getsockname()[0])
        if source.path is None and not callers(settings.auth):  # `serve --url`: nobody chose how to guard it
            if not loopback and not door.insecure:
                raise CommandError(
                    f"--host {door.host} is reachable from other machines, so a key is needed. "
                    f"Create one: {key_line(settings.auth)}"
                )
            source = without_auth(source)
            settings = source.settings()
        served = Served(source, door.host, loopback, door.insecure, door.workers)
        served.guard(settings)
        return _run(served, Read(seen, settings), door, sock)


def _run(served: Served, read: Read, door: Door, sock: socket.socket) -> int:
    seen, settings = read
    tickets = Tickets(time.time)
    # Here for several workers too: what is wrong with it is said once, and now.
    app = served.app(settings, seen, tickets)
    if served.source.path is not None and settings.store.url is not None:
        Ledger(settings.store, served.source.folder).check()
    for line in _warnings(settings, served):
        show.warn(line)

    root = root_of(sock.getsockname()[:2], secure=door.tls is not None)
    console = console_lines(settings, served, root, tickets) if settings.admin.console else []
    told = banner(settings, sock.getsockname()[0], served, root, console)

    def ready() -> None:
        beside(lambda: print(told))

    drain, as_json = settings.server.drain_timeout, show.log_json(settings.server.log)
    if door.workers == 1:
        Running(configure(app, drain, door.tls, json=as_json), sock, ready).run()
        return 0
    config = configure("gateway.cli.serving:worker", drain, door.tls, door.workers, json=as_json)
    overseer = Overseer(served, read)
    shared = TemporaryDirectory(prefix="modal-gateway-", ignore_cleanup_errors=True)
    with shared as folder, overseer.keeping():
        os.environ[WORKER] = json.dumps(asdict(replace(served, shared=folder, seed=token_hex(32))))
        return 0 if run_workers(config, sock, ready, overseer) else 1


class Overseer:
    """The configuration in the process that starts the workers; models are kept warm there: only one may."""

    def __init__(self, served: Served, read: Read) -> None:
        seen, settings = read
        self._served = served
        self._source = source = served.source
        self._watch = Watch(Path(source.path), seen) if source.path is not None else None
        self._fleet = Fleet(source.folder, time.monotonic)  # of the models that are kept warm
        self._look: Callable[[], None] = lambda: None
        self._schedules = self._scheduled(settings)

    def changed(self) -> bool:
        """Whether its file has."""
        return self._watch is not None and self._watch.changed()

    def usable(self) -> bool:
        """Whether it can be taken over as it is now; if not, that is said."""
        if self._watch is None:
            return False
        self._watch.mark()
        try:
            settings = self._served.read()
            Fleet(self._source.folder, time.monotonic).plan(settings)
            self._schedules = self._scheduled(settings)
        except ConfigError as error:
            show.warn(f"the configuration was not reloaded, the old one stays: {error}")
            return False
        except Exception:
            log.exception("the configuration could not be reloaded, the old one stays")
            return False
        self._look()
        return True

    @contextmanager
    def keeping(self) -> Iterator[None]:
        """Keeps models warm inside."""
        with keeping_beside(lambda: self._schedules, time.time) as self._look:
            yield

    def _scheduled(self, settings: Settings) -> list[Schedule]:
        warm = {name: model for name, model in settings.models.items() if model.warm is not None}
        plan = self._fleet.plan(settings.model_copy(update={"models": warm, "default_model": None}))
        self._fleet.adopt(plan)
        return schedules(warm, plan.routes.deployments.values())


def _stamp(source: Source) -> Stamp | None:
    return stamp(Path(source.path)) if source.path is not None else None


def worker() -> App:
    """The application of one worker process."""
    leave_with_parent()
    ignore_replacing()
    told = json.loads(os.environ[WORKER])
    served = Served(**{**told, "source": Source(**told["source"])})
    app = served.app(served.source.settings(), None)
    settle_collector()
    return app


def tls(certfile: Path | None, keyfile: Path | None) -> Tls | None:
    """Checked before anything listens. Raises ``CommandError``."""
    if certfile is None:
        if keyfile is not None:
            raise CommandError("--ssl-keyfile needs --ssl-certfile")
        return None
    made = Tls(certfile, keyfile)
    try:
        made.check()
    except (OSError, ssl.SSLError) as exc:
        files = f"--ssl-certfile {certfile}" + (f" and --ssl-keyfile {keyfile}" if keyfile else "")
        raise CommandError(f"{files} cannot be used: {exc.strerror or exc}") from None
    return made


def share(settings: Settings, workers: int) -> Settings:
    """What one of several workers may use of each upstream, and nothing that only one may do."""
    if workers == 1:
        return settings

    def part(upstream: Config) -> Config:
        shared = ["max_concurrency"] + ["inputs_per_container"] * (upstream.room is not None)
        return upstream.model_copy(update={key: max(1, getattr(upstream, key) // workers) for key in shared})

    models = {
        name: model.model_copy(
            update={"upstreams": tuple(map(part, model.upstreams)), "warm": model.warm and model.warm.known()}
        )
        for name, model in settings.models.items()
    }
    return settings.model_copy(update={"models": models})


def _warnings(settings: Settings, served: Served) -> list[str]:
    lines = []
    if settings.auth.mode == "none" and not served.loopback:
        lines.append("NO AUTHENTICATION: whoever can reach this address can use, and exhaust, your models")
    if settings.auth.mode == "keys" and not guests(served.source, settings):
        make = f"{show.program()} keys create"
        lines.append(f"nobody may call yet: make a key in the console, or with `{make}`")
    if served.workers > 1:
        lines.append(f"each of the {served.workers} workers takes its share of max_concurrency")
    return lines


def root_of(address: tuple[str, int], *, secure: bool) -> str:
    """How this machine reaches a numeric address that it listens on."""
    host, port = address
    near = EVERYWHERE.get(host, host)
    return f"{'https' if secure else 'http'}://{f'[{near}]' if ':' in near else near}:{port}"


def console_lines(settings: Settings, served: Served, root: str, tickets: Tickets) -> list[str]:
    """Where the console is, and how to log in; who sees this terminal needs no key on this machine."""
    if served.loopback and served.workers == 1 and sys.stdout.isatty():
        return [f"{root}/#ticket={tickets.new()}", dim("(logs in once, within ten minutes)")]
    if settings.admin.key.get_secret_value():
        return [f"{root}/", dim("(log in with the admin key)")]
    if served.loopback and settings.auth.mode == "none":
        return [f"{root}/"]
    return [f"{root}/", dim("(nobody can log in yet: set admin.key, or MODAL_GATEWAY_ADMIN_KEY)")]


def banner(settings: Settings, host: str, served: Served, root: str, console: list[str]) -> str:
    """What a person wants to know once requests are accepted at this numeric address, which is ``root``."""
    rows = [("base URL", bold(f"{root}/v1"))]
    if host in EVERYWHERE:
        rows.append(("", dim(f"and at every other address of this machine ({host})")))
    rows += [("keys", _guard(settings, served)), *_labelled("models", _models(settings))]
    rows += _labelled("console", console)
    if served.loopback or settings.server.public:
        rows += _labelled("see also", [f"{root}/docs", f"{root}/metrics"])
    else:
        rows += _labelled("see also", [f"{root}/docs", f"{root}/metrics", dim("(these want a key)")])
    lines = [f"  {label:<9} {value}" for label, value in rows]
    return "\n".join([f"modal-gateway {__version__} is serving", *lines])


def _guard(settings: Settings, served: Served) -> str:
    if settings.auth.mode == "keys":
        return str(guests(served.source, settings))
    return "none: anyone may call" if served.insecure else "none: this machine alone may call"


def _models(settings: Settings) -> list[str]:
    shown = list(settings.models)[:SHOWN]
    width = max(map(len, shown))
    lines = [f"{name:<{width}}  {dim(_where(settings, name))}" for name in shown]
    if more := len(settings.models) - len(shown):
        lines.append(dim(f"and {more} more"))
    if settings.default_model:
        lines.append(dim(f"any other name means {settings.default_model}"))
    return lines


def _labelled(label: str, values: list[str]) -> list[tuple[str, str]]:
    return [(label if index == 0 else "", value) for index, value in enumerate(values)]


def _where(settings: Settings, name: str) -> str:
    model = settings.models[name]
    hosts = [urlsplit(getattr(each, "url", "")).netloc or "in this process" for each in model.upstreams]
    template = "" if model.upstreams[0].traits.speaks == "chat" else f" (template {model.template})"
    return f"-> {', '.join(hosts)}{template}"

"""``serve``: the configuration at an address, by one process or several.

Rule: whatever can be refused is refused before the first process listens. Workers read the configuration for
themselves; what else they must know comes in one environment variable. Knows nothing about requests.
"""

from __future__ import annotations

import json
import os
import socket
import ssl
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from urllib.parse import urlsplit

from gateway import __version__
from gateway.app import build_app
from gateway.cli import show
from gateway.cli.address import bind, is_loopback
from gateway.cli.show import CommandError, bold, dim
from gateway.cli.sources import Source, callers, key_line, refuse_open_door, without_auth
from gateway.http.server import (
    App,
    Running,
    Tls,
    configure,
    leave_with_parent,
    run_workers,
    settle_collector,
    stoppable,
)
from gateway.keeping import Schedule, keeping_beside, schedules
from gateway.models import deployment
from gateway.settings import Settings
from gateway.upstreams.kinds import Config

SHOWN = 20  # models named at the start
WORKER = "MODAL_GATEWAY_WORKER"  # the environment variable that workers are told by


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
    loopback: bool
    insecure: bool
    workers: int

    def app(self, settings: Settings) -> App:
        """Raises ``ConfigError``."""
        return stoppable(
            build_app(
                share(settings, self.workers),
                folder=self.source.folder,
                loopback=self.loopback,
                any_host=self.insecure,
            )
        )


def serve(source: Source, door: Door) -> int:
    """Serve until told to stop; the exit code."""
    settings = source.settings()
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
        refuse_open_door(settings.auth, door.host, loopback=loopback, insecure=door.insecure)
        return _run(Served(source, loopback, door.insecure, door.workers), settings, door, sock)


def _run(served: Served, settings: Settings, door: Door, sock: socket.socket) -> int:
    app = served.app(settings)  # here for several workers too: what is wrong with it is said once, and now
    for line in _warnings(settings, served):
        show.warn(line)

    def ready() -> None:
        print(banner(settings, sock.getsockname()[:2], served, secure=door.tls is not None), flush=True)

    drain = settings.server.drain_timeout
    if door.workers == 1:
        Running(configure(app, drain, door.tls), sock, ready).run()
        return 0
    os.environ[WORKER] = json.dumps(asdict(served))
    config = configure("gateway.cli.serving:worker", drain, door.tls, door.workers)
    with _keeping_warm(served, settings):
        return 0 if run_workers(config, sock, ready) else 1


@contextmanager
def _keeping_warm(served: Served, settings: Settings) -> Iterator[None]:
    """Runs in the process that starts the workers, since only one may."""
    warm = {name: model for name, model in settings.models.items() if model.warm is not None}
    if not warm:
        yield
        return

    def make() -> list[Schedule]:
        made = [deployment(name, model, served.source.folder) for name, model in warm.items()]
        return schedules(warm, made)

    with keeping_beside(make, time.time):
        yield


def worker() -> App:
    """The application of one worker process."""
    leave_with_parent()
    told = json.loads(os.environ[WORKER])
    served = Served(**{**told, "source": Source(**told["source"])})
    app = served.app(served.source.settings())
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
    lines = [f"{key} is accepted, but has no effect in this version" for key in settings.without_effect()]
    if settings.auth.mode == "none" and not served.loopback:
        lines.append("NO AUTHENTICATION: whoever can reach this address can use, and exhaust, your models")
    if served.workers > 1:
        lines.append(
            f"each of the {served.workers} workers takes its share of max_concurrency, and /metrics answers "
            "for the worker that happens to be asked"
        )
    return lines


def banner(settings: Settings, address: tuple[str, int], served: Served, *, secure: bool) -> str:
    """What a person wants to know once requests are accepted at this numeric address."""
    host, port = address
    near = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
    root = f"{'https' if secure else 'http'}://{f'[{near}]' if ':' in near else near}:{port}"
    rows = [("base URL", bold(f"{root}/v1"))]
    if near != host:
        rows.append(("", dim(f"and at every other address of this machine ({host})")))
    rows += [("keys", _guard(settings, served)), *_labelled("models", _models(settings))]
    if served.loopback or settings.server.public:
        rows += _labelled("see also", [f"{root}/docs", f"{root}/metrics"])
    else:
        rows += _labelled("see also", [f"{root}/docs", f"{root}/metrics", dim("(these want a key)")])
    lines = [f"  {label:<9} {value}" for label, value in rows]
    return "\n".join([f"modal-gateway {__version__} is serving", *lines])


def _guard(settings: Settings, served: Served) -> str:
    if settings.auth.mode == "keys":
        return ", ".join(callers(settings.auth))
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

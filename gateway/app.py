"""From settings to one ASGI application.

Rule: wiring only. Hot routes are ASGI endpoints in front of FastAPI, which serves everything else;
authentication is called by whatever serves a route, so that no path can slip past it.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any, Protocol, TypeAlias

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware
from starlette.responses import Response

from gateway import __version__, embeddings, log, responses
from gateway.admin import Admin
from gateway.auth import Keys
from gateway.core.errors import BadRequest, GatewayError, Internal, MethodNotAllowed, NotFound
from gateway.fastchat import TokenCheck
from gateway.http.exchange import ClientGone, Exchange, Message, Receive, Scope, Send, read_head
from gateway.keeping import keeping, schedules
from gateway.metrics import Metrics
from gateway.models import deployment
from gateway.pages import Pages
from gateway.retention import Memory
from gateway.routing.routes import Routes
from gateway.serve import Api, Service, World
from gateway.settings import Model, Settings
from gateway.sightings import Sightings
from gateway.surfaces import CHAT, COMPLETIONS, FASTCHAT, PROMPT

App: TypeAlias = Callable[[Scope, Receive, Send], Awaitable[None]]

CLOSE = 20.0  # seconds for each upstream at the end

HOT = "/chat/completions"
TEXTS = "/completions"
PROMPTS = "/prompt/"  # and a model, whose name may hold slashes
OLD = "/api/v1/chat/completions"  # FastChat's
EXPOSED = (
    "x-request-id", "x-gateway-usage", "x-gateway-ignored", "x-gateway-neutralised",
    "x-gateway-upstream-state", "x-gateway-queue-ms", "x-gateway-boot-ms", "retry-after",
)  # fmt: skip
"""Headers that pages of ``server.cors_origins`` may read."""


def _ids() -> Iterator[str]:
    """Ids of 24 hexadecimal digits; the system is asked for the randomness of many at once."""
    while True:
        digits = secrets.token_hex(12 * 256)
        yield from (digits[at : at + 24] for at in range(0, len(digits), 24))


WORLD = World(time=time.time, monotonic=time.monotonic, new_id=_ids().__next__)


def build_service(
    settings: Settings, folder: Path, metrics: Metrics, world: World = WORLD, *, any_host: bool = False
) -> Service:
    clock = world.monotonic
    deployments = [deployment(name, model, folder, clock) for name, model in settings.models.items()]
    return Service(
        limits=settings.server,
        keys=Keys(settings.auth, any_host=any_host),
        routes=Routes(deployments, settings.default_model),
        world=world,
        began=metrics.began,
        observe=(metrics.observe, log.observe),
    )


def build_app(
    settings: Settings,
    *,
    folder: Path | None = None,
    loopback: bool = False,
    any_host: bool = False,
    world: World = WORLD,
) -> App:
    """The gateway as an ASGI application.

    ``folder`` is where the config's relative paths start; ``loopback`` says that only this machine can
    connect, which opens ``/metrics``, ``/docs`` and ``/openapi.json`` without a key. Without keys, only
    requests that name this machine as their host are served, unless ``any_host``.
    """
    metrics = Metrics()
    service = build_service(settings, folder or Path.cwd(), metrics, world, any_host=any_host)
    metrics.watch([target for model in service.routes.deployments.values() for target in model.upstreams])
    retain = settings.responses
    shelves = responses.Shelves(Memory(retain, world.monotonic) if retain.retain else None)
    pages = Pages(service, metrics, public=loopback or settings.server.public)
    sightings = Sightings(world.monotonic)
    admin = Admin(service, settings, sightings, loopback=loopback)
    cold = _cold_routes(service, (pages, admin), sightings, settings.models)
    responses.ResponsePages(service.keys, shelves.store).add_to(cold)
    TokenCheck(service).add_to(cold)
    shared = _cors(settings.server.cors_origins)
    chat = shared(Api(service, CHAT))
    hot = {
        HOT: chat,
        TEXTS: shared(Api(service, COMPLETIONS)),
        PROMPTS: shared(Api(service, PROMPT)),
        embeddings.PATH: shared(embeddings.Embeddings(service)),
        responses.PATH: shared(Api(service, responses.surface(shelves, world.time))),
        OLD: shared(Api(service, FASTCHAT)),
    }
    return Front(hot, shared(cold), world.new_id)


def _cors(origins: tuple[str, ...]) -> Callable[[App], App]:
    """What lets pages of these origins call an application; nothing without any."""
    if not origins:
        return lambda app: app
    return partial(
        CORSMiddleware,
        allow_origins=origins,
        allow_methods=["GET", "POST", "DELETE"],
        allow_headers=["*"],
        expose_headers=EXPOSED,
    )


class Front:
    """Hot POST routes by a dictionary, the rest to FastAPI with a request id on every answer.

    ``hot`` has the paths without ``/v1``.
    """

    def __init__(self, hot: Mapping[str, App], rest: App, new_id: Callable[[], str]) -> None:
        self._hot = {**hot, **{"/v1" + path: app for path, app in hot.items()}}
        self._rest = rest
        self._new_id = new_id

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._rest(scope, receive, send)
            return
        if scope["method"] == "POST" and (endpoint := self._endpoint(scope["path"])) is not None:
            await endpoint(scope, receive, send)
            return
        request_id = "req_" + self._new_id()
        try:
            read_head(scope)
        except GatewayError as error:
            await Exchange(send, request_id).fail(error)
            return
        await self._rest(scope, receive, partial(_with_request_id, send, request_id.encode()))

    def _endpoint(self, path: str) -> App | None:
        if (found := self._hot.get(path)) is not None:
            return found
        if path.startswith((PROMPTS, "/v1" + PROMPTS)):
            return self._hot[PROMPTS]
        return self._hot[embeddings.PATH] if embeddings.ENGINES.fullmatch(path) else None


async def _with_request_id(send: Send, request_id: bytes, message: Message) -> None:
    if message["type"] == "http.response.start":
        message["headers"] = [*message.get("headers", ()), (b"x-request-id", request_id)]
    await send(message)


def _cold_routes(
    service: Service, pages: tuple[Pages, Admin], sightings: Sightings, models: Mapping[str, Model]
) -> FastAPI:
    deployments = service.routes.deployments.values()
    targets = [upstream for model in deployments for upstream in model.upstreams]

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        watching = asyncio.get_running_loop().create_task(sightings.watch(targets))
        try:
            async with keeping(schedules(models, deployments), service.world.time):
                yield
        finally:
            watching.cancel()
            await asyncio.wait({watching})
            await close_all(sightings, *targets)

    app = FastAPI(
        title="modal-gateway",
        version=__version__,
        docs_url=None,  # FastAPI's pages load their scripts from another host
        redoc_url=None,
        openapi_url=None,
        lifespan=lifespan,
        redirect_slashes=False,
    )
    for each in pages:
        each.add_to(app)
    app.add_exception_handler(GatewayError, _on_gateway_error)
    app.add_exception_handler(HTTPException, _on_http_error)
    app.add_exception_handler(RequestValidationError, _on_invalid)
    app.add_exception_handler(ClientGone, _on_client_gone)
    app.add_exception_handler(Exception, _on_bug)
    return app


class Closes(Protocol):
    """What is closed at the end."""

    async def aclose(self) -> None: ...


async def close_all(*closing: Closes) -> None:
    """At once, and within ``CLOSE``; one that fails or hangs keeps no other open."""
    bounded = [asyncio.wait_for(each.aclose(), CLOSE) for each in closing]
    for outcome in await asyncio.gather(*bounded, return_exceptions=True):
        if isinstance(outcome, Exception):
            logging.getLogger("gateway").error("not everything could be closed", exc_info=outcome)


def _respond(error: GatewayError) -> Response:
    return Response(error.json(), error.status, error.headers, media_type="application/json")


async def _on_gateway_error(_: Request, exc: Exception) -> Response:
    assert isinstance(exc, GatewayError)
    return _respond(exc)


async def _on_http_error(request: Request, exc: Exception) -> Response:
    assert isinstance(exc, HTTPException)
    method, path = request.method, request.scope["path"]
    if exc.status_code == 405 or _only_posted(path):
        allowed = (exc.headers or {}).get("Allow") or (exc.headers or {}).get("allow") or "POST"
        return _respond(
            MethodNotAllowed(f"{method} is not allowed here; use {allowed}.", headers={"allow": allowed})
        )
    if exc.status_code == 404:
        return _respond(NotFound(_unknown_route(method, path)))
    return _respond(Internal("The request could not be served."))


def _only_posted(path: str) -> bool:
    bare = path.removeprefix("/v1")
    if path == OLD or bare in (HOT, TEXTS, responses.PATH, embeddings.PATH) or bare.startswith(PROMPTS):
        return True
    return bool(embeddings.ENGINES.fullmatch(path))


def _unknown_route(method: str, path: str) -> str:
    if path.startswith("/v1/v1/"):
        return (
            "There is no /v1/v1: let OPENAI_BASE_URL end in one /v1, or leave /v1 out of the path you call."
        )
    shown = "".join(c for c in path[:128] if c.isprintable())
    return f"There is no {method} {shown}. GET /docs lists the endpoints."


async def _on_invalid(_: Request, exc: Exception) -> Response:
    assert isinstance(exc, RequestValidationError)
    first: dict[str, Any] = exc.errors()[0]
    where = ".".join(str(part) for part in first["loc"][1:])
    return _respond(BadRequest(f"{where}: {first['msg']}.", param=where))


async def _on_client_gone(_: Request, exc: Exception) -> Response:
    return Response(status_code=499)  # nobody reads it


async def _on_bug(_: Request, exc: Exception) -> Response:
    return _respond(Internal("Something went wrong in the gateway; its log has the details."))

"""From settings to one ASGI application.

Rule: wiring only. Hot routes are ASGI endpoints in front of FastAPI, which serves everything else;
authentication is called by whatever serves a route, so that no path can slip past it.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware
from starlette.responses import Response

from gateway import __version__, log
from gateway.auth import Keys
from gateway.core.errors import BadRequest, GatewayError, Internal, MethodNotAllowed, NotFound
from gateway.core.spec import ModelSpec
from gateway.http.exchange import ClientGone, Exchange, Message, Receive, Scope, Send, read_head
from gateway.metrics import Metrics
from gateway.pages import Pages
from gateway.routing.routes import Deployment, Routes
from gateway.routing.target import Bounds, Target
from gateway.serve import Api, Service, World
from gateway.settings import ConfigError, Model, Settings
from gateway.surfaces import CHAT
from gateway.templates import load as load_template
from gateway.tokens import counter
from gateway.upstreams.endpoint import Endpoint
from gateway.upstreams.kinds import build
from gateway.upstreams.modal_sdk.config import ModalConfig

App: TypeAlias = Callable[[Scope, Receive, Send], Awaitable[None]]

HOT = "/chat/completions"
EXPOSED = (
    "x-request-id", "x-gateway-usage", "x-gateway-ignored", "x-gateway-neutralised",
    "x-gateway-upstream-state", "x-gateway-queue-ms", "x-gateway-boot-ms", "retry-after",
)  # fmt: skip
"""Headers that pages of ``server.cors_origins`` may read."""


def new_id() -> str:
    return secrets.token_hex(12)


WORLD = World(time=time.time, monotonic=time.monotonic, new_id=new_id)


def deployment(
    name: str, model: Model, folder: Path, clock: Callable[[], float] = time.monotonic
) -> Deployment:
    """One model, its files loaded (paths are relative to ``folder``).

    Raises ``ConfigError`` that names the key.
    """
    where = f"models.{name}"
    try:
        template = load_template(model.template, folder)
    except (ValueError, OSError) as exc:
        raise ConfigError(f"{where}.template: {exc}") from None
    try:
        count = counter(folder / model.tokenizer) if model.tokenizer else None
    except ValueError as exc:
        raise ConfigError(f"{where}.tokenizer: {exc}") from None
    spec = ModelSpec(
        name=name,
        template=template,
        stops=model.stop,
        system_default=model.system_default,
        context_length=model.context_length,
        max_output_tokens=model.max_output_tokens,
        logprobs=model.logprobs,
        images=model.images,
        control_tokens=model.control_tokens,
        defaults=model.defaults,
    )
    upstreams = [_target(name, index, model, clock) for index in range(len(model.upstreams))]
    return Deployment(spec, upstreams, model.aliases, model.balance, model.fallback, model.cold, count)


def _target(name: str, index: int, model: Model, clock: Callable[[], float]) -> Target:
    config, several = model.upstreams[index], len(model.upstreams) > 1
    at = f"models.{name}.upstreams[{index}]" if several else f"models.{name}.upstream"
    upstream = build(f"{name}-{index}" if several else name, config, model=name, at=at)
    bounds = Bounds(
        config.max_concurrency,
        config.max_queue,
        config.queue_timeout,
        first_event=config.first_event_timeout if isinstance(config, Endpoint | ModalConfig) else 0.0,
        window=config.scaledown_window,
        sleeps=config.sleeps,
    )
    return Target(upstream, bounds, clock)


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
    cold = _cold_routes(service, metrics, public=loopback or settings.server.public)
    shared = _cors(settings.server.cors_origins)
    chat = shared(Api(service, CHAT))
    return Front({HOT: chat, "/v1" + HOT: chat}, shared(cold), world.new_id)


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
    """Hot POST routes by a dictionary, the rest to FastAPI with a request id on every answer."""

    def __init__(self, hot: Mapping[str, App], rest: App, new_id: Callable[[], str]) -> None:
        self._hot = hot
        self._rest = rest
        self._new_id = new_id

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._rest(scope, receive, send)
            return
        if scope["method"] == "POST" and (endpoint := self._hot.get(scope["path"])) is not None:
            await endpoint(scope, receive, send)
            return
        request_id = "req_" + self._new_id()
        try:
            read_head(scope)
        except GatewayError as error:
            await Exchange(send, request_id).fail(error)
            return
        await self._rest(scope, receive, partial(_with_request_id, send, request_id.encode()))


async def _with_request_id(send: Send, request_id: bytes, message: Message) -> None:
    if message["type"] == "http.response.start":
        message["headers"] = [*message.get("headers", ()), (b"x-request-id", request_id)]
    await send(message)


def _cold_routes(service: Service, metrics: Metrics, *, public: bool) -> FastAPI:
    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        yield
        for model in service.routes.deployments.values():
            for upstream in model.upstreams:
                await upstream.aclose()

    app = FastAPI(
        title="modal-gateway",
        version=__version__,
        docs_url=None,  # FastAPI's pages load their scripts from another host
        redoc_url=None,
        openapi_url=None,
        lifespan=lifespan,
        redirect_slashes=False,
    )
    Pages(service, metrics, public=public).add_to(app)
    app.add_exception_handler(GatewayError, _on_gateway_error)
    app.add_exception_handler(HTTPException, _on_http_error)
    app.add_exception_handler(RequestValidationError, _on_invalid)
    app.add_exception_handler(ClientGone, _on_client_gone)
    app.add_exception_handler(Exception, _on_bug)
    return app


def _respond(error: GatewayError) -> Response:
    return Response(error.json(), error.status, error.headers, media_type="application/json")


async def _on_gateway_error(_: Request, exc: Exception) -> Response:
    assert isinstance(exc, GatewayError)
    return _respond(exc)


async def _on_http_error(request: Request, exc: Exception) -> Response:
    assert isinstance(exc, HTTPException)
    method, path = request.method, request.scope["path"]
    if exc.status_code == 405 or path in (HOT, "/v1" + HOT):
        allowed = (exc.headers or {}).get("Allow") or (exc.headers or {}).get("allow") or "POST"
        return _respond(
            MethodNotAllowed(f"{method} is not allowed here; use {allowed}.", headers={"allow": allowed})
        )
    if exc.status_code == 404:
        return _respond(NotFound(_unknown_route(method, path)))
    return _respond(Internal("The request could not be served."))


def _unknown_route(method: str, path: str) -> str:
    if path.startswith("/v1/v1/"):
        return (
            "There is no /v1/v1: let OPENAI_BASE_URL end in one /v1, or leave /v1 out of the path you call."
        )
    if path.endswith("/responses"):
        return (
            "The Responses API is not available; use chat completions (ChatOpenAI: use_responses_api=False)."
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

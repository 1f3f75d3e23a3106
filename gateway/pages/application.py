"""The routes that are not hot, as one FastAPI application, and how it says what went wrong.

Rule: every error is in OpenAI's envelope, whoever raised it; below Anthropic's messages in Anthropic's. Which
routes there are is for who adds them.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import Any, TypeAlias

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import Response

from gateway import __version__
from gateway.core.encode.messages import messages_error
from gateway.core.errors import BadRequest, GatewayError, Internal, MethodNotAllowed, NotFound
from gateway.dispatch import REQUEST_ID, below_turns, only_posted
from gateway.http.exchange import ClientGone

Lifespan: TypeAlias = Callable[[FastAPI], AbstractAsyncContextManager[None]]


def cold_routes(lifespan: Lifespan) -> FastAPI:
    """None yet; ``lifespan`` is what goes on while it serves."""
    app = FastAPI(
        title="modal-gateway",
        version=__version__,
        docs_url=None,  # FastAPI's pages load their scripts from another host
        redoc_url=None,
        openapi_url=None,
        lifespan=lifespan,
        redirect_slashes=False,
    )
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
    error, id = _unserved(request, exc), request.scope.get(REQUEST_ID)
    if id is None or not below_turns(request.scope["path"]):
        return _respond(error)
    headers = {**error.headers, "request-id": id}
    return Response(messages_error(error, id), error.status, headers, media_type="application/json")


def _unserved(request: Request, exc: HTTPException) -> GatewayError:
    method, path = request.method, request.scope["path"]
    if exc.status_code == 405 or only_posted(path):
        told = (exc.headers or {}).get("Allow") or (exc.headers or {}).get("allow") or "POST"
        allowed = ", ".join(sorted(told.split(", ")))  # a set's order, which changes from run to run
        return MethodNotAllowed(f"{method} is not allowed here; use {allowed}.", headers={"allow": allowed})
    if exc.status_code == 404:
        return NotFound(_unknown_route(method, path))
    return Internal("The request could not be served.")


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

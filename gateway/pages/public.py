"""Every route that is not hot: models, health, metrics, the rendered prompt, and a page that lists them all.

Rule: nothing here calls a model or wakes a GPU. Each route names its own guard: none, a key, or a key
unless open.
"""

from __future__ import annotations

import html
from collections.abc import Awaitable, Callable, Sequence
from datetime import datetime
from typing import Any

import orjson
from fastapi import FastAPI, Request
from pydantic import BaseModel
from starlette.responses import HTMLResponse, Response

from gateway.auth import Caller
from gateway.core.call import PromptCall
from gateway.core.completions import CompletionRequest
from gateway.core.contract import ContractRequest
from gateway.core.embeddings import EmbeddingRequest
from gateway.core.fastchat import Checks, fastchat_calls, parse_fastchat
from gateway.core.messages import MessagesBody
from gateway.core.plan import Origin
from gateway.core.responses import ResponsesBody
from gateway.core.wire import ChatRequest
from gateway.http.exchange import read_body, read_head
from gateway.routing.lifecycle import State
from gateway.routing.routes import Deployment
from gateway.routing.target import Target
from gateway.serve.service import Service
from gateway.telemetry.metrics import CONTENT_TYPE

BEST: Sequence[State] = ("warm", "saturated", "booting", "unknown", "cold", "stopped")
TOKEN_CHECK = "/api/v1/token_check"
CREATED = 1700000000  # models have no date of birth in the config; clients want a number


class Pages:
    """The routes' handlers; ``public`` opens metrics, ``exposition``, and docs to callers without a key."""

    def __init__(
        self, service: Service, exposition: Callable[[], Awaitable[bytes]], *, public: bool
    ) -> None:
        self._service = service
        self._exposition = exposition
        self._public = public

    def add_to(self, app: FastAPI) -> None:
        """Register every route, OpenAI's also without ``/v1``."""
        self._app = app
        for prefix in ("", "/v1"):
            shown = prefix == "/v1"
            _readable(app, prefix + "/models", self.models, shown=shown)
            _readable(app, prefix + "/models/{id:path}", self.model, shown=shown)
            app.add_api_route(
                prefix + "/chat/completions/render", self.render, methods=["POST"], include_in_schema=shown
            )
        for path in ("/health", "/health/live", "/health/ready"):
            _readable(app, path, self.health)
        _readable(app, "/metrics", self.scrape)
        _readable(app, "/openapi.json", self.openapi)
        _readable(app, "/docs", self.docs)

    async def models(self, request: Request) -> Response:
        """The models this key may call. Answers at once, whatever state they are in."""
        names = self._service.routes.names(await self._caller(request))
        return _json({"object": "list", "data": [self._card(name) for name in names]})

    async def model(self, request: Request, id: str) -> Response:
        """One model by name or alias."""
        self._service.routes.named(id, await self._caller(request))
        return _json(self._card(id))

    async def render(self, request: Request) -> Response:
        """The prompt, stops and upstream request that a chat request would make; no model is called."""
        head = read_head(request.scope)
        caller = await self._service.keys.admit_body(head)
        chat = parse_fastchat(await read_body(request.receive, head, self._service.limits.max_body))
        deployment = self._service.routes.find(chat.model, caller)
        return _json(rendered(self._service, deployment, chat))

    async def health(self) -> Response:
        """The process answers."""
        return _json({"status": "ok"})

    async def scrape(self, request: Request) -> Response:
        """Prometheus metrics."""
        await self._insider(request)
        return Response(await self._exposition(), media_type=CONTENT_TYPE)

    async def openapi(self, request: Request) -> Response:
        """This API, described."""
        await self._insider(request)
        return _json(describe(self._app))

    async def docs(self, request: Request) -> Response:
        """A page that lists every endpoint."""
        await self._insider(request)
        return HTMLResponse(_docs_page(describe(self._app)), headers={"content-security-policy": _CSP})

    async def _caller(self, request: Request) -> Caller:
        return await self._service.keys.admit(read_head(request.scope))

    async def _insider(self, request: Request) -> None:
        if self._service.keys.open or not self._public:  # without keys it still guards the Host
            await self._caller(request)

    def _card(self, name: str) -> dict[str, Any]:
        deployment = self._service.routes.named(name)
        card = {"id": name, "object": "model", "created": CREATED, "owned_by": "modal-gateway"}
        return {**card, "root": deployment.spec.name, "parent": None, "x_gateway": readiness(deployment)}


def _readable(app: FastAPI, path: str, handler: Callable[..., Any], *, shown: bool = True) -> None:
    """By GET and by HEAD, which monitors send; the description has the first alone."""
    app.add_api_route(path, handler, methods=["GET", "HEAD"], include_in_schema=False)
    if shown:
        app.add_api_route(path, handler)


def readiness(deployment: Deployment) -> dict[str, Any]:
    """The state of a model, which is its best upstream's, and of each upstream; what is known, unasked."""
    upstreams = [
        {"name": each.name, "state": each.state(), "boot_seconds": boot_seconds(each)}
        for each in deployment.upstreams
    ]
    return {"state": min((each["state"] for each in upstreams), key=BEST.index), "upstreams": upstreams}


def boot_seconds(target: Target) -> dict[str, float | None]:
    """How long its containers took to boot, of the boots that were seen."""
    boots = target.life.boots
    p50, p90 = (None if each is None else round(each, 3) for each in (boots.p50, boots.p90))
    return {"p50": p50, "p90": p90, "count": boots.count}


def rendered(service: Service, deployment: Deployment, chat: ChatRequest) -> dict[str, Any]:
    """``{"prompt", "stop", "call"}`` for this request;

    prompt is null for upstreams that render it themselves.
    """
    upstream = deployment.upstreams[0]
    origin = Origin("render", datetime.fromtimestamp(service.world.time()))
    call = fastchat_calls(chat, deployment.spec, upstream.traits, origin)[0]
    return {
        "prompt": call.prompt if isinstance(call, PromptCall) else None,
        "stop": list(dict.fromkeys((*call.watch.boundary, *call.watch.stops))),
        "call": orjson.loads(upstream.inner.body(call)),
    }


def _json(value: Any) -> Response:
    return Response(orjson.dumps(value), media_type="application/json")


def describe(app: FastAPI) -> dict[str, Any]:
    """The OpenAPI document, with the chat route that FastAPI does not serve itself."""
    document = app.openapi()
    schema = ChatRequest.model_json_schema(ref_template="#/components/schemas/{model}")
    components = document.setdefault("components", {}).setdefault("schemas", {})
    components.update(schema.pop("$defs", {}))
    components["ChatRequest"] = schema
    body: dict[str, Any] = {
        "content": {"application/json": {"schema": {"$ref": "#/components/schemas/ChatRequest"}}},
        "required": True,
    }
    document["paths"]["/v1/chat/completions"] = {
        "post": {
            "summary": "Chat completions",
            "description": "OpenAI's chat completions, whole or streamed.",
            "requestBody": body,
            "responses": {"200": {"description": "chat.completion, or chat.completion.chunk events"}},
        }
    }
    document["paths"]["/v1/chat/completions/render"]["post"]["requestBody"] = body
    _describe_embeddings(document)
    _describe_texts(document)
    document["paths"]["/api/v1/chat/completions"] = {
        "post": {"description": "FastChat's address of chats; messages may be a finished prompt."}
    }
    return document


def _describe_embeddings(document: dict[str, Any]) -> None:
    document["components"]["schemas"]["EmbeddingRequest"] = EmbeddingRequest.model_json_schema()
    reference = {"$ref": "#/components/schemas/EmbeddingRequest"}
    post: dict[str, Any] = {
        "summary": "Embeddings",
        "description": "The vectors of texts.",
        "requestBody": {"content": {"application/json": {"schema": reference}}, "required": True},
        "responses": {"200": {"description": "a list of vectors, in the order of the texts"}},
    }
    document["paths"]["/v1/embeddings"] = {"post": post}
    model = {"name": "model", "in": "path", "required": True, "schema": {"type": "string"}}
    document["paths"]["/v1/engines/{model}/embeddings"] = {"post": {**post, "parameters": [model]}}


def _describe_texts(document: dict[str, Any]) -> None:
    """The APIs of bare texts, and FastChat's check."""
    model = {"name": "model", "in": "path", "required": True, "schema": {"type": "string"}}
    rows: tuple[tuple[str, type[BaseModel], str, list[dict[str, Any]]], ...] = (
        ("/v1/completions", CompletionRequest, "OpenAI's older completions of bare texts.", []),
        ("/v1/prompt/{model}", ContractRequest, "The prompt contract, with the gateway's care.", [model]),
        ("/v1/responses", ResponsesBody, "OpenAI's Responses API, whole or streamed.", []),
        ("/v1/messages", MessagesBody, "Anthropic's Messages API, whole or streamed.", []),
        ("/v1/messages/count_tokens", MessagesBody, "How many tokens a message has; no model is called.", []),
        (TOKEN_CHECK, Checks, "", []),
    )
    for path, kind, about, parameters in rows:
        schema = kind.model_json_schema(ref_template="#/components/schemas/{model}")
        document["components"]["schemas"].update(schema.pop("$defs", {}))
        for name in ("messages", "extras"):  # not what is sent here
            schema["properties"].pop(name, None)
        document["components"]["schemas"][kind.__name__] = schema
        content = {"application/json": {"schema": {"$ref": f"#/components/schemas/{kind.__name__}"}}}
        post = document["paths"].setdefault(path, {}).setdefault("post", {"description": about})
        post.update({"requestBody": {"content": content, "required": True}, "parameters": parameters})


def _docs_page(document: dict[str, Any]) -> str:
    rows = "".join(
        f"<tr><td><code>{method.upper()}</code></td><td><code>{html.escape(path)}</code></td>"
        f"<td>{html.escape(operation.get('description') or operation.get('summary', ''))}</td></tr>"
        for path, operations in sorted(document["paths"].items())
        for method, operation in operations.items()
    )
    return _PAGE.replace("{rows}", rows).replace("{version}", html.escape(document["info"]["version"]))


_CSP = "default-src 'none'; style-src 'unsafe-inline'"
_PAGE = """<!doctype html><html lang="en"><meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>modal-gateway: endpoints</title>
<style>
:root{color-scheme:light dark;font:16px/1.5 system-ui,sans-serif}
body{max-width:60rem;margin:2rem auto;padding:0 1rem}
table{border-collapse:collapse;width:100%}
td,th{padding:.4rem .6rem;border-bottom:1px solid #8884;text-align:left;vertical-align:top}
</style>
<h1>modal-gateway {version}</h1>
<p>OpenAI's API in front of your own models. Every path under <code>/v1</code> also works without it.
The machine-readable description is at <a href="/openapi.json">/openapi.json</a>.</p>
<table><thead><tr><th>Method<th>Path<th>What it does</thead><tbody>{rows}</tbody></table></html>
"""

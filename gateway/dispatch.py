"""Where a request goes: hot routes by a dictionary, the rest to FastAPI.

Rule: a path is looked at to find who serves it, and for nothing else. Knows nothing about keys or answers.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from typing import TypeAlias

from starlette.middleware.cors import CORSMiddleware

from gateway.core.errors import GatewayError
from gateway.http.exchange import Exchange, Message, Receive, Scope, Send, read_head
from gateway.serve import count_tokens as counting
from gateway.serve import embeddings, responses

App: TypeAlias = Callable[[Scope, Receive, Send], Awaitable[None]]

HOT = "/chat/completions"
TEXTS = "/completions"
PROMPTS = "/prompt/"  # and a model, whose name may hold slashes
TURNS = "/messages"  # Anthropic's
REQUEST_ID = "gateway.request_id"  # key of a scope
OLD = "/api/v1/chat/completions"  # FastChat's
EXPOSED = (
    "x-request-id", "request-id", "x-gateway-usage", "x-gateway-ignored", "x-gateway-neutralised",
    "x-gateway-upstream-state", "x-gateway-queue-ms", "x-gateway-boot-ms", "x-gateway-gpu-ms",
    "x-gateway-cost", "x-gateway-json", "retry-after", "retry-after-ms",
    "x-ratelimit-limit-requests", "x-ratelimit-remaining-requests", "x-ratelimit-reset-requests",
    "x-ratelimit-limit-tokens", "x-ratelimit-remaining-tokens", "x-ratelimit-reset-tokens",
)  # fmt: skip
"""Headers that pages of ``server.cors_origins`` may read."""
OWN_PAGES = ("/admin/", "/console/")
"""What is below these is for the console and for programs: no origin may read it, not even with ``*``."""


def cors(origins: tuple[str, ...]) -> Callable[[App], App]:
    """What lets pages of these origins call an application, but for ``OWN_PAGES``; nothing without any."""
    if not origins:
        return lambda app: app
    shared = partial(
        CORSMiddleware,
        allow_origins=origins,
        allow_methods=["GET", "POST", "DELETE"],
        allow_headers=["*"],
        expose_headers=EXPOSED,
    )
    return lambda app: partial(_for_others, shared(app), app)


async def _for_others(shared: App, own: App, scope: Scope, receive: Receive, send: Send) -> None:
    private = scope["type"] == "http" and f"{scope['path']}/".startswith(OWN_PAGES)
    await (own if private else shared)(scope, receive, send)


class Dispatch:
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
        scope = {**scope, REQUEST_ID: request_id}
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


def below_turns(path: str) -> bool:
    """Whether it belongs to Anthropic's API of messages, served or not."""
    bare = path.removeprefix("/v1")
    return bare == TURNS or bare.startswith(TURNS + "/")


def only_posted(path: str) -> bool:
    """Whether it is a hot route, which takes nothing but POST."""
    bare = path.removeprefix("/v1")
    known = (HOT, TEXTS, TURNS, responses.PATH, embeddings.PATH, counting.PATH)
    if path == OLD or bare in known or bare.startswith(PROMPTS):
        return True
    return bool(embeddings.ENGINES.fullmatch(path))

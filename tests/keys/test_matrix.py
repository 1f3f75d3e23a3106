"""Every route with every sort of wrong key: nothing behind the door moves, and all are told the same.

The routes are those that the application has: one that is not in ``ROUTES`` fails a test.
"""

from __future__ import annotations

import asyncio
import base64
import json
import re
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from pydantic import SecretStr

from gateway.app import Site, application
from gateway.auth import ANYONE, Caller, Keys, Verifiers
from gateway.core.errors import GatewayError, KeysUnavailable
from gateway.dispatch import Dispatch
from gateway.http.exchange import MAX_HEADER_BYTES
from gateway.keys.key import Grant, digest_of, new_secret
from gateway.keys.key_store import KeyStore
from gateway.routing.routes import Routes
from gateway.serve.api import Api
from gateway.serve.service import Service
from gateway.serve.surfaces import CHAT
from gateway.settings import Auth, Server, settings_from
from gateway.telemetry.metrics import Metrics
from gateway.world import World
from tests.keys.gate import ADMIN, OWN, Gate, calling, configured, container, hello, listening, looks
from tests.keys.gate import CHAT as TALK
from tests.serve.house import Line, Scripted, deployed, soon, unbounded

MESSAGES = {"model": "m", "max_tokens": 5, "messages": TALK["messages"]}
TEXT = {"model": "m", "prompt": "hi"}
INPUT = {"model": "m", "input": "hi"}
CHECKS = {"prompts": [{"model": "m", "prompt": "hi", "max_tokens": 1}]}


class Route(NamedTuple):
    """``guard``: which key opens it, or none does; ``scoped``: it names a model, which a key may not call."""

    guard: str = "key"
    body: Mapping[str, Any] | None = None
    scoped: bool = False


SCOPED = Route(scoped=True)
ADMINS = Route("admin")
OPEN = Route("none")
SESSION = Route("session")  # who is logged in to the console: tests/console has its laws
HOT = {
    "/chat/completions": Route("key", TALK, True),
    "/completions": Route("key", TEXT, True),
    "/prompt/": Route("key", {"prompt": "hi"}, True),
    "/embeddings": Route("key", INPUT, True),
    "/responses": Route("key", INPUT, True),
    "/api/v1/chat/completions": Route("key", TALK, True),
    "/messages": Route("key", MESSAGES, True),
    "/messages/count_tokens": Route("key", MESSAGES, True),
    "/chat/completions/render": Route("key", TALK, True),
}
ROUTES: Mapping[tuple[str, str], Route] = {
    **{("POST", path): route for path, route in HOT.items()},
    **{("POST", f"/v1{path}"): route for path, route in HOT.items()},
    ("POST", "/v1/engines/m/embeddings"): Route("key", INPUT, True),
    ("POST", "/api/v1/token_check"): Route("key", CHECKS, True),
    ("GET", "/models"): Route(),
    ("HEAD", "/models"): Route(),
    ("GET", "/v1/models"): Route(),
    ("HEAD", "/v1/models"): Route(),
    ("GET", "/models/{id:path}"): SCOPED,
    ("HEAD", "/models/{id:path}"): SCOPED,
    ("GET", "/v1/models/{id:path}"): SCOPED,
    ("HEAD", "/v1/models/{id:path}"): SCOPED,
    ("GET", "/responses/{id}"): Route(),
    ("GET", "/v1/responses/{id}"): Route(),
    ("DELETE", "/responses/{id}"): Route(),
    ("DELETE", "/v1/responses/{id}"): Route(),
    ("GET", "/metrics"): Route(),
    ("HEAD", "/metrics"): Route(),
    ("GET", "/openapi.json"): Route(),
    ("HEAD", "/openapi.json"): Route(),
    ("GET", "/docs"): Route(),
    ("HEAD", "/docs"): Route(),
    ("GET", "/health"): OPEN,
    ("HEAD", "/health"): OPEN,
    ("GET", "/health/live"): OPEN,
    ("HEAD", "/health/live"): OPEN,
    ("GET", "/health/ready"): OPEN,
    ("HEAD", "/health/ready"): OPEN,
    ("GET", "/"): OPEN,
    ("HEAD", "/"): OPEN,
    ("GET", "/console/{file:path}"): OPEN,
    ("HEAD", "/console/{file:path}"): OPEN,
    ("GET", "/console/session"): SESSION,
    ("HEAD", "/console/session"): SESSION,
    ("POST", "/console/session"): SESSION,
    ("DELETE", "/console/session"): SESSION,
    ("GET", "/admin/overview"): ADMINS,
    ("GET", "/admin/budgets"): ADMINS,
    ("GET", "/admin/requests"): ADMINS,
    ("GET", "/admin/requests/{id}"): ADMINS,
    ("GET", "/admin/upstreams"): ADMINS,
    ("POST", "/admin/models/{id:path}/warm"): ADMINS,
    ("GET", "/admin/usage"): ADMINS,
    ("GET", "/admin/usage/rows"): ADMINS,
    ("GET", "/admin/keys"): ADMINS,
    ("POST", "/admin/keys"): Route("admin", {"name": "eve"}),
    ("GET", "/admin/keys/{id:path}"): ADMINS,
    ("PATCH", "/admin/keys/{id:path}"): Route("admin", {"tags": ["x"]}),
    ("DELETE", "/admin/keys/{id:path}"): ADMINS,
    ("POST", "/admin/keys/{id:path}/rotate"): ADMINS,
}
ENGINES = ("POST", "/v1/engines/m/embeddings")  # found by its form, not by a table


def front(folder: Path, port: int = 1, **top: Any) -> Dispatch:
    """The application as others can reach it, so that no page is open for being on this machine."""
    app = application(settings_from(configured(port, **top), {}), Site(folder, store=True))
    assert isinstance(app, Dispatch)
    return app


def test_no_route_is_without_an_entry(tmp_path: Path) -> None:
    app = front(tmp_path)
    rest: Any = app._rest
    walked = {("POST", path) for path in app._hot} | {ENGINES}
    walked |= {(method, route.path) for route in rest.routes for method in route.methods}
    assert walked == set(ROUTES)


# --- over real sockets ---


class Answer(NamedTuple):
    status: int
    head: bytes
    body: bytes


async def call(port: int, method: str, path: str, head: bytes, body: Mapping[str, Any] | None) -> Answer:
    """One request with these bytes among its headers, on a connection of its own."""
    sent = json.dumps(body).encode() if body is not None else b""
    where = re.sub(r"\{id(:path)?\}", "m", path) + ("m" if path.endswith("/prompt/") else "")
    first = f"{method} {where} HTTP/1.1\r\nhost: gateway.example.com\r\nconnection: close\r\n".encode()
    first += b"content-type: application/json\r\ncontent-length: %d\r\n" % len(sent)
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(first + head + b"\r\n" + sent)
        answer = await soon(reader.read())
    finally:
        writer.close()
    top, _, rest = answer.partition(b"\r\n\r\n")
    return Answer(int(top.split(b" ")[1]), top.lower(), rest)


@asynccontextmanager
async def standing(folder: Path, **top: Any) -> AsyncIterator[Gate]:
    """A gateway that others can reach, in front of a container; it looks at its store when it must."""
    async with (
        container(hello) as behind,
        listening(front(folder, behind.port, **top)) as port,
        calling(port) as client,
    ):
        await call(port, "GET", "/v1/models", bearer(new_secret()), None)  # the looks at its start are over
        yield Gate(port, behind, client, folder)


def bearer(key: str | bytes) -> bytes:
    return b"authorization: Bearer %b\r\n" % (key if isinstance(key, bytes) else key.encode())


def basic(text: str) -> bytes:
    return b"authorization: Basic %b\r\n" % base64.b64encode(text.encode())


SQL = "x' OR (SELECT pg_sleep(8)) IS NULL; DROP TABLE keys; --"
MISSING = {
    "none": b"",
    "empty Bearer": bearer(""),
    "only Bearer": b"authorization: Bearer\r\n",
    "a scheme of no meaning": b"authorization: Digest abc\r\n",
    "Basic without colon": basic("no-colon"),
    "Basic without a password": basic("name:"),
    "Basic that is no base64": b"authorization: Basic ***\r\n",
}
"""Heads that bring no key."""
MALFORMED = {
    "short": bearer("sk-short"),
    "a bare word": bearer("x"),
    "SQL": bearer(SQL),
    "SQL as a password": basic(f"u:{SQL}"),
    "SQL in x-api-key": b"x-api-key: %b\r\n" % SQL.encode(),
    "non-ASCII": bearer("sk-" + "é" * 43),
    "no UTF-8": bearer(b"sk-" + b"\xff" * 43),
    "one letter too many": bearer(new_secret() + "x"),
    "a space inside": bearer(new_secret()[:20] + " " + new_secret()[21:]),
    "30 KB": bearer("sk-" + "x" * 30_000),
    "the SHA-256 of a key, in hex": bearer(digest_of(OWN).hex()),
}
"""Keys that cannot be any of the store."""


async def wrong_keys(here: Gate) -> dict[str, bytes]:
    """Keys that look like those of the store and open nothing."""
    _, revoked = await here.new("revoked")
    expired = new_secret()
    with closing(KeyStore(SecretStr("sqlite:///gateway.db"), here.folder)) as key_store:
        key_store.add(Grant(name="expired", expires=datetime(2020, 1, 1, tzinfo=UTC)), expired)
    _, disabled = await here.new("disabled", disabled=True)
    id, rotated = await here.new("rotated")
    await here.admin("DELETE", "/revoked")
    await here.admin("POST", f"/{id}/rotate")
    names = {"wrong": new_secret(), "revoked": revoked, "expired": expired, "disabled": disabled}
    keys = {**names, "rotated": rotated, "the SHA-256 of a stored key": _hash_as_key(revoked)}
    written = {name: bearer(key) for name, key in keys.items()}
    return {**written, "wrong, as a password": basic(f"u:{new_secret()}"), "of old config": bearer("sk-old")}


def _hash_as_key(secret: str) -> str:
    return "sk-" + base64.urlsafe_b64encode(digest_of(secret)).decode().rstrip("=")


ADMIN_REFUSED = "The admin API wants its own key, that of admin.key (MODAL_GATEWAY_ADMIN_KEY)."
OLD = {"name": "old", "key": "sk-old", "expires": "2020-01-01T00:00Z"}
KEYS = {"auth": {"keys": [{"name": "own", "key": OWN}, OLD]}}


def refused(answer: Answer, path: str) -> str:
    """The message of a 401 in the envelope of this route; of the admin API many are told to wait."""
    if not answer.body and b"content-length: 0" not in answer.head:  # of HEAD
        assert answer.status == 401 and b"www-authenticate: bearer" in answer.head
        return ""
    told = json.loads(answer.body)
    if path.startswith("/admin/") and answer.status == 429:
        assert told["error"]["code"] == "rate_limit_exceeded" and b"retry-after" in answer.head
        return ADMIN_REFUSED
    assert answer.status == 401, answer
    assert b"x-request-id: req_" in answer.head and b"www-authenticate: bearer" in answer.head
    if "/messages" in path:
        assert told["error"]["type"] == "authentication_error" and told["type"] == "error"
    else:
        assert told["error"]["code"] == "invalid_api_key"
        assert told["error"]["type"] == "invalid_request_error"
    return str(told["error"]["message"])


async def test_no_wrong_key_opens_any_route(tmp_path: Path) -> None:
    async with standing(tmp_path, **KEYS) as here:
        port, behind = here.port, here.container
        wrong = await wrong_keys(here)
        before = (await here.admin("GET")).text
        for (method, path), route in ROUTES.items():
            if route.guard in ("none", "session"):
                continue
            with looks() as asked:
                missing = {
                    refused(await call(port, method, path, head, route.body), path)
                    for head in MISSING.values()
                }
                malformed = {
                    refused(await call(port, method, path, head, route.body), path)
                    for head in MALFORMED.values()
                }
            assert asked == [], path
            unknown = {
                refused(await call(port, method, path, head, route.body), path) for head in wrong.values()
            }
            foreign = bearer(OWN if route.guard == "admin" else ADMIN)
            unknown.add(refused(await call(port, method, path, foreign, route.body), path))
            assert unknown == malformed and len(unknown | missing) <= 2, path
        assert (await here.admin("GET")).text == before
    assert behind.visits == []


async def test_a_key_of_a_megabyte_is_refused_unread(tmp_path: Path) -> None:
    async with standing(tmp_path) as here:
        for size in (MAX_HEADER_BYTES, 1 << 20):
            for (method, path), route in ROUTES.items():
                with looks() as asked:
                    answer = await call(here.port, method, path, bearer("s" * size), route.body)
                assert answer.status == 431
                assert asked == []
    assert here.container.visits == []


async def test_the_right_key_opens_each_route_and_no_model_that_it_may_not_call(tmp_path: Path) -> None:
    async with standing(tmp_path) as here:
        port, behind = here.port, here.container
        _, elsewhere = await here.new("elsewhere", models=["other", "M", "m?"])
        for (method, path), route in ROUTES.items():
            if route.scoped:
                answer = await call(port, method, path, bearer(elsewhere), route.body)
                assert answer.status == 404, path
        assert behind.visits == []
        models = await call(port, "GET", "/v1/models", bearer(elsewhere), None)
        assert json.loads(models.body)["data"] == []
        for (method, path), route in ROUTES.items():
            if route.guard == "session":
                continue
            key = {"key": OWN, "admin": ADMIN, "none": ""}[route.guard]
            answer = await call(port, method, path, bearer(key) if key else b"", route.body)
            assert answer.status not in (401, 403, 405, 500), (path, answer)
            missing = answer.status == 404 and method != "HEAD"
            told = json.loads(answer.body)["error"]["code"] if missing else None
            assert told != "model_not_found", path


# --- whatever fails at the door ---

FAILURES = [
    RuntimeError("bug"),
    KeyError("x"),
    TimeoutError(),
    OSError("no database"),
    MemoryError(),
    KeysUnavailable("away"),
    asyncio.CancelledError(),
]


class Broken:
    """Somebody who knows the keys, and fails at one of the steps."""

    stored = True

    def __init__(self, failing: str, error: BaseException) -> None:
        self.failing, self.error = failing, error
        self.finds = 0

    def find(self, digest: bytes) -> Caller | None:
        self.finds += 1
        if self.failing == ("find" if self.finds == 1 else "find again"):
            raise self.error
        return None if self.finds == 1 else ANYONE

    async def look(self) -> None:
        if self.failing == "look":
            raise self.error


@pytest.mark.parametrize("step", ["find", "look", "find again"])
@pytest.mark.parametrize("error", FAILURES, ids=lambda error: type(error).__name__)
async def test_a_door_that_breaks_lets_nobody_in(step: str, error: BaseException) -> None:
    world = World(time.time, time.monotonic, lambda: "0" * 24)
    upstream, known, metrics = Scripted("m"), Broken(step, error), Metrics()
    service = Service(
        limits=Server(),
        keys=Keys(Auth(), Verifiers(known)),
        routes=Routes([deployed(upstream)]),
        world=world,
        began=metrics.began,
        observe=(metrics.observe,),
        books=unbounded(world),
    )
    line = Line(body=json.dumps(TALK).encode())
    line.scope["headers"].append((b"authorization", b"Bearer " + new_secret().encode()))
    try:
        await soon(Api(service, CHAT)(line.scope, line.receive, line.send))
    except type(error) as caught:
        assert not isinstance(caught, GatewayError)
    assert line.status in (500, 503)
    assert upstream.calls == []

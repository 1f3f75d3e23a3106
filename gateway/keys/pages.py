"""Keys over HTTP: made, listed, changed, revoked and given a new secret.

Rule: behind the guard of the admin API. A secret is in the one answer that makes it and nowhere else. Once a
change is answered this process goes by it; others hear of it within a moment.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from typing import Any, Protocol, TypeVar

import orjson
from fastapi import FastAPI, Request
from pydantic import ValidationError
from starlette.responses import Response

from gateway.allowances import Allowance, Holder
from gateway.core.errors import BadRequest, Conflict, KeysUnavailable, NotFound
from gateway.http.exchange import read_body, read_head
from gateway.keys.key import Grant, Key, KeyExists, NoSuchKey, SpoiltKey, called, new_secret, written
from gateway.keys.key_cache import MESSAGE, KeyCache
from gateway.keys.key_store import KeyStore, StoreAway
from gateway.keys.terms import House, ending, readable, refusal
from gateway.settings import ConfigError

MAX_BODY = 65536  # bytes

T = TypeVar("T")

log = logging.getLogger("gateway")


class Guard(Protocol):
    """Whoever knows who may ask, and who may change something; both raise ``GatewayError`` for others."""

    async def admit(self, head: Mapping[bytes, bytes]) -> None: ...

    async def admit_change(self, head: Mapping[bytes, bytes]) -> None: ...


class KeyPages:
    """The routes' handlers; ``key_store`` is None where there is no store; ``teams`` gives those of now."""

    def __init__(
        self,
        guard: Guard,
        key_cache: KeyCache,
        key_store: KeyStore | None,
        teams: Callable[[], Mapping[str, Allowance]],
    ) -> None:
        self._guard = guard
        self._key_cache = key_cache
        self._key_store = key_store
        self._teams = teams

    def add_to(self, app: FastAPI) -> None:
        app.add_api_route("/admin/keys", self.every)
        app.add_api_route("/admin/keys", self.create, methods=["POST"], status_code=201)
        app.add_api_route("/admin/keys/{id:path}", self.one)
        app.add_api_route("/admin/keys/{id:path}", self.update, methods=["PATCH"])
        app.add_api_route("/admin/keys/{id:path}", self.revoke, methods=["DELETE"])
        app.add_api_route("/admin/keys/{id:path}/rotate", self.rotate, methods=["POST"])

    async def every(self, request: Request) -> Response:
        """All keys, those of the configuration first."""
        await self._guard.admit(read_head(request.scope))
        return Response(await self._asked(self._listed), media_type="application/json")

    async def budgeted(self) -> list[Holder]:
        """The keys that open something and have budgets."""
        return await self._asked(self._holders)

    async def one(self, request: Request, id: str) -> Response:
        """One key by its id or name."""
        await self._guard.admit(read_head(request.scope))
        own = called(self._key_cache.written, id)
        if own is None or (id == own.name and self._key_store is not None):
            key_store = self._needed(id)
            try:
                return _json((await self._asked(lambda: key_store.find(id))).shown(time.time()))
            except NotFound:
                if own is None:
                    raise
        return _json(written(own, time.time()))

    async def create(self, request: Request) -> Response:
        """Make a key. ``key`` in the answer is the secret: it is not shown again."""
        fields = await self._fields(request)
        key_store, secret = self._key_store, new_secret()
        if key_store is None:
            raise NotFound("This gateway has no store for keys: set store.url.", code="no_ledger")
        grant = self._checked(fields, fields)
        key = await self._changed(lambda: key_store.add(grant, secret))
        return _json({**key.shown(time.time()), "key": secret}, 201)

    async def update(self, request: Request, id: str) -> Response:
        """Change some fields; what is left out stays, of the limits too."""
        fields = await self._fields(request)
        self._checked({"name": "a", **fields}, fields)
        key_store = self._needed(id)
        return _json((await self._changed(lambda: key_store.change(id, fields))).shown(time.time()))

    async def revoke(self, request: Request, id: str) -> Response:
        """End a key, and what it runs. It stays in the list; its name is free again."""
        await self._guard.admit_change(read_head(request.scope))
        key_store = self._needed(id)
        return _json((await self._changed(lambda: key_store.revoke(id))).shown(time.time()))

    async def rotate(self, request: Request, id: str) -> Response:
        """Give a key a new secret, shown in this answer alone; the old one ends at once."""
        await self._guard.admit_change(read_head(request.scope))
        key_store, secret = self._needed(id), new_secret()
        key = await self._changed(lambda: key_store.rotate(id, secret))
        return _json({**key.shown(time.time()), "key": secret})

    def _listed(self) -> bytes:
        """For a thread: to write thousands of keys down takes longer than a stream may pause."""
        now = time.time()
        rows = [written(key, now) for key in self._key_cache.written]
        return orjson.dumps({"object": "list", "data": [*rows, *(key.shown(now) for key in self._stored())]})

    def _holders(self) -> list[Holder]:
        """For a thread, as well."""
        found = [
            Holder("key", f"config:{key.name}", key.name, key.budgets) for key in self._key_cache.written
        ]
        usable = (key for key in self._stored() if key.usable)
        found += [Holder("key", key.id, key.grant.name, key.grant.budgets) for key in usable]
        return [holder for holder in found if holder.budgets]

    def _stored(self) -> list[Key]:
        return [] if self._key_store is None else self._key_store.every()

    async def _fields(self, request: Request) -> dict[str, Any]:
        head = read_head(request.scope)
        await self._guard.admit_change(head)
        try:
            fields = orjson.loads(await read_body(request.receive, head, MAX_BODY, None))
        except orjson.JSONDecodeError:
            raise BadRequest("The request body is not valid JSON.", code="invalid_json") from None
        if not isinstance(fields, dict):
            raise BadRequest("The request body must be a JSON object.")
        if fields.get("expires") is not None:
            try:
                fields["expires"] = ending(fields["expires"], time.time())
            except ValueError as error:
                raise BadRequest(f"expires: {error}.", param="expires", code="invalid_value") from None
        return fields

    def _checked(self, fields: Mapping[str, Any], given: Collection[str]) -> Grant:
        """The grant with these fields, of which those that were given can be new ones."""
        try:
            grant = Grant.sent(fields)
        except ValidationError as error:
            raise refusal(error, Grant.model_fields) from None
        house = House([key.name for key in self._key_cache.written], self._teams(), time.time())
        if wrong := house.refuses({name: getattr(grant, name) for name in given}):
            raise BadRequest(f"{wrong.field}: {wrong.why}", param=wrong.field, code="invalid_value")
        return grant

    def _needed(self, id: str) -> KeyStore:
        """Where this key may be; no database has a name with NUL."""
        if self._key_store is None or "\0" in id:
            raise self._absent(id)
        return self._key_store

    def _absent(self, name: str) -> NotFound:
        shown = readable(name)
        message = f"There is no key `{shown}`."
        if called(self._key_cache.written, name) is not None:
            message = f"`{shown}` is a key of the configuration: it is changed there."
        elif self._key_store is None:
            message = f"There is no key `{shown}`, and no store for others: set store.url."
        return NotFound(message, code="key_not_found")

    async def _changed(self, step: Callable[[], Key]) -> Key:
        key = await self._asked(step)
        with suppress(KeysUnavailable):  # it was made, and its secret is told only now
            await self._key_cache.look()
        return key

    async def _asked(self, step: Callable[[], T]) -> T:
        """What the store says."""
        try:
            return await asyncio.to_thread(step)
        except NoSuchKey as error:
            raise self._absent(error.name) from None
        except KeyExists as error:
            raise Conflict(f"There is a key `{error.shown}` already.", param="name") from None
        except SpoiltKey as error:
            message = f"The key `{error.shown}` cannot be read from the store: revoke it and make another."
            raise NotFound(message, code="key_not_found") from None
        except ValidationError as error:
            raise refusal(error, Grant.model_fields) from None
        except (StoreAway, ConfigError) as error:
            log.error("the admin API cannot use the store: %s", error)
            raise KeysUnavailable(MESSAGE, headers={"retry-after": "1"}) from None


def _json(value: Any, status: int = 200) -> Response:
    return Response(orjson.dumps(value), status, media_type="application/json")

"""The admin API: what every upstream is doing, and waking a model before somebody asks it.

Rule: nothing but a request to warm wakes anything, and what a platform says is answered from memory. The
guard is a key of its own, or a session of the console; without a key this machine alone may ask, and only
where it may ask for anything. Wrong keys are counted, wherever they are tried.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import aclosing
from typing import Any, TypeAlias

import orjson
from fastapi import FastAPI, Request
from starlette.responses import Response, StreamingResponse

from gateway.auth import CONSOLE, KEY_HEADERS, Caller, Keys, Verifiers, Visits, require_json
from gateway.console.sessions import foreign
from gateway.core.errors import Forbidden, GatewayError, Internal, ShuttingDown, Unauthorized
from gateway.http.exchange import read_head
from gateway.pages.public import boot_seconds
from gateway.pages.wrong_keys import WrongKeys
from gateway.routing.observations import Sightings
from gateway.routing.routes import Deployment
from gateway.routing.target import Target
from gateway.serve.service import Service
from gateway.settings import ApiKey, Auth, Settings
from gateway.upstreams import Observed

TICK = 1.0  # seconds between two lines of progress

Line: TypeAlias = dict[str, Any]
"""One line of progress: ``state``, ``elapsed`` and ``expected``, in seconds."""


class Admin:
    """The routes' handlers; ``loopback``: only this machine can connect."""

    def __init__(
        self,
        service: Service,
        settings: Settings,
        sightings: Sightings,
        visits: Visits | None = None,
        *,
        loopback: bool,
    ) -> None:
        own = ApiKey(name="admin", key=settings.admin.key)
        self._locked = own.digest is not None
        self._keys = Keys(Auth(keys=(own,)), Verifiers(visits=visits))
        self._open = loopback and service.keys.open and not self._locked
        self._wrong = WrongKeys(service.world.monotonic)
        self._service = service
        self._sightings = sightings

    @property
    def open(self) -> bool:
        """Whether this machine may ask without a key."""
        return self._open

    def add_to(self, app: FastAPI) -> None:
        app.add_api_route("/admin/upstreams", self.upstreams)
        app.add_api_route("/admin/models/{id:path}/warm", self.warm, methods=["POST"])

    async def upstreams(self, request: Request) -> Response:
        """Every upstream: its state, calls, circuit, boots, and what its platform says of it."""
        await self.admit(read_head(request.scope))
        rows = [
            row for deployment in self._service.routes.deployments.values() for row in self._rows(deployment)
        ]
        return _json({"object": "list", "data": rows})

    async def warm(self, request: Request, id: str, wait: bool = True) -> Response:
        """Wake a model; lines of JSON say how far it is, the last that it is warm or started, or why not.

        With wait=false only begin. It goes on when the caller leaves.
        """
        await self.admit_change(read_head(request.scope))
        target, clock = self._service.routes.named(id).upstreams[0], self._service.world.monotonic
        if not wait:
            target.wake()
            await asyncio.sleep(0)  # it takes its first step
            return _json({"state": target.state(), "expected": expected(target, clock)}, 202)
        lines = progress(target, clock)
        try:
            first = await anext(lines)  # a failure that comes at once is a real status
        except BaseException:
            await lines.aclose()
            raise
        return StreamingResponse(_told(first, lines), media_type="application/x-ndjson")

    async def admit(self, head: Mapping[bytes, bytes]) -> None:
        """Raises ``GatewayError`` for those who may not ask."""
        await self._admitted(head, changes=False)

    async def admit_change(self, head: Mapping[bytes, bytes]) -> None:
        """The same, for what changes something: without a key, no page of another site may send it."""
        caller = await self._admitted(head, changes=True)
        if self._open and caller is not CONSOLE:
            require_json(head)

    async def admit_key(self, key: str, head: Mapping[bytes, bytes]) -> None:
        """Raises ``GatewayError`` unless this is the admin key, or none is needed and none was given."""
        sent = {b"x-api-key": key.encode("utf-8", "replace")} if key else {}
        await self._admitted({b"host": head.get(b"host", b""), **sent}, changes=False)

    async def _admitted(self, head: Mapping[bytes, bytes], *, changes: bool) -> Caller:
        if self._open:
            if foreign(head):
                raise Forbidden(
                    "Without a key the admin API answers its own pages and programs of this machine, "
                    "and no page of another site.",
                    code="cross_site",
                )
            return await self._service.keys.admit(head, changes=changes)  # guards the Host
        try:
            return await self._keys.admit(head, changes=changes)
        except Unauthorized as error:
            if not self._locked:
                raise Forbidden(
                    "The admin API has no key: set admin.key in the configuration, "
                    "or MODAL_GATEWAY_ADMIN_KEY.",
                    code="admin_disabled",
                ) from None
            if any(name in head for name in KEY_HEADERS):
                self._wrong.count()
            message = "The admin API wants its own key, that of admin.key (MODAL_GATEWAY_ADMIN_KEY)."
            raise Unauthorized(message, headers=error.headers) from None

    def _rows(self, deployment: Deployment) -> list[dict[str, Any]]:
        name = deployment.spec.name
        configs = self._service.models[name].upstreams
        return [
            {
                "model": name,
                "aliases": list(deployment.aliases),
                "name": target.name,
                "kind": config.kind,
                "priced": deployment.priced,
                **booting(target, self._service.world.monotonic()),
                "running": target.slots.taken,
                "waiting": target.slots.waiting,
                "limit": target.slots.limit,
                "circuit": "closed" if target.closed() else "open",
                "boot_seconds": boot_seconds(target),
                "observed": _observed(self._sightings.of(target)),
            }
            for config, target in zip(configs, deployment.upstreams, strict=True)
        ]


def booting(target: Target, now: float) -> dict[str, Any]:
    """Its state, and in seconds for how long a container boots, how much longer it will, and what is usual.

    ``now`` is of the monotonic clock. Null is what is not so, or not known.
    """
    state, since, usual = target.state(), target.life.booting_for(now), target.life.boots.p50
    left = target.life.until_warm(now) if since is not None else None
    times = {"booting_for": since, "until_warm": left, "usual_boot": usual}
    return {"state": state, **{name: None if s is None else round(s, 3) for name, s in times.items()}}


def expected(target: Target, clock: Callable[[], float]) -> float | None:
    """Seconds until a container will probably answer; None if no boot was seen yet."""
    left = target.life.until_warm(clock())
    return None if left is None else round(left, 3)


async def progress(target: Target, clock: Callable[[], float]) -> AsyncGenerator[Line, None]:
    """Wakes ``target``; ``{"state", "elapsed", "expected"}`` each second, the last once it is awake.

    Its state is ``warm``, or ``started`` where a container runs and nobody knows whether it answers yet.
    ``expected`` are the seconds that it takes as a rule, or null. Raises ``GatewayError``. The waking goes on
    when nobody listens any more.
    """
    began, usual = clock(), expected(target, clock)
    waking = target.wake()
    while True:
        await asyncio.wait({waking}, timeout=TICK)
        if waking.done():
            break
        yield {"state": target.state(), "elapsed": round(clock() - began, 3), "expected": usual}
    if waking.cancelled():
        raise ShuttingDown("The gateway is shutting down.")
    if (error := waking.exception()) is not None:
        raise error if isinstance(error, GatewayError) else Internal("The model could not be woken.")
    ready = target.state() in ("warm", "saturated")
    state = "warm" if ready else "started"
    yield {"state": state, "elapsed": round(clock() - began, 3), "expected": usual}


async def _told(first: Line, rest: AsyncGenerator[Line, None]) -> AsyncGenerator[bytes, None]:
    async with aclosing(rest):
        yield orjson.dumps(first) + b"\n"
        try:
            async for line in rest:
                yield orjson.dumps(line) + b"\n"
        except GatewayError as error:
            yield error.json() + b"\n"


def _observed(seen: Observed | None) -> dict[str, int] | None:
    return None if seen is None else {"runners": seen.runners, "backlog": seen.backlog}


def _json(value: Any, status: int = 200) -> Response:
    return Response(orjson.dumps(value), status, media_type="application/json")

"""The ledger as a list, the newest request first, and one request with all that is known of it.

Rule: behind the guard of the admin API. A page ends with the place where the next begins, so that rows that
are added meanwhile are never shown twice and move no other. Content, where it is kept, comes with a single
request alone.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Annotated, Literal

import orjson
from fastapi import FastAPI, Query, Request
from starlette.responses import Response

from gateway.core.errors import BadRequest, NotFound
from gateway.http.exchange import read_head
from gateway.ledger.ledger import Ledger
from gateway.ledger.pages import Admit, narrowed, needed

MOST = 200  # rows of a page

_CURSOR = re.compile(r"([0-9]{1,15})\.(.{1,128})")


class RequestPages:
    """``admit`` raises for those who may not ask; ``ledger`` is None where nothing is kept."""

    def __init__(self, admit: Admit, ledger: Ledger | None, time: Callable[[], float]) -> None:
        self._admit = admit
        self._ledger = ledger
        self._time = time

    def add_to(self, app: FastAPI) -> None:
        app.add_api_route("/admin/requests", self.newest)
        app.add_api_route("/admin/requests/{id}", self.one)

    async def newest(
        self,
        request: Request,
        since: str | None = None,
        until: str | None = None,
        status: Literal["ok", "error"] | None = None,
        limit: Annotated[int, Query(ge=1, le=MOST)] = 50,
    ) -> Response:
        """Requests, the newest first; key, team and model narrow them down, before is next of a page."""
        await self._admit(read_head(request.scope))
        ledger = needed(self._ledger)
        from gateway.ledger.queries import newest

        asked = narrowed(request, since, until, self._time())
        before, failed = _place(request.query_params.get("before")), status and status == "error"
        rows, last = await ledger.ask(lambda engine: newest(engine, asked, limit, before, failed=failed))
        told = {"object": "list", "data": rows, "next": last and f"{last[0]}.{last[1]}"}
        return Response(orjson.dumps(told), media_type="application/json")

    async def one(self, request: Request, id: str) -> Response:
        """One request, with its prompts and answers where they are kept."""
        await self._admit(read_head(request.scope))
        ledger = needed(self._ledger)
        from gateway.ledger.queries import one

        row = await ledger.ask(lambda engine: one(engine, id)) if "\0" not in id else None
        if row is None:
            raise NotFound("The ledger has no such request. It may be a moment until it has.")
        return Response(orjson.dumps(row), media_type="application/json")


def _place(cursor: str | None) -> tuple[int, str] | None:
    """Raises ``BadRequest`` for what is none."""
    if cursor is None:
        return None
    parts = _CURSOR.fullmatch(cursor)
    if parts is None or "\0" in cursor:
        raise BadRequest("before: must be next of a page.", param="before", code="invalid_value")
    return int(parts[1]), parts[2]

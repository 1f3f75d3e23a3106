"""What was used, over HTTP: sums, and the rows themselves.

Rule: behind the guard of the admin API. Rows are sent as they are read, a page at a time.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import orjson
from fastapi import FastAPI, Request
from starlette.responses import Response, StreamingResponse

from gateway.core.errors import BadRequest, NotFound
from gateway.http.exchange import read_head
from gateway.ledger.ledger import Ledger
from gateway.ledger.reports import Priced, as_csv, lines_of, question, report, sums_as_csv

if TYPE_CHECKING:
    from gateway.ledger.queries import Asked

Admit: TypeAlias = Callable[[Mapping[bytes, bytes]], Awaitable[None]]
Page: TypeAlias = Sequence[Mapping[str, Any]]

MEDIA = {"csv": "text/csv; charset=utf-8", "json": "application/x-ndjson"}


class UsagePages:
    """``admit`` raises for those who may not ask; ``ledger`` is None where nothing is kept.

    ``priced`` tells which models have a price.
    """

    def __init__(
        self, admit: Admit, ledger: Ledger | None, time: Callable[[], float], priced: Callable[[], Priced]
    ) -> None:
        self._admit = admit
        self._ledger = ledger
        self._time = time
        self._priced = priced

    def add_to(self, app: FastAPI) -> None:
        app.add_api_route("/admin/usage", self.usage)
        app.add_api_route("/admin/usage/rows", self.rows)

    async def usage(
        self,
        request: Request,
        by: Literal["key", "team", "model", "day"] = "day",
        since: str | None = None,
        until: str | None = None,
        per: Literal["hour", "day"] | None = None,
    ) -> Response:
        """What was used, by key, team, model or day; key, team and model in the query narrow it down.

        With ``per``, what was used in each hour or day; format in the query is csv or json.
        """
        await self._admit(read_head(request.scope))
        ledger, csv = needed(self._ledger), _wants_csv(request)
        from gateway.ledger.queries import LINES, TooMany, usage

        asked, priced = narrowed(request, since, until, self._time()), self._priced()
        try:
            told = await ledger.ask(
                lambda engine: report(by, asked, usage(engine, by, asked, per, LINES), priced, per)
            )
        except TooMany:
            name = "by" if per is None else "per"
            message = f"{name}: there are more than {LINES:,} lines; ask for a shorter time or fewer keys."
            raise BadRequest(message, param=name, code="invalid_value") from None
        if csv:
            return Response(await asyncio.to_thread(sums_as_csv, told), media_type=MEDIA["csv"])
        return Response(orjson.dumps(told), media_type="application/json")

    async def rows(
        self,
        request: Request,
        since: str | None = None,
        until: str | None = None,
        format: Literal["csv", "json"] = "json",
    ) -> Response:
        """Every request, oldest first, as CSV or as lines of JSON; narrowed down in the same way."""
        await self._admit(read_head(request.scope))
        ledger = needed(self._ledger)
        from gateway.ledger.queries import SHOWN, rows

        asked = narrowed(request, since, until, self._time())
        pages = await ledger.ask(lambda engine: rows(engine, asked))
        first = await self._next(pages)  # a failure that comes at once is a real status
        if format == "csv":
            return StreamingResponse(
                self._sent(first, pages, as_csv, as_csv((), head=SHOWN)), media_type=MEDIA[format]
            )
        return StreamingResponse(self._sent(first, pages, lines_of), media_type=MEDIA[format])

    async def _sent(
        self, page: Page | None, pages: Iterator[Page], written: Callable[[Page], str], head: str = ""
    ) -> AsyncGenerator[str, None]:
        yield head
        while page:
            yield await asyncio.to_thread(written, page)
            page = await self._next(pages)

    async def _next(self, pages: Iterator[Page]) -> Page | None:
        return await needed(self._ledger).ask(lambda _: next(pages, None))


def needed(ledger: Ledger | None) -> Ledger:
    """Raises ``NotFound`` where nothing is kept."""
    if ledger is None:
        raise NotFound("This gateway keeps no ledger: set store.url in its configuration.", code="no_ledger")
    return ledger


def _wants_csv(request: Request) -> bool:
    """Raises ``BadRequest`` for a format that there is not."""
    format = request.query_params.get("format", "json")
    if format not in MEDIA:
        raise BadRequest("format: must be csv or json.", param="format", code="invalid_value")
    return format == "csv"


def narrowed(request: Request, since: str | None, until: str | None, now: float) -> Asked:
    """Which rows are meant, of the key, team and model in the query. Raises ``BadRequest``."""
    whose = (request.query_params.get(name) for name in ("key", "team", "model"))
    try:
        return question(since, until, now, *whose)
    except ValueError as error:
        raise BadRequest(f"{error}.", param=str(error).partition(":")[0], code="invalid_value") from None

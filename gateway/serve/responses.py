"""OpenAI's Responses API: its row among the surfaces, what it keeps, and the routes that read what was kept.

Rule: a translation onto the same events as chat. No response is kept unless the configuration says how many;
what was said is known by its items' ids for a while, because clients send those in place of the items. A key
finds only what it asked for itself. Knows nothing about how items become messages.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

import orjson
from fastapi import FastAPI, Request
from starlette.responses import Response

from gateway.auth import Keys
from gateway.core.call import Call, Traits
from gateway.core.encode import Head
from gateway.core.encode.responses import Ending, ResponseStream, ResponseWhole
from gateway.core.errors import BadRequest, NotFound
from gateway.core.items import messages
from gateway.core.plan import Origin
from gateway.core.responses import ResponsesRequest, noted, parse_responses, recalled, reworded
from gateway.core.spec import ModelSpec
from gateway.http.exchange import read_head
from gateway.serve.retention import Kept, Retention, compact
from gateway.serve.surfaces import Surface, chat_calls

PATH = "/responses"
NOTHING = "No responses are kept here: responses.retain is 0."
ITEMS = "With store: false clients send the items themselves, not references."

Time: TypeAlias = Callable[[], float]


class Shelves:
    """What requests refer to, and where their answers go; ``keeps`` whole responses, or only their items."""

    def __init__(self, store: Retention, *, keeps: bool) -> None:
        self.store = store
        self.keeps = keeps

    def recalled(self, request: ResponsesRequest, owner: str) -> ResponsesRequest:
        """The request with what it refers to. Raises ``BadRequest`` for what this key has not."""
        told = recalled(
            request,
            owner,
            lambda id: orjson.loads(self._kept(owner, id).messages),
            lambda id: self._item(owner, id),
        )
        return told if self.keeps else told.model_copy(update={"kept": False})

    def keep(self, request: ResponsesRequest, response: Mapping[str, Any]) -> None:
        """Put away what a response that has ended said, and itself, if the client lets us."""
        if request.asked.store is False:
            return
        output = response["output"]
        self.store.remember(request.owner, output)
        if not request.kept:
            return
        said = request.messages[1 if request.asked.instructions else 0 :]
        chat = compact([*said, *messages(output, _never, "output")])
        body = compact(response)
        items = tuple(item["id"] for item in output)
        kept = Kept(body, chat, items, len(body) + len(chat))
        self.store.put(request.owner, response["id"], kept)

    def found(self, owner: str, id: str) -> Kept:
        """The kept response with this id. Raises ``NotFound``."""
        if not self.keeps or (kept := self.store.get(owner, id)) is None:
            raise self._missing(id)
        return kept

    def forget(self, owner: str, id: str) -> None:
        """Drop it with its items. Raises ``NotFound``."""
        if not self.keeps or not self.store.drop(owner, id):
            raise self._missing(id)

    def _missing(self, id: str) -> NotFound:
        return NotFound(f"There is no response {_shown(id)}." if self.keeps else NOTHING)

    def _kept(self, owner: str, id: str) -> Kept:
        if not self.keeps:
            raise _unknown("previous_response_id", NOTHING + " Send the whole conversation as input.")
        if (kept := self.store.get(owner, id)) is None:
            raise _unknown("previous_response_id", f"There is no response {_shown(id)}; it may have expired.")
        return kept

    def _item(self, owner: str, id: str) -> Mapping[str, Any]:
        if (item := self.store.item(owner, id)) is None:
            raise _unknown("input", f"There is no item {_shown(id)}; it may have expired. {ITEMS}")
        return item


def surface(shelves: Shelves, time: Time) -> Surface[ResponsesRequest]:
    """The row of this API. ``time`` in seconds since 1970."""

    def ending(request: ResponsesRequest) -> Ending:
        return Ending(time, lambda response: shelves.keep(request, response))

    def stream(head: Head, request: ResponsesRequest, _: int) -> ResponseStream:
        return ResponseStream(head, request, ending(request))

    def whole(head: Head, request: ResponsesRequest, _: int) -> ResponseWhole:
        return ResponseWhole(head, request, ending(request))

    def calls(request: ResponsesRequest, spec: ModelSpec, traits: Traits, origin: Origin) -> tuple[Call, ...]:
        try:
            planned = chat_calls(request, spec, traits, origin)
        except BadRequest as error:
            raise reworded(error, request) from None
        return tuple(noted(call, request, stores=shelves.keeps) for call in planned)

    return Surface(
        "responses",
        "resp_",
        parse_responses,
        stream,
        whole,
        calls,
        reworded=reworded,
        recalled=shelves.recalled,
    )


class ResponsePages:
    """The routes for one kept response."""

    def __init__(self, keys: Keys, shelves: Shelves) -> None:
        self._keys = keys
        self._shelves = shelves

    def add_to(self, app: FastAPI) -> None:
        for prefix in ("", "/v1"):
            path, shown = prefix + PATH + "/{id}", prefix == "/v1"
            app.add_api_route(path, self.read, include_in_schema=shown)
            app.add_api_route(path, self.forget, methods=["DELETE"], include_in_schema=shown)

    async def read(self, request: Request, id: str, stream: bool = False) -> Response:
        """A response that was kept."""
        owner = await self._owner(request)
        if stream:
            raise BadRequest("A kept response is not streamed again.", param="stream", code="invalid_value")
        return Response(self._shelves.found(owner, id).response, media_type="application/json")

    async def forget(self, request: Request, id: str) -> Response:
        """Forget a response that was kept."""
        self._shelves.forget(await self._owner(request), id)
        gone = {"id": id, "object": "response", "deleted": True}
        return Response(orjson.dumps(gone), media_type="application/json")

    async def _owner(self, request: Request) -> str:
        changes = request.method != "GET"
        return (await self._keys.admit(read_head(request.scope), changes=changes)).id


def _unknown(param: str, message: str) -> BadRequest:
    return BadRequest(message, param=param, code="previous_response_not_found")


def _shown(id: str) -> str:
    return "".join(c for c in id[:64] if c.isprintable())


def _never(id: str) -> Mapping[str, Any]:
    raise AssertionError(f"an answer refers to {id}")

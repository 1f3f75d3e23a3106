"""FastChat's check whether prompts fit their models: ``POST /api/v1/token_check``.

Rule: counted here, so no GPU wakes. An answer that nobody can give is a 400, never a guess that it fits.
Knows nothing about chats.
"""

from __future__ import annotations

import asyncio
from typing import Any

import orjson
from fastapi import FastAPI, Request
from starlette.responses import Response

from gateway.auth import Caller
from gateway.core.errors import BadRequest
from gateway.core.fastchat import Check, parse_checks
from gateway.core.tokens import estimate
from gateway.http.exchange import read_body, read_head
from gateway.pages.public import TOKEN_CHECK
from gateway.serve.service import Service


class TokenCheck:
    """The route's handler."""

    def __init__(self, service: Service) -> None:
        self._service = service

    def add_to(self, app: FastAPI) -> None:
        app.add_api_route(TOKEN_CHECK, self.check, methods=["POST"])

    async def check(self, request: Request) -> Response:
        """Whether prompts fit their models beside the tokens asked for, as FastChat answers it."""
        head = read_head(request.scope)
        caller = await self._service.keys.admit_body(head)
        checks = parse_checks(await read_body(request.receive, head, self._service.limits.max_body))
        answers = await asyncio.to_thread(lambda: [self._checked(each, caller) for each in checks.prompts])
        return Response(orjson.dumps({"prompts": answers}), media_type="application/json")

    def _checked(self, asked: Check, caller: Caller) -> dict[str, Any]:
        model = self._service.routes.find(asked.model, caller)
        limit = model.spec.context_length
        if limit is None:
            name = model.spec.name
            raise BadRequest(
                f"What fits `{name}` is not known: models.{name}.context_length is not set.",
                param="model",
                code="unsupported_parameter",
            )
        tokens = (model.count or estimate)(asked.prompt)
        return {"fits": tokens + asked.max_tokens <= limit, "tokenCount": tokens, "contextLength": limit}

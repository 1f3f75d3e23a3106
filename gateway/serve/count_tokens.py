"""Anthropic's count of tokens: ``POST /v1/messages/count_tokens``.

Rule: the prompt is rendered as for an answer and counted here, so no model is called and no GPU wakes. A
count that is only an estimate says so in ``x-gateway-usage``. Knows nothing about how a message is answered.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from datetime import datetime

import orjson

from gateway.core.call import Call, PromptCall
from gateway.core.encode.messages import messages_error
from gateway.core.errors import BadRequest
from gateway.core.message_calls import message_call
from gateway.core.messages import MessagesRequest, parse_count, reworded
from gateway.core.plan import Origin
from gateway.core.tokens import estimate
from gateway.core.usage import prompt_texts
from gateway.http.exchange import ClientGone, Exchange, Receive, Scope, Send, read_body, read_head
from gateway.routing.routes import Deployment
from gateway.serve.life import answering
from gateway.serve.service import Service
from gateway.serve.surfaces import MESSAGES

PATH = "/messages/count_tokens"


class CountTokens:
    """The route as an ASGI application."""

    def __init__(self, service: Service) -> None:
        self._service = service

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request_id = "req_" + self._service.world.new_id()
        exchange = Exchange(send, request_id, MESSAGES.named)
        with suppress(ClientGone):
            serving = self._serve(scope, receive, exchange)
            await answering(serving, receive, exchange, lambda error: messages_error(error, request_id))

    async def _serve(self, scope: Scope, receive: Receive, exchange: Exchange) -> None:
        service, head = self._service, read_head(scope)
        caller = await service.keys.admit_body(head)
        request = parse_count(await read_body(receive, head, service.limits.max_body))
        deployment = service.routes.find(request.model, caller)
        traits = deployment.upstreams[0].traits
        if deployment.spec.images and traits.speaks == "prompt":
            request = await self._with_images(request)
        origin = Origin("count", datetime.fromtimestamp(service.world.time()), caller.id)
        call = message_call(request, deployment.spec, traits, origin)
        tokens, source = await asyncio.to_thread(counted, call, deployment)
        await exchange.answer(orjson.dumps({"input_tokens": tokens}), {"x-gateway-usage": source})

    async def _with_images(self, request: MessagesRequest) -> MessagesRequest:
        """As for an answer, so that what is refused there is not counted here."""
        try:
            return await self._service.images.inlined(request)
        except BadRequest as error:
            raise reworded(error, request) from None


def counted(call: Call, deployment: Deployment) -> tuple[int, str]:
    """The tokens of a prompt, and who counted. What is rendered elsewhere is guessed from its texts."""
    exact = deployment.count is not None and isinstance(call, PromptCall)
    tokens = sum(map(deployment.count or estimate, prompt_texts(call)))
    return tokens, "tokenizer" if exact else "estimate"

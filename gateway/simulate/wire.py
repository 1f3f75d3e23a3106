"""Requests and answers as they are on the wire: credentials, what is passed on, result URLs.

Rule: pure functions of an ASGI scope, but for the one that sends.
"""

from __future__ import annotations

from collections.abc import Mapping

from gateway.core import modal
from gateway.http.exchange import Scope, Send
from gateway.simulate import faults
from gateway.simulate.call import HOP_BY_HOP, Asked, Call, headers_of
from gateway.simulate.faults import Answer

ELSEWHERE = "https://elsewhere.example.com"


async def send_whole(send: Send, answer: Answer, headers: list[tuple[bytes, bytes]] | None = None) -> None:
    """An answer of the edge's own."""
    pairs = headers_of(answer) + (headers or [])
    await send({"type": "http.response.start", "status": answer.status, "headers": pairs})
    await send({"type": "http.response.body", "body": answer.text.encode()})


def credentials(head: Mapping[bytes, bytes]) -> bytes | None:
    """``KEY.SECRET`` as either form of a proxy token gives it."""
    pair = [head.get(name.lower().encode(), b"") for name in modal.AUTH_HEADERS]
    if any(pair):
        return b".".join(pair)
    scheme, _, token = head.get(b"authorization", b"").partition(b" ")
    return token.strip() if scheme.lower() == b"bearer" and token else None


def asked(scope: Scope, body: bytes) -> Asked:
    """The request, for the app."""
    return Asked(scope["method"], _target(scope), _headers(scope), body)


def _target(scope: Scope) -> str:
    query = scope["query_string"].decode("latin-1")
    path: str = scope["raw_path"].decode("latin-1")
    return path + (f"?{query}" if query else "")


def _headers(scope: Scope) -> dict[str, str]:
    """What the app gets of them; repeated ones are joined, which means the same."""
    headers: dict[str, str] = {}
    for raw_name, raw_value in scope["headers"]:
        name, value = raw_name.decode("latin-1"), raw_value.decode("latin-1")
        if name not in HOP_BY_HOP and raw_name != faults.HEADER:
            headers[name] = f"{headers[name]}, {value}" if name in headers else value
    return headers


def result_url(call: Call, scope: Scope) -> str:
    """The result URL: that of the request, with the id of the input."""
    target = call.asked.target
    target += ("&" if "?" in target else "?") + f"{modal.CALL_PARAMETER}={call.id}"
    if call.wish.fault == "relative":
        return target
    if call.wish.fault == "elsewhere":
        return ELSEWHERE + target
    host = dict(scope["headers"]).get(b"host", b"127.0.0.1").decode("latin-1")
    return f"{scope['scheme']}://{host}{target}"

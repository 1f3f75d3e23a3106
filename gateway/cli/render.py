"""``render``: what a chat request becomes, without a server and without calling a model."""

from __future__ import annotations

import json as jsonlib
import sys
from pathlib import Path

from gateway.app import build_service
from gateway.auth import ANYONE
from gateway.cli.show import CommandError, as_json, bold
from gateway.cli.sources import Source
from gateway.core.fastchat import parse_fastchat
from gateway.pages.public import rendered


def render(source: Source, request: str, model: str | None, *, json: bool) -> None:
    """Print prompt, stops and call. Raises ``GatewayError`` for a request that would be refused."""
    service = build_service(source.settings(), source.folder)
    chat = parse_fastchat(_read(request))
    asked = model or chat.model
    if not asked and len(service.routes.deployments) == 1:
        asked = next(iter(service.routes.deployments))
    result = rendered(service, service.routes.find(asked, ANYONE), chat)
    if json:
        as_json(result)
        return
    prompt = result["prompt"]
    print(bold("prompt:"))
    print("(the upstream renders it itself)" if prompt is None else prompt)
    print(bold("stop:"))
    for stop in result["stop"]:
        print(jsonlib.dumps(stop, ensure_ascii=False))
    print(bold("call:"))
    as_json(result["call"])


def _read(request: str) -> bytes:
    try:
        return sys.stdin.buffer.read() if request == "-" else Path(request).read_bytes()
    except OSError as exc:
        raise CommandError(f"cannot read {request}: {exc.strerror}") from None

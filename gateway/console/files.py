"""The console's page: the files of ``static/``, and nothing else.

Rule: a path leads to a file there, of a kind in ``KINDS``, or to nothing. The page holds no secret, so it is
open to all; it loads nothing from elsewhere and runs no code but its files. Knows nothing about sessions.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path

from fastapi import FastAPI, Request
from starlette.responses import Response

from gateway.core.errors import NotFound

STATIC = Path(__file__).parent / "static"
LONGEST = 200  # characters of a path
KINDS: Mapping[str, str] = {
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".svg": "image/svg+xml",
    ".png": "image/png",
    ".txt": "text/plain; charset=utf-8",
}
"""Content types by how a file's name ends."""
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "form-action 'none'; base-uri 'none'; frame-ancestors 'none'"
)
HEADERS: Mapping[str, str] = {
    "content-security-policy": POLICY,
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "cache-control": "no-cache",
}


class Files:
    """The routes' handlers."""

    def add_to(self, app: FastAPI) -> None:
        for path, handler in (("/", self.page), ("/console/{file:path}", self.file)):
            app.add_api_route(path, handler, methods=["GET", "HEAD"], include_in_schema=False)

    async def page(self, request: Request) -> Response:
        """The console."""
        return await _answer(request, "index.html")

    async def file(self, request: Request, file: str) -> Response:
        """One of its files."""
        return await _answer(request, file)


async def _answer(request: Request, name: str) -> Response:
    path = found(name)
    data = await asyncio.to_thread(path.read_bytes) if path is not None else None
    if path is None or data is None:
        raise NotFound("The console has no such file.")
    tag = f'"{sha256(data).hexdigest()[:32]}"'
    headers = {**HEADERS, "etag": tag}
    known = [each.strip().removeprefix("W/") for each in request.headers.get("if-none-match", "").split(",")]
    if tag in known or known == ["*"]:
        return Response(status_code=304, headers=headers)
    return Response(data, headers=headers, media_type=KINDS[path.suffix])


def found(name: str) -> Path | None:
    """The file that this name means; None if it means none."""
    parts = name.split("/")
    plain = all(part and part[0] != "." and part.isprintable() and "\\" not in part for part in parts)
    if len(name) > LONGEST or not plain:
        return None
    path = STATIC.joinpath(*parts)
    return path if path.suffix in KINDS and path.is_file() and not path.is_symlink() else None

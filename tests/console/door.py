"""Logging in to a gateway, as a page of it does."""

from __future__ import annotations

from typing import Any

import httpx

from gateway.console.sessions import COOKIE
from tests.keys.gate import ADMIN, Gate

SESSION = "/console/session"
OWN_PAGE = {"sec-fetch-site": "same-origin"}


async def log_in(here: Gate, **given: Any) -> httpx.Response:
    """With the admin key, unless something else is given; the client keeps no cookie."""
    answer = await here.client.post(SESSION, json=given or {"key": ADMIN}, headers=OWN_PAGE)
    here.client.cookies.clear()
    return answer


def token_of(answer: httpx.Response) -> str:
    """The session that this answer began."""
    assert answer.status_code == 200, answer.text
    name, _, rest = answer.headers["set-cookie"].partition("=")
    assert name == COOKIE
    return str(rest.partition(";")[0])


def bringing(token: str) -> dict[str, str]:
    """Headers of a request that looks."""
    return {"cookie": f"other=1; {COOKIE}={token}"}


def from_page(token: str) -> dict[str, str]:
    """Headers of a request of the console's own page."""
    return {**bringing(token), **OWN_PAGE}


async def session(here: Gate) -> str:
    """A session of whoever has the admin key."""
    return token_of(await log_in(here))

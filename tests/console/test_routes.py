"""A session opens every route that a key opens, and no page of another site can use it to change anything."""

from __future__ import annotations

import json
from pathlib import Path

from gateway.console.sessions import COOKIE
from tests.console.door import SESSION, token_of
from tests.keys.gate import ADMIN
from tests.keys.test_matrix import ROUTES, call, standing

LOOKS = ("GET", "HEAD")


async def test_a_session_opens_each_route_to_its_own_page_and_changes_to_no_other(tmp_path: Path) -> None:
    async with standing(tmp_path) as here:
        token = token_of(await here.client.post(SESSION, json={"key": ADMIN}))
        cookie = f"cookie: {COOKIE}={token}\r\n".encode()
        for (method, path), route in ROUTES.items():
            if route.guard in ("none", "session"):
                continue
            for site in (b"sec-fetch-site: cross-site\r\n", b"origin: http://evil.example\r\n", b""):
                answer = await call(here.port, method, path, cookie + site, route.body)
                if method not in LOOKS:
                    assert answer.status == 403, (method, path)
                    error = json.loads(answer.body)["error"]
                    told = error["type"] if "/messages" in path else error["code"]  # Anthropic's has no code
                    assert told == ("permission_error" if "/messages" in path else "cross_site"), path
        assert here.container.visits == []
        for (method, path), route in ROUTES.items():
            if route.guard != "session":
                own = b"sec-fetch-site: same-origin\r\n"
                answer = await call(here.port, method, path, cookie + own, route.body)
                assert answer.status not in (401, 403, 405, 500), (method, path, answer)

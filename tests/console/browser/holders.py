"""Keys of the shared gateway, what they ask, and the rows that come of it; over HTTP, as programs do.

Rule: each test has keys of its own names, so that what it counts is its own. Knows nothing of browsers.
"""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx

from tests.clients.process import PATIENCE
from tests.console.browser.house import CHAT, Place


def new_key(place: Place, name: str, **grant: Any) -> str:
    """A key of the store; its secret."""
    with place.client(admin=True) as client:
        answer = client.post("/admin/keys", json={"name": name, **grant})
        assert answer.status_code == 201, answer.text
        return str(answer.json()["key"])


def key_of(place: Place, name: str) -> dict[str, Any]:
    """A key as the gateway shows it."""
    with place.client(admin=True) as client:
        rows = client.get("/admin/keys").raise_for_status().json()["data"]
        return next(dict(row) for row in rows if row["name"] == name)


def ask(place: Place, secret: str, model: str = CHAT, **fields: Any) -> httpx.Response:
    """One request with this key, whatever comes of it."""
    body = {"model": model, "messages": [{"role": "user", "content": "hello"}], "max_tokens": 2, **fields}
    headers = {"authorization": f"Bearer {secret}"}
    with httpx.Client(base_url=place.url, headers=headers, timeout=PATIENCE, trust_env=False) as client:
        return client.post("/v1/chat/completions", json=body)


def ask_often(place: Place, secret: str, count: int) -> None:
    with ThreadPoolExecutor(4) as threads:
        for answer in threads.map(lambda _: ask(place, secret), range(count)):
            assert answer.status_code == 200, answer.text


def booked(place: Place, count: int, **query: str) -> list[dict[str, Any]]:
    """The rows that the ledger has of this query, once there are so many; the newest first."""
    deadline = time.monotonic() + PATIENCE
    with place.client(admin=True) as client:
        while True:
            answer = client.get("/admin/requests", params={"limit": "200", **query})
            rows = answer.raise_for_status().json()["data"]
            if len(rows) >= count:
                return list(rows)
            assert time.monotonic() < deadline, f"{len(rows)} rows instead of {count}"
            time.sleep(0.05)  # the ledger tells nobody that it has grown
